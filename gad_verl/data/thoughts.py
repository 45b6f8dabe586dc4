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
"""Sampled ids of a student that thinks, taken apart into its thoughts and its answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from gad_verl.core.thoughts import Reading, places, read_thoughts
from gad_verl.data.thinking import Marks
from gad_verl.data.tokens import SequenceBuilder

# The end of a prompt that may hold an opening mark, in tokens.
_TAIL = 64


@dataclass(frozen=True)
class ReadResponse:
    """A response taken apart.

    Args:
        answer_ids: What is read of it: the answer, and its end-of-text token if it has one. Sampled ids where there are
            no thoughts, else those of the answer's text. None where there is no answer.
        num_thoughts: Tokens of the thoughts, marks included.
        lead: Sampled tokens before the answer: the thoughts with which the response begins, and the white space behind
            them. 0 where it does not begin with thoughts, or they never end.
        inside: Whether it ends inside of its thoughts.
    """

    answer_ids: list[int] | None
    num_thoughts: int
    lead: int
    inside: bool = False


class ThoughtReader:
    """Takes responses of a student apart.

    Args:
        builder: Of the student's tokenizer.
        marks: Around its thoughts.
    """

    def __init__(self, builder: SequenceBuilder, marks: Marks) -> None:
        self._builder, self.marks = builder, marks
        self._open, self._close = (builder.marked_ids(mark) for mark in (marks.open, marks.close))
        added = set(builder.tokenizer.get_added_vocab().values())
        # Such marks are spelled in one way alone, and found without decoding the thoughts.
        self._by_ids = all(ids and ids[0] in added and ids[-1] in added for ids in (self._open, self._close))

    @property
    def ending(self) -> list[int]:
        """Ids that end thoughts in the middle."""
        return self._builder.marked_ids(self.marks.ending)

    def ends(self, response_ids: Sequence[int]) -> bool:
        """Whether a response ended by itself."""
        return bool(response_ids) and response_ids[-1] in self._builder.stop_ids

    def begins_inside(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a prompt ends in thoughts that the response goes on with."""
        return self._builder.decode(prompt_ids[-_TAIL:]).rstrip().endswith(self.marks.open)

    def empty_block(self, prompt_ids: Sequence[int]) -> list[int]:
        """Ids of thoughts of nothing behind a prompt, less what the prompt ends with of them."""
        prompt, block = self._builder.decode(prompt_ids[-_TAIL:]), self.marks.empty_block
        sizes = range(len(block), 0, -1)
        shared = next((size for size in sizes if prompt.endswith(block[:size]) and self._opens(block[:size])), 0)
        return self._builder.marked_ids(block[shared:]) if shared < len(block) else []

    def _opens(self, text: str) -> bool:
        return self.marks.open in text or self.marks.close in text

    def read(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> ReadResponse:
        """Take a response apart.

        Args:
            prompt_ids: What it answers, as the rollout was asked.
            response_ids: As sampled.
        """
        ids = list(response_ids)
        ended = self.ends(ids)
        body = ids[:-1] if ended else ids
        inside = self.begins_inside(prompt_ids)
        text, found = (self._by_tokens if self._by_ids else self._by_text)(body, inside, ended)
        count = sum(end - begin for begin, end in found.thoughts)
        if text is None or not (ended or text.strip()):
            return ReadResponse(None, count, self._with_space(body, found.lead), found.inside)
        if not found.thoughts:
            return ReadResponse(ids, 0, 0)
        # What stands between thoughts and answer is a part of neither.
        answer_ids = self._builder.text_ids(text.lstrip())
        return ReadResponse([*answer_ids, *ids[len(body) :]], count, self._with_space(body, found.lead))

    def _by_tokens(self, body: list[int], inside: bool, ended: bool) -> tuple[str | None, Reading]:
        def is_blank(begin: int, end: int) -> bool:
            return not self._builder.decode(body[begin:end]).strip()

        found = read_thoughts(
            len(body),
            places(body, self._open),
            places(body, self._close),
            begins_inside=inside,
            ended=ended,
            is_blank=is_blank,
        )
        if found.answer is None:
            return None, found
        kept = [token for begin, end in found.answer for token in body[begin:end]]
        return self._text(kept, ended), found

    def _by_text(self, body: list[int], inside: bool, ended: bool) -> tuple[str | None, Reading]:
        text = self._text(body, ended)

        def is_blank(begin: int, end: int) -> bool:
            return not text[begin:end].strip()

        found = read_thoughts(
            len(text),
            places(text, self.marks.open),
            places(text, self.marks.close),
            begins_inside=inside,
            ended=ended,
            is_blank=is_blank,
        )

        def until(characters: int) -> int:
            return self._tokens_until(body, characters)

        of_tokens = Reading(
            found.answer,
            tuple((until(begin), until(end)) for begin, end in found.thoughts),
            until(found.lead),
            found.inside,
        )
        kept = None if found.answer is None else "".join(text[begin:end] for begin, end in found.answer)
        return kept, of_tokens

    def _text(self, ids: list[int], ended: bool) -> str:
        return self._builder.decode(ids) if ended else self._builder.decode_cut(ids)

    def _tokens_until(self, body: list[int], characters: int) -> int:
        """Fewest tokens whose text holds the first ``characters``."""
        low, high = 0, len(body)
        while low < high:
            middle = (low + high) // 2
            if len(self._builder.decode(body[:middle])) < characters:
                low = middle + 1
            else:
                high = middle
        return low

    def _with_space(self, body: list[int], lead: int) -> int:
        """``lead``, and the tokens of white space that follow; 0 stays 0."""
        while 0 < lead < len(body) and not self._builder.decode(body[lead : lead + 1]).strip():
            lead += 1
        return lead
