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
"""Checks that a row brings with it as the reward: instructions, a number, tests of code (docs/evaluation.md).

    python -m verl.trainer.main_ppo --config-name gad_trainer \\
        gad.reward.group_function=$PWD/examples/rewards/checks.py:passed gad.reward.task_weight=1.0 \\
        gad.reward.task_combination=gate gad.discriminator_updates.passing_only=True gad.reward.task_passing=1.0 ...

The checks stand in the column ``extra_info``, under ``checks``, as a list of objects or as JSON text. Code runs in a
process of its own with limits, which are no wall against code that means harm.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gad_verl.tools.evaluation.checks import checks_of, passed_share


def passed(groups: Sequence[Any]) -> list[list[float | None]]:
    """Reward of each answer (``gad.reward.group_function``): the share of its row's checks that it passes.

    A row without checks gives its answers no direction.

    Args:
        groups: Of :class:`gad_verl.trainer.group_rewards.AnswerGroup`.
    """
    checks = [checks_of({"checks": group.extra_info.get("checks")}, "checks", "extra_info") for group in groups]
    jobs = [(some, text) for group, some in zip(groups, checks, strict=True) for text in group.answers]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda job: None if job[1] is None else passed_share(*job), jobs))
    sizes = [len(group.answers) for group in groups]
    return [found[sum(sizes[:number]) : sum(sizes[: number + 1])] for number in range(len(groups))]
