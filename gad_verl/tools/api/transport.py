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
"""One request to an API over the ``openai`` client, and what its outcome means: an answer, later, never, or stop."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from gad_verl.errors import GadEndpointError
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest

# No request to this API with this key can succeed: wrong or missing key, no credit, no such model or path.
_STOP_STATUS = {
    401: "refuses the key in {env} (401)",
    402: "wants to be paid first (402)",
    403: "does not allow this key to use the model {model!r} (403)",
    404: "knows no model {model!r}, or is no OpenAI-compatible API (404)",
}
# Other requests may succeed.
_PASSING_STATUS = {408: "timeout", 409: "conflict", 425: "conflict", 429: "rate_limited"}
_DETAIL_LENGTH = 200


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
    """The API refuses this very request, now and later: too long, or with content that it filters."""


def open_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """A client without retries of its own: they would be neither counted nor kept within the limits."""
    for name in ("openai", "httpx", "httpx2"):
        # They log a line per request where the root logger is set to INFO.
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url, api_key=endpoint.api_key(), max_retries=0, timeout=endpoint.timeout_s
    )


async def ask_once(client: openai.AsyncOpenAI, endpoint: Endpoint, request: ChatRequest) -> ChatAnswer:
    """Send a request once.

    Raises:
        PassingError: Worth another attempt.
        RejectedError: This request will never be answered.
        GadEndpointError: No request will be answered.
    """
    try:
        # The limit of the HTTP client is one between two bytes; this one is for the whole attempt.
        async with asyncio.timeout(endpoint.timeout_s):
            # The chat as extra_body, which replaces the empty list: the client would look at the type of every field of
            # every message, which takes longer than the rest of the request.
            body = {"messages": list(request.messages), **request.sampling}
            raw = await client.chat.completions.with_raw_response.create(
                model=endpoint.model, messages=[], extra_body=body
            )
    except (TimeoutError, openai.APITimeoutError):
        raise PassingError("timeout", f"no answer within {endpoint.timeout_s:g} s", counted=True) from None
    except openai.APIStatusError as error:
        raise status_error(endpoint, error) from None
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        raise PassingError("connection", endpoint.scrub(f"{type(cause).__name__}: {cause}")) from None
    content_type = raw.headers.get("content-type", "")
    if "json" not in content_type:
        raise PassingError("content_type", f"expected JSON, got {content_type[:80]!r}")
    try:
        body = json.loads(raw.content)
    except ValueError:
        raise PassingError("broken_answer", "the body is no JSON", counted=True) from None
    return _answer_of(endpoint, request, body)


def _answer_of(endpoint: Endpoint, request: ChatRequest, body: Any) -> ChatAnswer:
    """The answer in a parsed body, as far as it has the protocol's shape."""
    try:
        if body.get("error"):
            raise PassingError("broken_answer", endpoint.scrub(str(body["error"])[:_DETAIL_LENGTH]))
        choice = body["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        reason = choice.get("finish_reason")
        usage = body.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        model = body.get("model")
    except (AttributeError, KeyError, IndexError, TypeError):
        raise PassingError("broken_answer", "the JSON has no choices with a message") from None
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise PassingError("broken_answer", "the content of the message is no text")
    if not text and refusal:
        text, reason = refusal, "refusal"
    if not isinstance(reason, str):
        raise PassingError("broken_answer", "the answer has no finish_reason", counted=True)
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
    return ChatAnswer(
        key=request.key,
        text=text or "",
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        model=model if isinstance(model, str) and model else endpoint.model,
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def status_error(endpoint: Endpoint, error: openai.APIStatusError) -> Exception:
    """What an HTTP status means for this request and the others."""
    status, detail = error.status_code, detail_of(endpoint, error)
    if status == 429 and error.code in ("insufficient_quota", "billing_hard_limit_reached"):
        return GadEndpointError(f"{endpoint.base_url} says that the key's quota is used up: {detail}")
    if status in _STOP_STATUS:
        text = _STOP_STATUS[status].format(env=endpoint.api_key_env, model=endpoint.model)
        return GadEndpointError(f"{endpoint.base_url} {text}: {detail}")
    if status in _PASSING_STATUS or status >= 500 or status < 400:
        reason = _PASSING_STATUS.get(status, "server_error")
        return PassingError(reason, f"status {status}: {detail}", retry_after(error.response.headers))
    return RejectedError(f"status {status}: {detail}")


def detail_of(endpoint: Endpoint, error: openai.APIError) -> str:
    """What the API says about an error, in one line, short, and without the key."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or (body.get("error") or {})
    if isinstance(body, dict):
        body = body.get("message")
    text = endpoint.scrub(body if isinstance(body, str) and body else str(error))
    return " ".join(text.split())[:_DETAIL_LENGTH]


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
    except (ValueError, TypeError, IndexError):
        return None
