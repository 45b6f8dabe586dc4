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
"""Variants of GAD that the studies compare: ablations of the paper, and tools of the trainer, on the one file."""

from dataclasses import dataclass
from typing import Any

import study_common  # noqa: F401  (puts the examples on the path)
from gad_in_one_file import Gad, Group, Settings

from gad_verl.core import PairLossOptions, Phase
from gad_verl.core.gating import GateOptions, UpdateGate
from gad_verl.core.replay import ReplayBuffer, replay_count


@dataclass(frozen=True)
class VariantSettings(Settings):
    """Settings with those of the variants.

    Args:
        discriminator_loss: ``bradley_terry`` or ``cross_entropy`` (the paper's ablation).
        discriminator_updates: Updates of D per batch; rewards are the scores before the first one.
        discriminator_warmup: Whether the warmup trains D; False is the paper's ablation "no D warmup".
        discriminator_frozen: Whether D stays as it is in the adversarial stage; True provokes reward hacking.
        replay_steps: Past steps that D remembers; its updates then draw ``replay_fraction`` of their groups from them.
    """

    discriminator_loss: str = "bradley_terry"
    discriminator_updates: int = 1
    discriminator_warmup: bool = True
    discriminator_frozen: bool = False
    replay_steps: int = 0
    replay_fraction: float = 0.5


class _NeverUpdates(UpdateGate):
    def updates(self) -> int:
        return 0


class VariantGad(Gad):
    """GAD with :class:`VariantSettings`."""

    settings: VariantSettings

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        settings = self.settings
        self.pair_loss = PairLossOptions(kind=settings.discriminator_loss)
        options = GateOptions(updates_per_step=settings.discriminator_updates)
        self.gate = _NeverUpdates(options) if settings.discriminator_frozen else UpdateGate(options)
        self.replay: ReplayBuffer[Group] = ReplayBuffer(settings.replay_steps, seed=settings.seed)

    def rolls_out(self, phase: Phase) -> bool:
        return phase is Phase.ADVERSARIAL or (phase.trains_discriminator and self.settings.discriminator_warmup)

    def past_groups(self, groups: list[Group]) -> list[Group]:
        count = replay_count(len(groups), self.settings.replay_fraction) if len(self.replay) else 0
        return self.replay.sample(count, self.steps_done)

    def step(self) -> dict[str, float]:
        """As in the base class; then D remembers the groups of the step."""
        metrics = super().step()
        if "disc/loss" in metrics:
            self.replay.add(self.steps_done, self.groups)
        return metrics
