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
"""The bar of a collection: answers, tokens, cost, time left."""

import sys

from tqdm import tqdm

from gad_verl.tools.api.client import Progress, Summary
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest
from gad_verl.tools.teacher.settings import Teacher


class CollectProgress:
    """One bar for all teachers, on standard error.

    Tokens and cost are of the whole collection, stored answers included; the time left is that of the new ones.

    Args:
        total: Answers that are wanted.
    """

    def __init__(self, total: int) -> None:
        # Without a terminal every refresh is a line of a log.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(total=total, desc="teacher", unit="answer", mininterval=interval, dynamic_ncols=True)
        self._prompt_tokens = self._completion_tokens = self._failed = 0
        self._cost = 0.0

    def of(self, teacher: Teacher, is_extra: bool = False) -> Progress:
        """The callback for one teacher's requests; extra ones were not part of the total."""
        stored = 0

        def settled(summary: Summary, request: ChatRequest, answer: ChatAnswer | None) -> None:
            nonlocal stored
            self._bar.total += is_extra
            if answer is None:
                self._failed += 1
            else:
                counts = answer.prompt_tokens or 0, answer.completion_tokens or 0
                self._prompt_tokens += counts[0]
                self._completion_tokens += counts[1]
                self._cost += teacher.cost(*counts)
            if summary.stored > stored:
                # Out of the store in no time: it says nothing about the time left.
                stored = summary.stored
                self._bar.initial += 1
                self._bar.n += 1
                return
            self._bar.set_postfix_str(self._postfix(), refresh=False)
            self._bar.update()

        return settled

    def _postfix(self) -> str:
        parts = [f"{self._prompt_tokens:,} tokens in, {self._completion_tokens:,} out"]
        if self._cost:
            parts.append(f"cost {self._cost:.4f}")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the last state of the bar."""
        self._bar.set_postfix_str(self._postfix(), refresh=False)
        self._bar.close()
