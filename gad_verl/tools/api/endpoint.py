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
"""Where an API is, how fast it may be asked, and how patient the client is."""

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from gad_verl.errors import GadConfigError

# Sent where a server on this machine wants no key: the protocol needs the header.
NO_KEY = "none"


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API and one model in it. It holds the name of the key's variable, never the key.

    Attributes:
        base_url: Up to and with the version, such as ``https://api.example.com/v1``.
        model: Name of the model in that API.
        api_key_env: Environment variable that holds the key. A server on this machine may go without.
        timeout_s: Seconds that one attempt may take, from sending to the last byte.
        max_concurrency: Requests in flight at the same time.
        requests_per_minute: Requests are spaced evenly, retries among them; None for no limit.
        tokens_per_minute: Prompt and answer together; None for no limit.
        attempts: How often a request is sent at most, before it counts as failed.
        backoff_s: Mean seconds before the second attempt are half of it; it doubles with every attempt.
        max_backoff_s: Where the doubling ends.
        max_retry_after_s: An API that asks for more patience than this ends the run; the answers so far are kept.
        stream: Answers are asked for as a stream from the first request on; an API that gives no others teaches it.

    Raises:
        GadConfigError: A value that cannot work.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    max_concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 8
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_retry_after_s: float = 600.0
    stream: bool = False

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not self.model or not isinstance(self.model, str):
            raise GadConfigError("the name of the model is empty; set --model to a name that the API knows")
        if not isinstance(self.api_key_env, str) or not self.api_key_env.isidentifier():
            # The value is not repeated: it may be a key that was put here by mistake.
            raise GadConfigError("api_key_env must be the NAME of an environment variable, such as OPENAI_API_KEY")
        for name in ("timeout_s", "backoff_s", "max_backoff_s", "max_retry_after_s"):
            _check_positive(name, getattr(self, name))
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        for name in ("max_concurrency", "attempts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise GadConfigError(f"{name} must be a whole number from 1, got {value!r}")

    @property
    def is_local(self) -> bool:
        """Whether the API is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
            return address.is_loopback or address.is_unspecified
        except ValueError:
            return host == "localhost"

    def api_key(self) -> str:
        """The key, from the environment, at the moment it is needed.

        Raises:
            GadConfigError: The variable is not set and the API is not on this machine, or holds what no header may.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            if self.is_local:
                return NO_KEY
            raise GadConfigError(f"{self.base_url} needs a key: set the environment variable {self.api_key_env}")
        if not key.isascii() or not key.isprintable():
            raise GadConfigError(f"the environment variable {self.api_key_env} holds characters that no key has")
        return key

    def scrub(self, text: str) -> str:
        """``text`` without the key, for whatever comes from outside: some servers repeat it in their errors."""
        key = os.environ.get(self.api_key_env, "").strip()
        return text.replace(key, "***") if key else text


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except (ValueError, AttributeError):
        raise GadConfigError("the base URL cannot be read; expected something like https://host/v1") from None
    if parts.username or parts.password or parts.fragment:
        # Not repeated: it may hold a secret.
        raise GadConfigError("the base URL must not hold a user or password; keys come from the environment")
    is_azure = (parts.hostname or "").endswith((".azure.com", ".microsoft.com")) or "/openai/deployments/" in parts.path
    instead = (
        "; Azure takes https://NAME.openai.azure.com/openai/v1 with the name of the deployment as --model"
        if is_azure
        else ""
    )
    if parts.query:
        # Its names say what was meant; its values may be secret.
        names = ", ".join(dict.fromkeys(part.partition("=")[0] for part in parts.query.split("&")))
        raise GadConfigError(f"the base URL must not hold a query ({names}){instead}; keys come from the environment")
    if parts.path.rstrip("/").endswith("/completions") or "/openai/deployments/" in parts.path:
        raise GadConfigError(
            f"the base URL ends before /chat/completions, such as https://host/v1; got the path {parts.path!r}{instead}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GadConfigError(f"the base URL must look like https://host/v1, got {url!r}")


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise GadConfigError(f"{name} must be a positive number, got {value!r}")
