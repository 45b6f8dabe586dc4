# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Proxies, certificates and base URLs: what the environment says, and one line with the remedy where it cannot work."""

import os
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from fault_server import FaultServer, Reply

from gad_verl.errors import GadConfigError, GadEndpointError
from gad_verl.tools.api import Endpoint, check_endpoint
from gad_verl.tools.api.connection import through_proxy

SECRET = "5ecret"
FAR = "http://api.example.invalid/v1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificate of the machine that runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@pytest.fixture
def proxy() -> Iterator[FaultServer]:
    """Something that takes every request for its own, as a proxy does that lets nobody through."""
    with FaultServer(models_reply=Reply("<html>Access denied</html>", 403, "text/html")) as server:
        yield server


def endpoint_of(server: FaultServer) -> Endpoint:
    return Endpoint(server.base_url, server.model, timeout_s=5)


def refused(endpoint: Endpoint) -> str:
    with pytest.raises((GadEndpointError, GadConfigError)) as error:
        check_endpoint(endpoint)
    assert "\n" not in str(error.value) and SECRET not in str(error.value)
    return str(error.value)


class TestProxies:
    """None for this machine; elsewhere each error names the one that is in the way."""

    @pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"])
    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "socks5h://127.0.0.1:9"])
    def test_a_server_on_this_machine_is_asked_without(
        self, name: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, url)
        with FaultServer() as server:
            check_endpoint(endpoint_of(server))

    @pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
    def test_a_socks_proxy_without_its_package(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, f"socks5h://user:{SECRET}@127.0.0.1:9")
        monkeypatch.setitem(sys.modules, "socksio", None)
        assert f"{name} names a SOCKS proxy" in (line := refused(Endpoint(FAR, "m"))) and "pip install socksio" in line

    def test_a_proxy_of_a_kind_that_nobody_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", f"ftp://user:{SECRET}@127.0.0.1:9")
        assert "http_proxy names no proxy that can be used" in refused(Endpoint(FAR, "m"))

    @pytest.mark.parametrize(("status", "words"), [(403, "Access denied"), (407, "behind a proxy that wants a login")])
    def test_a_proxy_that_lets_nobody_through(
        self, proxy: FaultServer, status: int, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # It looks like the API's answer, and is none of its.
        monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        proxy.models_reply = Reply("<html>Access denied</html>", status, "text/html")
        with pytest.raises(GadEndpointError) as error:
            check_endpoint(Endpoint(f"http://api.example.invalid:{proxy.port}/v1", "m"))
        line = str(error.value)
        assert (
            words in line and f"through the proxy 127.0.0.1:{proxy.port} of http_proxy" in line and SECRET not in line
        )

    def test_a_proxy_that_is_down(self, proxy: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        line = refused(Endpoint(FAR, "m"))
        assert "cannot be reached" in line and "through the proxy 127.0.0.1:9 of http_proxy" in line

    @pytest.mark.parametrize("url", ["127.0.0.1:9", f"user:{SECRET}@127.0.0.1:9"])
    def test_a_proxy_without_a_scheme(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", url)
        assert "through the proxy 127.0.0.1:9 of http_proxy" in refused(Endpoint(FAR, "m"))

    @pytest.mark.parametrize("url", [f"http://user:{SECRET}@proxy:eighty", "proxy:eighty"])
    def test_a_proxy_whose_port_is_none(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", url)
        assert "http_proxy names no proxy that can be used" in refused(Endpoint(FAR, "m"))

    def test_hosts_that_go_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert through_proxy(Endpoint(FAR, "m"))
        monkeypatch.setenv("no_proxy", "api.example.invalid")
        assert through_proxy(Endpoint(FAR, "m")) == ""
        assert through_proxy(Endpoint("https://other.invalid/v1", "m")) == ""


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that nobody has signed but itself, and a server's context with it."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "cert.pem"
    pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    plain = serialization.NoEncryption()
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


class TestCertificates:
    """SSL_CERT_FILE is honoured, and named where it would help or is wrong."""

    def test_a_certificate_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pem, context = certificate(tmp_path)
        with FaultServer(tls=context) as server:
            assert "name the certificate of your own authority in SSL_CERT_FILE" in refused(endpoint_of(server))
            monkeypatch.setenv("SSL_CERT_FILE", str(pem))
            monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
            check_endpoint(endpoint_of(server))

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    @pytest.mark.parametrize("url", [FAR, "https://127.0.0.1:9/v1"])
    def test_one_that_is_not_there(self, name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
        assert refused(Endpoint(url, "m")).startswith(f"{name}={tmp_path / 'nowhere'}: no such file or folder")

    @pytest.mark.parametrize("url", [FAR, "https://127.0.0.1:9/v1"])
    def test_one_that_is_none(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bad.pem").write_text("no certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bad.pem"))
        assert "SSL_CERT_FILE holds no certificate that can be read" in refused(Endpoint(url, "m"))


class TestBaseUrls:
    """What people write instead of the base URL, and what they should."""

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            (
                "https://name.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-06-01",
                r"must not hold a query \(api-version\); Azure takes https://NAME.openai.azure.com/openai/v1",
            ),
            (
                "https://name.openai.azure.com/openai/deployments/gpt",
                "Azure takes https://NAME.openai.azure.com/openai/v1",
            ),
            ("http://127.0.0.1:8000/v1/chat/completions", "ends before /chat/completions"),
            ("http://127.0.0.1:8000/v1/completions/", "ends before /chat/completions"),
            (f"https://host/v1?key={SECRET}&x=1", r"must not hold a query \(key, x\); keys come from the environment"),
            (f"https://user:{SECRET}@host/v1", "must not hold a user or password"),
        ],
    )
    def test_what_to_write_instead(self, url: str, message: str) -> None:
        with pytest.raises(GadConfigError, match=message) as error:
            Endpoint(url, "m")
        assert SECRET not in str(error.value)

    def test_azures_form_of_today_is_taken(self) -> None:
        assert Endpoint("https://name.openai.azure.com/openai/v1/", "gpt").base_url

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "0.0.0.0"])
    def test_this_machine(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        assert Endpoint(f"http://{host}:8000/v1", "m").api_key() == "none"
