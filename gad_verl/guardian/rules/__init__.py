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
"""The rules, in the order in which they speak."""

from gad_verl.guardian.rule import Rule
from gad_verl.guardian.rules.discriminator import Oscillation, Saturated, Weak
from gad_verl.guardian.rules.diversity import Collapse, NoSpread, Repetition
from gad_verl.guardian.rules.end_of_text import EndOfText
from gad_verl.guardian.rules.length import Length, ScoreLength
from gad_verl.guardian.rules.numbers import Nonfinite, Skipped
from gad_verl.guardian.rules.policy import Entropy, Kl
from gad_verl.guardian.rules.stopping import Indistinguishable, NoImprovement, Overfitted, Untrusted

RULES: tuple[type[Rule], ...] = (
    Nonfinite,
    Skipped,
    EndOfText,
    Saturated,
    Weak,
    Oscillation,
    NoSpread,
    Collapse,
    Repetition,
    Length,
    ScoreLength,
    Kl,
    Entropy,
    Untrusted,
    Overfitted,
    Indistinguishable,
    NoImprovement,
)

__all__ = ["RULES"]
