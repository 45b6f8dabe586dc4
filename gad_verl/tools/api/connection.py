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
"""The HTTP client of an endpoint: what the environment says of proxies and certificates, and what is wrong with it."""

import logging
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from gad_verl.errors import GadConfigError
from gad_verl.tools.api.endpoint import Endpoint

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def open_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """A client without retries of its own: they would be neither counted nor kept within the limits.

    Raises:
        GadConfigError: The environment names a proxy or a certificate that cannot be used, or no key.
    """
    for name in ("openai", "httpx", "httpx2"):
        # They log a line per request where the root logger is set to INFO.
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    key = endpoint.api_key()
    for name in _CERTIFICATES:
        if os.environ.get(name) and not Path(os.environ[name]).exists():
            raise GadConfigError(f"{name}={os.environ[name]}: no such file or folder; set it right, or unset it")
    try:
        http_client = openai.DefaultAsyncHttpxClient(timeout=endpoint.timeout_s, **_own_environment(endpoint))
    except ImportError as error:
        # httpx makes the transports of all proxies that are named, used or not.
        raise GadConfigError(
            f"{_variable('socks') or 'a proxy variable'} names a SOCKS proxy, which needs a package more ({error}): "
            "pip install socksio, or unset the variable"
        ) from None
    except ssl.SSLError as error:
        raise GadConfigError(
            f"{' or '.join(name for name in _CERTIFICATES if name in os.environ)} holds no certificate that can be "
            f"read: {error}"
        ) from None
    except Exception as error:
        # The HTTP library has a class of its own for a URL that is none; which library that is, openai chooses.
        if not isinstance(error, ValueError) and type(error).__name__ != "InvalidURL":
            raise
        raise GadConfigError(
            f"{_variable('') or 'a proxy variable'} names no proxy that can be used: {error}"
        ) from None
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url, api_key=key, max_retries=0, timeout=endpoint.timeout_s, http_client=http_client
    )


def _own_environment(endpoint: Endpoint) -> dict[str, Any]:
    """No proxy for this machine, whatever the environment says: it would look for the server on its own."""
    if not endpoint.is_local:
        return {}
    file, folder = (os.environ.get(name) for name in _CERTIFICATES)
    return {"trust_env": False, "verify": ssl.create_default_context(cafile=file, capath=folder)}


def _variable(part: str) -> str:
    """The first variable of the environment that names a proxy whose URL begins so."""
    names = (name for name in os.environ if name.lower().endswith("_proxy") and name.lower() != "no_proxy")
    return next((name for name in names if os.environ[name].startswith(part)), "")


def through_proxy(endpoint: Endpoint) -> str:
    """A half-sentence that names the proxy between here and the API; empty where there is none."""
    parts = urlsplit(endpoint.base_url)
    if endpoint.is_local or urllib.request.proxy_bypass_environment(parts.hostname or ""):
        return ""
    proxies = urllib.request.getproxies_environment()
    scheme = parts.scheme if parts.scheme in proxies else "all"
    if scheme not in proxies:
        return ""
    # Its user and password stay out.
    named = proxies[scheme]
    place = urlsplit(named if "://" in named else f"http://{named}")
    host = f"{place.hostname}:{place.port}" if place.port else str(place.hostname)
    return f" (through the proxy {host} of {scheme}_proxy; no_proxy={parts.hostname} goes without it)"


def connection_detail(endpoint: Endpoint, error: openai.APIConnectionError) -> str:
    """Why no connection came about, with the remedy where there is one."""
    cause = error.__cause__ or error
    detail = endpoint.scrub(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        detail += "; name the certificate of your own authority in SSL_CERT_FILE"
    return detail + through_proxy(endpoint)
