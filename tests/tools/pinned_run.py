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
"""A small fixed run of main_ppo whose numbers are written down, so that a change of numbers between versions is seen.

``make pin`` (``python tests/tools/pinned_run.py``) runs it and rewrites ``tests/e2e/pinned_trajectory.json``. Whoever
commits the new file says in the message which change of the code moved the numbers, and why that is right.
"""

import json
import sys
import tempfile
from pathlib import Path

from main_ppo import run_main_ppo
from tiny_model import build_all

PINNED = Path(__file__).parents[1] / "e2e" / "pinned_trajectory.json"
TOTAL_STEPS = 6

SETTINGS = (
    f"trainer.total_training_steps={TOTAL_STEPS}",
    # Not due at any step before the last one.
    "trainer.save_freq=100",
    # The discriminator alone, one supervised step, then the adversary.
    "gad.warmup_steps=2",
    "gad.discriminator_only_steps=1",
    # Greedy and one a prompt: nothing is drawn, so that neither the machine nor a resume changes the texts.
    "actor_rollout_ref.rollout.top_k=1",
    "actor_rollout_ref.rollout.n=1",
    # Gives a single response an advantage, which GRPO does not. Two updates a step: the second one's ratio is not 1.
    "algorithm.adv_estimator=reinforce_plus_plus",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    # Adam must not make whole steps of the rounding of gradients that are 0, which differs between processors.
    "+actor_rollout_ref.actor.optim.override_optimizer_config.eps=1e-4",
    "+discriminator.optim.override_optimizer_config.eps=1e-4",
)

# Losses, and what they are made of.
NAMES = (
    "gad/stage",
    "disc/loss",
    "disc/margin_mean",
    "disc/grad_norm",
    "actor/loss",
    "actor/pg_loss",
    "actor/kl_loss",
    "actor/grad_norm",
    "critic/rewards/mean",
    "response_length/mean",
)


def trajectory(metrics: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The pinned metrics of each step, as the file holds them; a phase lacks those of the others."""
    return {
        str(step): {name: found[name] for name in NAMES if name in found} for step, found in sorted(metrics.items())
    }


def main() -> None:
    """Run it without interruption and rewrite the file."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_main_ppo(build_all(Path(folder)), "pinned", *SETTINGS, timeout_s=540)
    if run.returncode != 0:
        sys.exit(run.output[-4000:])
    PINNED.write_text(json.dumps(trajectory(run.metrics), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
