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
"""Makes the trainer take its steps in turns: with a free reward, and with the discriminator. For step.py.

Loaded in every process of a run by ``VERL_USE_EXTERNAL_MODULES=alternating_trainer``. Step k of the run has the mode
``modes[k % len(modes)]`` of ``GAD_BENCH_MODES``: ``free`` (random rewards, nothing is scored), ``gad`` (as configured),
``overlap`` / ``sequential`` (a pool of its own, with and without gad.discriminator_overlap), or ``scores`` / ``both`` /
``texts`` (the student learns from scores alone, from scores and texts in one update, from texts alone).
"""

import os
from types import ModuleType

import torch
import wrapt

FREE, GAD, OVERLAP, SEQUENTIAL, SCORES, BOTH, TEXTS = MODES = (
    "free",
    "gad",
    "overlap",
    "sequential",
    "scores",
    "both",
    "texts",
)
# What the discriminator is taken to know.
KNOWLEDGE = {SCORES: 1.0, BOTH: 0.5, TEXTS: 0.0}


def _install(module: ModuleType) -> None:
    trainer = module.GadTrainerSync
    modes = os.environ["GAD_BENCH_MODES"].split(",")
    reward_stage = trainer._compute_reward_colocate

    def in_turns(self: object, batch: object, metrics: dict | None = None) -> object:
        if batch.partition_id == "val":
            return reward_stage(self, batch, metrics)
        mode = modes[self.global_steps % len(modes)]
        metrics["bench/mode"] = float(MODES.index(mode))
        if mode != FREE:
            self.gad_config.discriminator_overlap = mode == OVERLAP
            batch = reward_stage(self, batch, metrics)
            if mode in KNOWLEDGE:
                self.trust._factor = KNOWLEDGE[mode]
            return batch
        sessions, step = self._num_sessions, self.parts.step
        rollouts = self.rollouts.read(batch, sessions, self.global_steps, visit=0)
        shape = (len(rollouts.groups), sessions)
        metrics.update(step.rewards.write_scores(rollouts, torch.randn(shape), torch.ones(shape)))
        return batch

    trainer._compute_reward_colocate = in_turns


# Only where step.py set the modes: who imports this module for its names gets a trainer that is left alone.
if "GAD_BENCH_MODES" in os.environ:
    wrapt.register_post_import_hook(_install, "gad_verl.trainer.modes")
