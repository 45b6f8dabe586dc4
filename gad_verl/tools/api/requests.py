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
"""What is asked of a chat API, and what comes back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gad_verl.errors import GadConfigError

# A text without a tokenizer at hand: about four bytes of UTF-8 per token, and a few tokens of the chat template.
BYTES_PER_TOKEN = 4
TOKENS_PER_IMAGE = 1000  # of one whose size is common
TOKENS_PER_MESSAGE = 4
# Where a request sets no limit of its own.
DEFAULT_ANSWER_TOKENS = 512


@dataclass(frozen=True)
class ChatRequest:
    """One request to ``/chat/completions``.

    Attributes:
        key: The caller's unique name of the request; an answer is stored under it. :func:`request_key` makes one.
        messages: The chat, ``{"role": ..., "content": ...}`` each, with calls of tools where there are some.
        sampling: Everything else of the request's body: ``temperature``, ``top_p``, ``max_tokens``, ``seed``, ``stop``
            and whatever else the API understands.
        optional: Fields of ``sampling`` that nobody asked for by hand: they are left out where the API takes none.
    """

    key: str
    messages: tuple[dict[str, Any], ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatAnswer:
    """One answer.

    Attributes:
        key: Key of the request.
        text: The answer as it came, not stripped; empty where the API sent none.
        finish_reason: ``stop``, ``length``, ``content_filter``, ``unknown`` where the API gave none, else as it names
            it; ``refusal`` where it marked the text as one.
        prompt_tokens, completion_tokens: As the API counted them; None where it does not count.
        model: What the API says has answered.
        created_utc: When the answer arrived, ISO 8601.
        thoughts: Whether thoughts came beside the text. Known of a new answer; the store does not keep it.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    created_utc: str
    thoughts: bool = False


def check_json(fields: Mapping[str, Any], where: str) -> None:
    """Look whether fields of a request can be sent: JSON knows no NaN and no infinity, and YAML knows dates.

    Args:
        fields: By their names.
        where: Begins the message, before the name.

    Raises:
        GadConfigError: One cannot.
    """
    for name, value in fields.items():
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise GadConfigError(f"{where} {name!r} cannot be sent as JSON ({error}); give another value") from None


def request_key(messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], *more: str | int) -> str:
    """A key that is the same for the same content in every process and on every machine.

    Args:
        messages: The chat.
        sampling: The rest of the body.
        more: Whatever else tells two requests apart: the number of the sample, the name of the teacher.

    Returns:
        SHA-256 of the content, 64 hexadecimal digits.
    """
    content = json.dumps([list(messages), dict(sampling), list(more)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def estimate_prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a chat, roughly: no tokenizer is known. Good to some 30 % for most languages; not for images."""
    texts, images = list[str](), 0
    for message in messages:
        content = message["content"] or ""
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [part["text"] for part in content if part["type"] == "text"]
            images += sum(part["type"] != "text" for part in content)
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_IMAGE * images


def answer_limit(sampling: Mapping[str, Any]) -> int:
    """The most tokens that an answer may have, by the request; :data:`DEFAULT_ANSWER_TOKENS` where it does not say."""
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(sampling.get(name), int):
            return sampling[name]
    return DEFAULT_ANSWER_TOKENS
