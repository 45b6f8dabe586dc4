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
"""The text of a message's content, in the forms in which APIs and data sets write it, and whether a text is blank."""

import unicodedata
from typing import Any

# Kinds of parts that are part of the text: of the chat API, of the responses API, and of APIs that name no kind.
_TEXT = ("text", "input_text", "output_text", None)
# What a model thought before it answered is no part of its answer.
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, and what has no width (U+200B, U+FEFF and others of its category)."""
    return all(one.isspace() or unicodedata.category(one) == "Cf" for one in text)


class OtherPartError(Exception):
    """A part that is no text.

    Attributes:
        kind: What the part calls itself (``image_url``, ``tool_use``, ...).
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def text_of(content: Any) -> str | None:
    """The text of a content; parts are put together without anything between them, as chat templates do it.

    Args:
        content: A text, None, or a list of texts and of parts such as ``{"type": "text", "text": ...}``. Parts with
            thoughts are left out.

    Returns:
        The text; None where there is none.

    Raises:
        OtherPartError: A part is a picture, a call of a tool or anything else but text.
        TypeError: It is neither a text nor a list of parts.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise TypeError(type(content).__name__)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise TypeError(f"a list with {type(part).__name__}")
        kind = part.get("type")
        if kind in _THOUGHTS:
            continue
        if kind not in _TEXT or not isinstance(part.get("text"), str):
            raise OtherPartError(str(kind) if kind not in _TEXT else "part without text")
        texts.append(part["text"])
    return "".join(texts) if texts else None
