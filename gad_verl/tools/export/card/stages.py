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
"""Which stages a run has, and so which of its settings it reads."""

from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.tools.export.card.run_facts import RunFacts


def phases_of(run: RunFacts) -> frozenset[Phase]:
    """The phases of a run: of the schedule of its checkpoint, or else those that its configuration leads to.

    All of them where neither is known.
    """
    schedule = run.schedule or _planned(run)
    return frozenset(Phase if schedule is None else schedule.steps_by_phase())


def _planned(run: RunFacts) -> StageSchedule | None:
    """A schedule with the phases of the run. How many steps an epoch has is not known, and does not matter here."""
    stage, alone = run.get("gad.stage"), run.get("gad.discriminator_only_steps") or 0
    try:
        warmup = run.get("gad.warmup_steps")
        if warmup is None:
            warmup = alone + 1 if (run.get("gad.warmup_epochs") or 0) > 0 else 0
        alone = 0 if stage == "auto" and warmup == 0 else alone
        return StageSchedule(stage, alone + warmup + 2, warmup, alone, snapshot_steps=1)
    except (ValueError, TypeError):
        # Of another version or another program.
        return None
