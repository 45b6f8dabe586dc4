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
"""main_ppo on trajectories: verl's tool agent loop, a deterministic tool, a tiny student that has learned to call it.

Greedy and one a prompt, so that a resumed run must come to the same numbers.
"""

import math
import shutil
from pathlib import Path

import pytest
from main_ppo import Run, run_main_ppo
from tool_language import TOOLS_FILE, build_tool_folder, build_tool_rows, teach_calls

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS, SAVED = 4, 2
SETTINGS = (
    "gad.trajectory.enable=True",
    "gad.trajectory.score=turns",
    "gad.teacher_key=teacher_messages",
    f"actor_rollout_ref.rollout.multi_turn.function_tool_path={TOOLS_FILE}",
    "actor_rollout_ref.rollout.multi_turn.max_assistant_turns=3",
    "data.max_prompt_length=128",
    "data.max_response_length=200",
    "actor_rollout_ref.rollout.max_model_len=400",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={SAVED}",
    "gad.warmup_steps=2",
    "gad.discriminator_only_steps=1",
    "actor_rollout_ref.rollout.top_k=1",
    "actor_rollout_ref.rollout.n=1",
    "algorithm.adv_estimator=reinforce_plus_plus",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "+actor_rollout_ref.actor.optim.override_optimizer_config.eps=1e-4",
    "+discriminator.optim.override_optimizer_config.eps=1e-4",
)
SAME = (
    "disc/loss",
    "disc/margin_mean",
    "actor/loss",
    "actor/grad_norm",
    "gad/turns",
    "gad/calls",
    "response_length/mean",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    folder = build_tool_folder(tmp_path_factory.mktemp("trajectories"))
    teach_calls(folder / "model", build_tool_rows(48, seed=1), steps=250)
    first = run_main_ppo(folder, "first", *SETTINGS, timeout_s=420)
    assert first.returncode == 0, first.output[-4000:]
    checkpoints = folder / "checkpoints"
    shutil.rmtree(checkpoints / f"global_step_{STEPS}")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(SAVED))
    second = run_main_ppo(folder, "second", *SETTINGS, timeout_s=420)
    assert second.returncode == 0, second.output[-4000:]
    return folder, first, second


def test_the_student_calls_its_tool_and_learns(runs: tuple[Path, Run, Run]) -> None:
    _, first, _ = runs
    assert sorted(first.metrics) == list(range(1, STEPS + 1))
    for found in first.metrics.values():
        # It has learned to: most trajectories have a call, its result, and an answer.
        assert found["gad/calls"] > 0.5 and found["gad/turns"] > 1.4 and found["gad/teacher_turns"] == 2.0
        assert found["gad/invalid_call_rate"] < 0.5 and found["gad/failed_rollouts"] == 0
        assert math.isfinite(found["disc/loss"]) and 0 <= found["disc/accuracy"] <= 1
    # The supervised step learned what the assistant says, which is less than half of the rows.
    assert first.metrics[2]["gad/supervised_tokens"] < 8 * 120
    assert first.metrics[STEPS]["gad/stage"] == 2 and math.isfinite(first.metrics[STEPS]["actor/pg_loss"])


def test_a_resumed_run_goes_on_with_the_same_numbers(runs: tuple[Path, Run, Run]) -> None:
    _, first, second = runs
    assert sorted(step for step in second.metrics if step > SAVED) == list(range(SAVED + 1, STEPS + 1))
    for step in range(SAVED + 1, STEPS + 1):
        for name in SAME:
            assert second.metrics[step][name] == pytest.approx(first.metrics[step][name], rel=1e-4, abs=1e-4), name
