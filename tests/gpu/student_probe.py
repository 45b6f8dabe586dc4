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
"""The student's worker on a device (a part of device_probe.py)."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

FP32, BF16 = "fp32", "bf16"
TOKENS = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 100, "infer_max_token_len_per_gpu": 100}


def build(folder: str, strategy: str, precision: str, forward_only: bool = False, **engine: Any) -> Any:
    """verl's worker of a language model."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    config = TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=folder,
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=False,
            enable_gradient_checkpointing=False,
        ),
        engine_config=FSDPEngineConfig(
            strategy=strategy,
            use_torch_compile=False,
            forward_only=forward_only,
            mixed_precision={"param_dtype": precision, "reduce_dtype": FP32, "buffer_dtype": FP32},
            **TOKENS,
            **engine,
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, weight_decay=0.0, clip_grad=1e9, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    worker = TrainingWorker(config)
    worker.reset()
    return worker


def batch() -> Any:
    """Rows of which every token but the first is learnt."""
    from verl.utils import tensordict_utils as tu
    from worker_probe import make_groups

    from gad_verl.discriminator.groups import build_row_batch
    from gad_verl.discriminator.row_tensors import complete_rows

    rows = [row for group in make_groups() for row in group.rows() if len(row) > 1]
    data = complete_rows(build_row_batch(rows))
    data["loss_mask"] = torch.nested.as_nested_tensor(
        [torch.tensor([0] + [1] * (len(row) - 1)) for row in rows], layout=torch.jagged
    )
    settings = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 100, "use_remove_padding": False}
    tu.assign_non_tensor(data, use_fused_kernels=False, calculate_entropy=False, **settings)
    return data


def log_probs(worker: Any) -> torch.Tensor:
    """Of all learnt tokens."""
    with worker.engine.eval_mode():
        output = worker.engine.infer_batch(batch(), loss_function=None)
    found = torch.cat([row[:-1] for row in output["model_output"]["log_probs"].unbind()])
    return found.detach().float().cpu()


def update(worker: Any) -> float:
    """A step of cross-entropy; its loss."""
    from verl.workers.utils.losses import sft_loss

    with worker.engine.train_mode():
        worker.engine.optimizer_zero_grad()
        output = worker.engine.forward_backward_batch(batch(), partial(sft_loss, config=None), forward_only=False)
        worker.engine.optimizer_step()
        worker.engine.lr_scheduler_step()
    return float(sum(output["loss"]))


def student_part(strategy: str, folder: str, device: str) -> dict[str, Any]:
    """Cross-entropy, stages, and the KL reference (offloaded by verl) that takes the warmed-up weights."""
    from gad_verl.workers.stage import begin_stage, reset_moments
    from gad_verl.workers.student import StudentWorker

    found: dict[str, Any] = {}
    for precision in (FP32, BF16):
        for offload in (False, True):
            student = build(folder, strategy, precision, param_offload=offload, optimizer_offload=offload)
            name = f"{precision}{'_offloaded' if offload else ''}"
            found[f"start_{name}"] = log_probs(student)
            losses = [update(student), update(student)]
            begin_stage(student.engine, 3e-3, 5, restart_schedule=True)
            reset_moments(student.engine)
            found[f"losses_{name}"] = torch.tensor([*losses, update(student)])
            found[f"end_{name}"] = log_probs(student)
            path = f"{folder}_{strategy}_{name}_reference"
            whole: Any = SimpleNamespace(actor=student, role="actor_ref", save_checkpoint=student.save_checkpoint)
            StudentWorker.save_student_weights(whole, path)
            reference_dtype = {} if precision == BF16 else {"model_dtype": FP32}
            whole.ref = build(folder, strategy, precision, forward_only=True, **reference_dtype)
            found[f"reference_before_{name}"] = log_probs(whole.ref)
            StudentWorker.load_reference_weights(whole, path)
            found[f"reference_{name}"] = log_probs(whole.ref)
            # The live student goes on as if nothing had been.
            found[f"after_{name}"] = log_probs(student)
    return found
