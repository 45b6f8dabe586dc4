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
"""Three ways to update the discriminator and to get the rewards, on the same worker.

A  As the public implementations do it: a scoring pass over the n rollouts, then an update over 2 n sequences, the
   teacher's text repeated for each rollout.
B  The teacher's text once per prompt, still with a scoring pass of its own.
C  gad_verl: one pass over the n + 1 sequences of a prompt; the rewards are the scores of the update's own forward.

All give the same loss and gradient (tests/benchmarks).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cost_model import Shape
from device import this_device

from gad_verl.discriminator.groups import SequenceGroup, build_group_batch, build_row_batch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tools"))

VOCABULARY = 256


def random_groups(shape: Shape, seed: int = 0, ragged: bool = False) -> list[SequenceGroup]:
    """Groups of random tokens with a prompt in common; ragged responses have a quarter up to all of their length."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (count,), generator=generator).tolist()

    def response(longest: int) -> list[int]:
        if not ragged:
            return ids(longest)
        return ids(int(torch.randint(longest // 4, longest + 1, (1,), generator=generator)))

    groups = []
    for _ in range(shape.prompts):
        prompt = ids(shape.prompt)
        students: list[list[int] | None] = [prompt + response(shape.rollout) for _ in range(shape.rollouts)]
        groups.append(SequenceGroup((prompt + response(shape.teacher),), students, prompt_length=shape.prompt))
    return groups


def build_model_folder(folder: Path, hidden: int, layers: int) -> Path:
    """A random Qwen2 of some width and depth, with a byte tokenizer."""
    from tiny_model import build_model

    return build_model(folder, layers=layers, hidden=hidden)


def worker_config(
    model_folder: Path,
    model_type: str,
    checkpointing: bool,
    remove_padding: bool,
    max_tokens: int = 10**7,
    attention: str | None = None,
    model_dtype: str = "fp32",
    **optim: Any,
) -> Any:
    """verl's configuration of a training worker on this device; by default any batch is one micro-batch."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig

    device = this_device()
    return TrainingWorkerConfig(
        model_type=model_type,
        model_config=HFModelConfig(
            path=str(model_folder),
            override_config={"attn_implementation": attention or device.attention},
            enable_gradient_checkpointing=checkpointing,
            use_remove_padding=remove_padding,
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp",
            use_dynamic_bsz=True,
            max_token_len_per_gpu=max_tokens,
            infer_max_token_len_per_gpu=max_tokens,
            use_torch_compile=False,
            model_dtype=model_dtype,
            mixed_precision={"param_dtype": device.precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        ),
        optimizer_config=FSDPOptimizerConfig(**{"lr": 1e-6, "clip_grad": 1.0, "total_training_steps": 1000, **optim}),
        checkpoint_config=CheckpointConfig(),
    )


def build_worker(
    model_folder: Path,
    checkpointing: bool = False,
    remove_padding: bool = False,
    share_prompt: str = "never",
    num_layers: int | None = None,
    **optim: Any,
) -> Any:
    """gad_verl's discriminator worker in this process."""
    from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions
    from gad_verl.discriminator.worker import DiscriminatorWorker

    config = worker_config(model_folder, MODEL_TYPE, checkpointing, remove_padding, **optim)
    options = DiscriminatorOptions(fresh_head=True, seed=3, share_prompt=share_prompt, num_layers=num_layers)
    worker = DiscriminatorWorker(config, options)
    worker.reset()
    return worker


class Schemes:
    """The three schemes on one worker and one batch. Each returns the rewards (G, n) and the loss."""

    def __init__(self, worker: Any, groups: Sequence[SequenceGroup]) -> None:
        self.worker = worker
        self.groups = list(groups)
        self.rollouts = len(groups[0].student_ids)
        self._student_rows = [ids for group in groups for ids in group.student_ids]
        self._pairs = [SequenceGroup(group.teacher_ids, [ids]) for group in groups for ids in group.student_ids]

    def score_rollouts(self) -> torch.Tensor:
        """Rewards (G, n) by a pass of their own, without an update."""
        scores = self.worker.score(build_row_batch(self._student_rows))["scores"]
        return scores.view(-1, self.rollouts)

    def a(self) -> tuple[torch.Tensor, float]:
        rewards = self.score_rollouts()
        updated = self.worker.update(build_group_batch(self._pairs, 1))
        return rewards, updated["loss"][0].item()

    def b(self) -> tuple[torch.Tensor, float]:
        rewards = self.score_rollouts()
        updated = self.worker.update(build_group_batch(self.groups, self.rollouts))
        return rewards, updated["loss"][0].item()

    def c(self) -> tuple[torch.Tensor, float]:
        updated = self.worker.update(build_group_batch(self.groups, self.rollouts))
        return updated["scores"].view(-1, self.rollouts + 1)[:, 1:], updated["loss"][0].item()
