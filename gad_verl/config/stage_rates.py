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
"""Which learning rates a run reads: those of the stages that occur, and verl's own where a stage has none."""

from collections.abc import Callable, Collection
from typing import Any

from gad_verl.config.stability import SUPERVISED
from gad_verl.core.schedule import Phase

_STUDENT, _DISCRIMINATOR = "student", "discriminator"
_COMMON = {_STUDENT: "actor_rollout_ref.actor.optim.lr", _DISCRIMINATOR: "discriminator.optim.lr"}
_NAMES = {_STUDENT: "actor_lr", _DISCRIMINATOR: "discriminator_lr"}
# What a stage is called, its phases, and its section of gad.
_STAGES = (
    ("warmup", {Phase.DISCRIMINATOR_ONLY, Phase.WARMUP}, "warmup"),
    ("SeqKD", {Phase.SEQKD}, "warmup"),
    ("adversarial stage", {Phase.ADVERSARIAL}, "adversarial"),
    ("preferences", {Phase.PREFERENCE}, "adversarial"),
)


def stage_rates(side: str, phases: Collection[Phase], get: Callable[[str], Any]) -> list[tuple[str, Any]]:
    """The peak learning rates of one model, each with the name of its stage.

    Args:
        side: "student" or "discriminator".
        phases: Of the run.
        get: A value of the configuration by its dotted name; None where it is not known.

    Returns:
        The rate that several stages share, and that of the only stage, come first under an empty name.
    """
    learns = {phase for phase in phases if side == _STUDENT or phase.trains_discriminator}
    if side == _STUDENT:
        # The student waits.
        learns.discard(Phase.DISCRIMINATOR_ONLY)
    elif get("gad.discriminator_updates.frozen"):
        learns.discard(Phase.ADVERSARIAL)
    found = [(title, get(f"gad.{section}.{_NAMES[side]}")) for title, of_stage, section in _STAGES if learns & of_stage]
    if side == _STUDENT and Phase.ADVERSARIAL in learns and Phase.WARMUP not in learns and _turns_to_texts(get):
        found.insert(0, ("texts of the adversarial stage", get(f"gad.warmup.{_NAMES[side]}")))
    common = get(_COMMON[side])
    if len(found) == 1:
        found = [("", common if found[0][1] is None else found[0][1])]
    elif any(rate is None for _, rate in found):
        found.insert(0, ("", common))
    return [(title, rate) for title, rate in found if rate is not None]


def _turns_to_texts(get: Callable[[str], Any]) -> bool:
    return (get("gad.trust.held_out_fraction") or 0) > 0 and get("gad.trust.otherwise") == SUPERVISED
