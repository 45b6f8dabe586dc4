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
"""Configuration of students that think before they answer: ``gad.thinking``."""

from dataclasses import dataclass

from gad_verl.config.checks import AT_LEAST_ONE, NOT_NEGATIVE, require, require_choice, require_each

NONE, OFF, HIDDEN = "none", "off", "hidden"
MODES = (NONE, OFF, HIDDEN)
OWN_THOUGHTS, EMPTY_BLOCK = "own_thoughts", "empty_block"
WARMUPS = (OWN_THOUGHTS, EMPTY_BLOCK)


@dataclass
class ThinkingConfig:
    """What becomes of the student's thoughts (``gad.thinking``)."""

    mode: str = NONE
    open: str | None = None
    close: str | None = None
    empty_block: str | None = None
    unclosed_penalty: float = 1.0
    warmup: str = OWN_THOUGHTS
    budget: int | None = None

    @property
    def hides(self) -> bool:
        """Whether the student thinks, and nobody but itself reads its thoughts."""
        return self.mode == HIDDEN

    def validate(self) -> None:
        """Check the fields."""
        key = "gad.thinking"
        require_choice("thinking.mode", self.mode, MODES)
        require_choice("thinking.warmup", self.warmup, WARMUPS)
        require_each(key, self, NOT_NEGATIVE, "unclosed_penalty")
        require_each(key, self, AT_LEAST_ONE, "budget")
        require(
            (self.open is None) == (self.close is None) and self.open != "" and self.close != "",
            f"{key}.open and {key}.close belong together: name both marks, or leave both null; got {self.open!r} and "
            f"{self.close!r}",
        )
        require(self.open is None or self.open != self.close, f"{key}.open and {key}.close are the same: {self.open!r}")
        require(
            self.budget is None or self.hides,
            f"{key}.budget={self.budget} is read with {key}.mode=hidden alone; got {key}.mode={self.mode}",
        )
