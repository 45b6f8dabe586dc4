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
"""What an API says went wrong, in its own words, and what that means: later, never, or stop."""

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from gad_verl.errors import GadEndpointError
from gad_verl.record.files import is_shallow
from gad_verl.tools.api.connection import through_proxy
from gad_verl.tools.api.endpoint import Endpoint

# No request to this API with this key can succeed: wrong or missing key, no credit, no such model or path.
_STOP_STATUS = {
    401: "refuses the key in {env} (401)",
    402: "wants to be paid first (402)",
    403: "does not allow this key to use the model {model!r} (403)",
    404: "knows no model {model!r}, or is no OpenAI-compatible API (404)",
    407: "is behind a proxy that wants a login (407)",
}
# Other requests may succeed.
_PASSING_STATUS = {408: "timeout", 409: "conflict", 425: "conflict", 429: "rate_limited"}
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
# Some APIs refuse a key with 400, as a request that is not valid.
_KEY_REFUSED = re.compile(
    r"api[ _-]?key (?:is )?(?:not valid|invalid)|API_KEY_INVALID|(?:invalid|incorrect) api[ _-]?key", re.I
)
# Some refuse a prompt with 403, which else says that the key may not use the model. What is said of an account is that.
_MODERATED = re.compile(
    r"\b(?:input|prompt|message|content)s?\b[^.]{0,40}\b(?:flagged|blocked|moderat)"
    r"|\b(?:requires|failed|by|in) (?:the )?(?:content )?moderation\b|\bcontent[ _-](?:filter|management|moderation)",
    re.IGNORECASE,
)
_OF_MODERATION = ("reasons", "flagged_input")
# A proxy's answer looks like the API's.
_OF_A_PROXY = (403, 407, 500, 502, 503, 504)
_DETAIL_LENGTH = 300
# Where the words stand, in the order of preference: OpenAI's, FastAPI's, and others.
_WORDS = ("message", "msg", "detail", "error", "errors", "error_message", "error_description", "title", "reason")


class PassingError(Exception):
    """This attempt failed; a later one may succeed.

    Attributes:
        reason: One word for the statistics.
        retry_after_s: Seconds that the API asks to wait, or None.
        counted: Whether the API may have produced tokens before it failed.
    """

    def __init__(self, reason: str, detail: str = "", retry_after_s: float | None = None, counted: bool = False):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.counted = counted


class RejectedError(Exception):
    """The API refuses this very request, now and later: too long, or with content that it filters.

    Attributes:
        code: What the API calls it (``model_not_found``), or an empty text.
        param: The field of the request that it names, or an empty text.
    """

    def __init__(self, message: str, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def status_error(endpoint: Endpoint, error: openai.APIStatusError) -> Exception:
    """What an HTTP status means for this request and the others."""
    return meaning_of(endpoint, error.status_code, error.body, retry_after(error.response.headers))


def meaning_of(endpoint: Endpoint, status: int, body: Any, retry_after_s: float | None = None) -> Exception:
    """What an error means for this request and the others.

    Args:
        endpoint: The API.
        status: The HTTP status, or the code of an error that came with status 200.
        body: What came with it: parsed JSON, or text.
        retry_after_s: Seconds that the API asks to wait, or None.
    """
    if not is_shallow(body):
        body = "an error that is nested beyond reason"
    detail = detail_of(endpoint, body) or "no words"
    code, param = _field(body, "code"), _field(body, "param")
    if status == 403 and (_MODERATED.search(detail) or any(map(_metadata(body).get, _OF_MODERATION))):
        return RejectedError(f"status {status}: {detail}", code, param)
    if status in _OF_A_PROXY:
        detail += through_proxy(endpoint)
    if status == 429 and code in _QUOTA_CODES:
        return GadEndpointError(f"{endpoint.base_url} says that the key's quota is used up: {detail}")
    if status == 400 and _KEY_REFUSED.search(json.dumps(body, default=str)):
        return GadEndpointError(f"{endpoint.base_url} refuses the key in {endpoint.api_key_env} (400): {detail}")
    if status in _STOP_STATUS:
        text = _STOP_STATUS[status].format(env=endpoint.api_key_env, model=endpoint.model)
        return GadEndpointError(f"{endpoint.base_url} {text}: {detail}")
    if status in _PASSING_STATUS or status >= 500 or status < 400:
        reason = _PASSING_STATUS.get(status, "server_error")
        return PassingError(reason, f"status {status}: {detail}", retry_after_s)
    return RejectedError(f"status {status}: {detail}", code, param)


def detail_of(endpoint: Endpoint, body: Any) -> str:
    """What the API says about an error, in one line, short, and without the key; empty where it says nothing."""
    return " ".join(endpoint.scrub(_words_of(body)).split())[:_DETAIL_LENGTH]


def _words_of(body: Any) -> str:
    if body is None or body == "":
        return ""
    if isinstance(body, str):
        is_page = re.search(r"<(?:html|!doctype|body|head)\b", body, re.IGNORECASE)
        return re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL | re.I) if is_page else body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_words_of, body)))
    if not isinstance(body, dict):
        return str(body)
    words = next((words for name in _WORDS if (words := _words_of(body.get(name)))), "")
    if not words:
        return json.dumps(body, ensure_ascii=False, default=str)
    place = body.get("loc")
    if isinstance(place, list) and place:
        # FastAPI: where in the body.
        words = f"{'.'.join(map(str, place))}: {words}"
    metadata = body.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    # A gateway says that a provider failed, and there what the provider said.
    return f"{words}: {_words_of(raw)}" if raw else words


def _field(body: Any, name: str) -> str:
    """A field of an error as text: of the error itself, of the object or of the list around it."""
    if isinstance(body, list):
        return next((found for one in body if (found := _field(one, name))), "")
    if not isinstance(body, dict):
        return ""
    value = body.get(name)
    return _field(body.get("error"), name) if value is None else str(value)


def _metadata(body: Any) -> Mapping[str, Any]:
    """What a gateway adds to an error: of the error itself, or of the object around it."""
    for one in (body, body.get("error") if isinstance(body, dict) else None):
        if isinstance(one, dict) and isinstance(one.get("metadata"), dict):
            return one["metadata"]
    return {}


def retry_after(headers: Any) -> float | None:
    """Seconds that ``Retry-After`` (seconds or an HTTP date) or ``retry-after-ms`` ask to wait; None where neither."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
