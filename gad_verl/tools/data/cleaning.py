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
"""What ``gad-verl data normalize`` does to one text. Every function leaves a text that needs nothing as it is."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# A leading block only: a text about such tags has them further down.
_THINKING = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
# Chat templates that open the block in the prompt leave a text with its end alone: on a line of its own, or right
# behind the last word and at the end of its line. A text about the tag has a blank, a quote or a code mark before it.
_THINKING_END = re.compile(r"(?:^[ \t]*|(?<=[^\s`'\"(]))</think>[ \t]*(?:\n|\Z)", re.MULTILINE | re.IGNORECASE)
_FENCE = "```"

_ROLE = r"(?:assistant|model|user|system|human|ai|bot)"
_MARKERS = (
    rf"<\|im_start\|>(?:{_ROLE}\b)?",
    r"<\|im_end\|>",
    r"<\|im_sep\|>",
    r"<\|endoftext\|>",
    r"<\|end_of_text\|>",
    r"<\|begin_of_text\|>",
    rf"<\|start_header_id\|>(?:{_ROLE})<\|end_header_id\|>",
    r"<\|eot_id\|>",
    r"<\|eom_id\|>",
    rf"<\|(?:{_ROLE}|end|return|message)\|>",
    rf"<start_of_turn>(?:{_ROLE}\b)?",
    r"<end_of_turn>",
    r"<\uff5c(?:Assistant|User|end\u2581of\u2581sentence|begin\u2581of\u2581sentence)\uff5c>",
    r"\[/?INST\]",
    r"<</?SYS>>",
    r"<eos>|<bos>|<pad>",
    r"\[(?:EOS|BOS|PAD)\]",
    r"<\|END_OF_TURN_TOKEN\|>",
)
_ANY_MARKER = "|".join(_MARKERS)
_MARKER = re.compile(rf"{_ANY_MARKER}|</?s>", re.IGNORECASE)
# <s> and </s> strike a text out in HTML: a beginning without an end further on but at the very end.
_HEAD = re.compile(rf"\A\s*(?:{_ANY_MARKER}|<s>(?!.*</s>\s*\S))\s*", re.IGNORECASE | re.DOTALL)
_TAIL = re.compile(
    rf"\s*(?:{_ANY_MARKER}|(?P<end></s>)|\#\#\#\s*(?:Instruction|Response|Input|Human|User|End)\s*:?)\s*\Z",
    re.IGNORECASE,
)
_STRUCK = re.compile(r"<s>", re.IGNORECASE)
# Only what no answer begins with: "Answer:" and "Output:" do begin real ones.
_HEADING = re.compile(r"\A\s*(?:\#\#\#\s*(?:Response|Assistant)\s*:|Assistant\s*:)\s*", re.IGNORECASE)
# A text in which others speak too is a dialogue that was asked for.
_SPEAKER = re.compile(
    r"^(?:\#\#\#\s*(?:Instruction|Input|Response|Human|User|Assistant)|"
    r"[ \t>*_]*(?:user|human|assistant|ai|bot|you|customer|client|student|interviewer))[ \t*_]*:",
    re.MULTILINE | re.IGNORECASE,
)
_LINE_END_BLANKS = re.compile(r"(?<![ \t])[ \t]+(?=\n)")
_BLANK_LINES = re.compile(r"\n{4,}")


def strip_whitespace(text: str) -> str:
    """No white space around the text, and line ends as a single new line character."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def strip_thinking(text: str) -> str:
    """No leading block of thoughts. A block without an end takes the whole text: the answer is missing."""
    text = _THINKING.sub("", text)
    end = _THINKING_END.search(text)
    thoughts = "" if end is None else text[: end.start()]
    # A text that shows the tag opens it too, or shows it as code.
    is_shown = "<think>" in thoughts.lower() or thoughts.count(_FENCE) % 2 == 1
    return text if end is None or is_shown else text[end.end() :]


def strip_template(text: str) -> str:
    """No special tokens and headings of chat templates at the beginning and end; those in the middle stay."""
    text = _HEAD.sub("", text, count=1)
    heading = _HEADING.match(text)
    if heading is not None and _SPEAKER.search(text, heading.end()) is None:
        text = text[heading.end() :]
    # The pattern is anchored at the end: only a tail as long as a marker with white space around it is searched.
    stripped = text.rstrip()
    match = _TAIL.search(stripped, max(0, len(stripped) - 80))
    is_mark = match is not None and not (match["end"] and _STRUCK.search(stripped, 0, match.start()))
    return stripped[: match.start()] if match is not None and is_mark else text


def nfc(text: str) -> str:
    """Unicode in its composed form (NFC)."""
    return unicodedata.normalize("NFC", text)


def strip_line_ends(text: str) -> str:
    """No blanks before line ends, and at most two empty lines in a row. Markdown's line break of two blanks is lost."""
    return _BLANK_LINES.sub("\n\n\n", _LINE_END_BLANKS.sub("", text))


def has_marker(text: str) -> bool:
    """Whether the text holds a special token of a chat template anywhere."""
    return _MARKER.search(text) is not None


STEPS: dict[str, Callable[[str], str]] = {
    "thinking": strip_thinking,
    "template": strip_template,
    "nfc": nfc,
    "whitespace": strip_whitespace,
    "line_ends": strip_line_ends,
}


@dataclass(frozen=True)
class Cleaned:
    """A text after the steps, and the names of those that changed it."""

    text: str
    changed: tuple[str, ...]


def clean(text: str, steps: tuple[str, ...]) -> Cleaned:
    """Apply steps again and again until none changes the text: cleaning twice is cleaning once.

    Args:
        text: Any text.
        steps: Names of :data:`STEPS`.
    """
    changed: dict[str, None] = {}
    while True:
        before = text
        for name in steps:
            after = STEPS[name](text)
            if after != text:
                changed[name] = None
            text = after
        if text == before:
            return Cleaned(text, tuple(changed))
