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
"""What a training stage needs of verl's Megatron engine: learning rate, optimizer state, weights of the reference.

Imports nothing of Megatron: the objects come with the engine.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

# What the optimizers keep per parameter and begin with as zeros. Other entries (copies of the weights in float32, which
# Transformer Engine's Adam may keep there) are no memory of gradients.
_MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "step")


def has_megatron_schedule(engine: Any) -> bool:
    """Whether the engine's schedule is Megatron's ``OptimizerParamScheduler``."""
    scheduler = engine.lr_scheduler
    return hasattr(scheduler, "max_lr") and hasattr(scheduler, "num_steps")


def checkpoint_manager(engine: Any) -> Any:
    """verl's checkpoint manager of an engine; verl 0.9.1 spells the attribute of Megatron's engine otherwise."""
    return engine.checkpoint_mananager if hasattr(engine, "checkpoint_mananager") else engine.checkpoint_manager


def is_forward_only_megatron(engine: Any) -> bool:
    """Whether this is Megatron's engine of a reference, which verl gives no checkpoint manager."""
    return hasattr(engine, "bridge") and not hasattr(engine, "checkpoint_mananager")


def load_forward_only(engine: Any, path: str) -> None:
    """Load the weights of a checkpoint of Megatron's student into the engine of its reference."""
    from verl.utils.megatron_utils import load_megatron_model_to_gpu, offload_megatron_model_to_cpu

    offloaded = engine.is_param_offload_enabled
    if offloaded:
        load_megatron_model_to_gpu(engine.module)
    engine.bridge.load_hf_weights(engine.module, str(Path(path) / "model" / "huggingface"))
    if offloaded:
        offload_megatron_model_to_cpu(engine.module)


def _torch_optimizers(optimizer: Any) -> Iterator[Any]:
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        inner = getattr(part, "optimizer", part)
        if inner is not None:
            yield inner


def reset_moments(optimizer: Any) -> None:
    """Forget what Megatron's optimizer learnt of the gradients; its float32 copies of the weights stay."""
    for inner in _torch_optimizers(optimizer):
        for state in inner.state.values():
            for name in _MOMENTS:
                value = state.get(name)
                if isinstance(value, Tensor):
                    value.zero_()
                elif value is not None:
                    state[name] = 0
        for group in inner.param_groups:
            if "step" in group:
                group["step"] = 0


def note_multiples(engine: Any) -> None:
    """Note which multiple of the common rate each parameter group has, of an engine that was just built.

    Once a rate was 0 (a student that waits), the rates of the groups do not tell it any more, those of a checkpoint
    neither.
    """
    peak = engine.lr_scheduler.max_lr
    if peak > 0:
        groups = engine.optimizer.param_groups
        engine.gad_rate_multiples = [group.get("max_lr", peak) / peak for group in groups]


def _set_peak(engine: Any, lr: float) -> None:
    """The schedule reads the peak rate of a parameter group, and its own where a group has none."""
    if not hasattr(engine, "gad_rate_multiples"):
        note_multiples(engine)
    engine.lr_scheduler.max_lr = lr
    groups = engine.optimizer.param_groups
    multiples = getattr(engine, "gad_rate_multiples", None) or [1.0] * len(groups)
    for group, multiple in zip(groups, multiples, strict=True):
        if "max_lr" in group:
            group["max_lr"] = lr * multiple
    engine.lr_scheduler.step(0)


def _rebuild(engine: Any, total_steps: int) -> None:
    engine.optimizer_config.total_training_steps = total_steps
    peak = engine.lr_scheduler.max_lr
    engine.lr_scheduler = engine._build_lr_scheduler()
    engine.lr_scheduler.max_lr = peak
    checkpoint_manager(engine).lr_scheduler = engine.lr_scheduler


def begin_stage(engine: Any, lr: float, total_steps: int, restart_schedule: bool) -> None:
    """See :func:`gad_verl.workers.stage.begin_stage`."""
    if restart_schedule:
        _rebuild(engine, total_steps)
    _set_peak(engine, lr)


def resume_stage(engine: Any, total_steps: int) -> None:
    """See :func:`gad_verl.workers.stage.resume_stage`."""
    position = engine.lr_scheduler.num_steps
    _rebuild(engine, total_steps)
    engine.lr_scheduler.num_steps = position
    engine.lr_scheduler.step(0)
