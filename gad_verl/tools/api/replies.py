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
"""The answer in what came back: whole JSON or a stream, whatever the gateway makes of text, reason and counts."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from gad_verl.data.content import OtherPartError, text_of
from gad_verl.data.endings import BROKEN_OFF, finish_reason
from gad_verl.record.files import is_shallow
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.faults import PassingError, detail_of, meaning_of
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest

# A request that offers tools gets the whole message as its text, as JSON: content and calls.
WITH_TOOLS = "tools"
# The mark of a stream's end, told from an empty object by what it is and not by what is in it.
_DONE: Mapping[str, Any] = MappingProxyType({})
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def answer_of(endpoint: Endpoint, request: ChatRequest, content: bytes, content_type: str) -> ChatAnswer:
    """The answer in a response with status 200.

    Raises:
        PassingError, RejectedError, GadEndpointError: There is none; see :mod:`gad_verl.tools.api.faults`.
    """
    try:
        body = _body_of(endpoint, content, content_type)
        if body.get("error"):
            raise _error_in(endpoint, body["error"])
        choice = body["choices"][0]
        if choice.get("error"):
            raise _error_in(endpoint, choice["error"])
        message = choice["message"]
        refusal, usage, model = message.get("refusal"), body.get("usage") or {}, body.get("model")
        text, reason = text_of(message.get("content")), finish_reason(_clean(endpoint, choice.get("finish_reason")))
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except OtherPartError as error:
        kind = endpoint.scrub(str(error.kind))
        raise PassingError("broken_answer", f"the content has a part of the kind {kind}") from None
    except (AttributeError, KeyError, IndexError, TypeError):
        raise PassingError("broken_answer", "the JSON has no choices with a message and a text") from None
    if WITH_TOOLS in request.sampling:
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or (not calls and not text and not refusal):
            raise PassingError("broken_answer", "the message has neither text nor calls", counted=True)
        text = json.dumps({"content": text or refusal or "", "tool_calls": calls}, ensure_ascii=False)
    elif not text and isinstance(refusal, str) and refusal:
        text, reason = refusal, "refusal"
    if reason in BROKEN_OFF:
        raise PassingError("broken_answer", f"the API broke off ({reason})", counted=True)
    prompt_tokens, completion_tokens = map(_count, counts)
    return ChatAnswer(
        key=request.key,
        text=text or "",
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        model=_clean(endpoint, model) if isinstance(model, str) and model else endpoint.model,
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        thoughts=any(isinstance(message.get(name), str) and message[name].strip() for name in _THOUGHTS),
    )


def _clean(endpoint: Endpoint, value: Any) -> Any:
    """A field that is stored as the server sends it, without the key."""
    return endpoint.scrub(value) if isinstance(value, str) else value


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value < 0:
        return None
    return int(value) if value < 2**53 else None


def _error_in(endpoint: Endpoint, error: Any) -> Exception:
    """What an error in a response with status 200 means: gateways put the provider's status into it."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 500:
        return meaning_of(endpoint, code, error)
    return PassingError("broken_answer", detail_of(endpoint, error))


def _body_of(endpoint: Endpoint, content: bytes, content_type: str) -> Any:
    if "event-stream" in content_type or content.lstrip().startswith((b"data:", b": ")):
        return _gathered(endpoint, content.decode("utf-8", "replace"))
    try:
        # Whatever the header calls it.
        return _parsed(content)
    except ValueError:
        if "json" not in content_type:
            raise PassingError("content_type", f"expected JSON, got {endpoint.scrub(content_type)[:80]!r}") from None
        raise PassingError("broken_answer", "the body is no JSON", counted=True) from None


def _parsed(text: bytes | str) -> Any:
    """JSON; ValueError where it is none, or nested so deep that nothing may walk through it."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested beyond reason") from None
    if not is_shallow(value):
        raise ValueError("nested beyond reason")
    return value


def _events(stream: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a stream of server-sent events, and :data:`_DONE` for the mark of its end."""
    for line in stream.split("\n"):
        name, _, data = line.strip().partition(":")
        if name == "data" and data.strip() == "[DONE]":
            yield _DONE
        elif name == "data" and data.strip():
            try:
                event = _parsed(data)
            except ValueError:
                raise PassingError("broken_answer", "the stream holds broken JSON", counted=True) from None
            if isinstance(event, dict):
                yield event


def _gathered(endpoint: Endpoint, stream: str) -> dict[str, Any]:
    """A stream as the body that the API would have sent without one.

    Raises:
        PassingError: The stream ends before its text does.
    """
    texts: dict[str, list[str]] = {}
    reason, usage, model, is_done, has_deltas = None, None, None, False, False
    for event in _events(stream):
        if event.get("error"):
            raise _error_in(endpoint, event["error"])
        is_done = is_done or event is _DONE
        usage, model = event.get("usage") or usage, event.get("model") or model
        for choice in event.get("choices") or ():
            if choice.get("index", 0):
                continue
            reason = choice.get("finish_reason") or reason
            delta = choice.get("delta")
            # Some end with the whole message: what came before is in it, and must not be there twice.
            is_whole, has_deltas = has_deltas and not delta, has_deltas or bool(delta)
            for name, piece in (delta or choice.get("message") or {}).items():
                # Parts of a content are whole in each piece.
                if isinstance(piece, list):
                    piece = text_of(piece)
                if isinstance(piece, str) and piece:
                    pieces = texts.setdefault(name, [])
                    if is_whole:
                        pieces.clear()
                    pieces.append(piece)
    if reason is None and not is_done:
        raise PassingError("cut_stream", "the stream ended before the answer", counted=True)
    # A character beyond 16 bits may come as two halves, in two events.
    message = {
        name: "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for name, pieces in texts.items()
    }
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage, "model": model}
