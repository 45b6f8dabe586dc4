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
"""Which request belongs to which prompt, teacher, sample and attempt. Nothing here depends on what came before."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gad_verl.tools.api.requests import ChatAnswer, ChatRequest, request_key
from gad_verl.tools.api.store import AnswerStore
from gad_verl.tools.teacher.marks import EMPTY, LENGTH, is_useless, marks_of
from gad_verl.tools.teacher.prompts import Prompt, Prompts
from gad_verl.tools.teacher.settings import CollectSettings, Teacher

# Between the seeds of two attempts; samples lie between them.
_SEEDS_PER_ATTEMPT = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of one answer that was wanted.

    Attributes:
        answer: The one to use; None where there is none.
        attempts: All answers that were given, in order.
        rejected: Why the API refuses the request; None where it does not.
        is_over: Whether nothing is left to be asked: all that was wanted again has come, or is refused.
    """

    answer: ChatAnswer | None
    attempts: tuple[ChatAnswer, ...] = ()
    rejected: str | None = None
    is_over: bool = True


class Plan:
    """All requests of a collection.

    Args:
        prompts: The prompts.
        settings: Teachers and the rest.
    """

    def __init__(self, prompts: Prompts, settings: CollectSettings) -> None:
        self.prompts = prompts.framed(settings.framing)
        self.settings = settings
        weights = [teacher.weight for teacher in settings.teachers]
        self._bounds = [sum(weights[: i + 1]) / sum(weights) for i in range(len(weights))]

    def kept_prompts(self) -> Iterator[Prompt]:
        """The prompts that are asked: without duplicates, where these are dropped."""
        dropped = "duplicate-prompt" in self.settings.drop
        return (prompt for prompt in self.prompts if not (dropped and prompt.occurrence))

    def teachers_of(self, prompt: Prompt) -> Sequence[Teacher]:
        """Who answers a prompt. A split follows from the prompt's content: order and number of rows do not matter."""
        teachers = self.settings.teachers
        if self.settings.assign == "all" or len(teachers) == 1:
            return teachers
        content = request_key(prompt.request, {}, prompt.occurrence)
        # 53 bits: what a float holds without rounding up to 1.
        place = (int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 11) / 2**53
        return [next(teacher for teacher, bound in zip(teachers, self._bounds, strict=True) if place < bound)]

    def request(self, prompt: Prompt, teacher: Teacher, sample: int, attempt: int = 0) -> ChatRequest:
        """The request for one answer. A seed that is set differs between samples and between attempts."""
        sampling = dict(teacher.sampling)
        if attempt and sampling.get("temperature") is not None:
            sampling["temperature"] = round(sampling["temperature"] + attempt * self.settings.ask_again_warmer, 6)
        if "seed" in sampling:
            sampling["seed"] += sample + _SEEDS_PER_ATTEMPT * attempt
        messages = prompt.request
        key = request_key(messages, sampling, teacher.name, teacher.endpoint.model, prompt.occurrence, sample, attempt)
        return ChatRequest(key, messages, sampling)

    def requests(self, teacher: Teacher, attempt: int = 0, store: AnswerStore | None = None) -> Iterator[ChatRequest]:
        """What a teacher is asked in one attempt, in the order of the prompts.

        From the second attempt on these are the answers of the store whose attempt before carries a mark that is asked
        for again.
        """
        for prompt in self.kept_prompts():
            if teacher not in self.teachers_of(prompt):
                continue
            for sample in range(self.settings.samples):
                if attempt:
                    before = store.get(self.request(prompt, teacher, sample, attempt - 1).key)
                    if before is None or not self.wants_another(before):
                        continue
                yield self.request(prompt, teacher, sample, attempt)

    def wants_another(self, answer: ChatAnswer) -> bool:
        """Whether an answer carries a mark that is asked for again."""
        marks = marks_of(answer)
        if EMPTY in marks and LENGTH in marks:
            # Thoughts took the whole limit: the same request will end so again.
            return LENGTH in self.settings.ask_again
        return any(mark in self.settings.ask_again for mark in marks)

    def outcome(self, prompt: Prompt, teacher: Teacher, sample: int, store: AnswerStore) -> Outcome:
        """The first answer without such a mark, else the first that says anything, else the last."""
        answers: list[ChatAnswer] = []
        rejected, is_over = None, True
        for attempt in range(self.settings.ask_again_times + 1):
            key = self.request(prompt, teacher, sample, attempt).key
            if (answer := store.get(key)) is None:
                rejected = store.rejection(key)
                is_over = rejected is not None
                break
            answers.append(answer)
            if not self.wants_another(answer):
                return Outcome(answer, tuple(answers))
        if not answers:
            return Outcome(None, rejected=rejected, is_over=is_over)
        says_something = [answer for answer in answers if not is_useless(marks_of(answer))]
        useless = answers[-1:] if is_over else [None]
        return Outcome((says_something or useless)[0], tuple(answers), is_over=is_over)
