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
"""Learning rate and optimizer state at the beginning of a training stage, on an engine of verl."""

from typing import Any

from gad_verl.workers import megatron_stage


def note_rates(engine: Any) -> None:
    """Look at the learning rates of an engine that was just built, before anything changes or loads them."""
    if megatron_stage.has_megatron_schedule(engine):
        megatron_stage.note_multiples(engine)


def begin_stage(engine: Any, lr: float, total_steps: int, restart_schedule: bool) -> None:
    """Give the engine's optimizer the learning rate of a stage.

    Args:
        engine: verl's FSDP or Megatron engine (verl/workers/engine/), initialized.
        lr: Peak learning rate of the stage.
        total_steps: Optimizer steps of the stage, the horizon of a decaying schedule.
        restart_schedule: Start the schedule (and its warmup) anew; else it goes on with the new peak rate.

    Raises:
        NotImplementedError: If the engine is neither one of FSDP nor of Megatron.
    """
    _check(engine)
    if megatron_stage.has_megatron_schedule(engine):
        megatron_stage.begin_stage(engine, lr, total_steps, restart_schedule)
        return
    optimizer = engine.optimizer
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["initial_lr"] = lr
    if restart_schedule:
        engine.optimizer_config.total_training_steps = total_steps
        engine.lr_scheduler = engine._build_lr_scheduler(optimizer)
        engine.checkpoint_manager.lr_scheduler = engine.lr_scheduler
        return
    scheduler = engine.lr_scheduler
    scheduler.base_lrs = [lr] * len(optimizer.param_groups)
    for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
        group["lr"] = lr * factor(scheduler.last_epoch)


def reset_moments(engine: Any) -> None:
    """Forget what the engine's optimizer learned of the gradients.

    Args:
        engine: As in :func:`begin_stage`.
    """
    if megatron_stage.has_megatron_schedule(engine):
        megatron_stage.reset_moments(engine.optimizer)
    else:
        engine.optimizer.state.clear()


def advance_schedule(engine: Any) -> float:
    """One step of the schedule; returns the learning rate.

    A schedule that has come to its end stays there: verl's cosine would rise again. More optimizer steps than were
    planned come where the guardian asks for them.
    """
    horizon = engine.optimizer_config.total_training_steps
    ends = not megatron_stage.has_megatron_schedule(engine) and horizon > 0
    if ends and engine.lr_scheduler.last_epoch >= horizon:
        return float(engine.lr_scheduler.get_last_lr()[0])
    return float(engine.lr_scheduler_step())


def resume_stage(engine: Any, total_steps: int) -> None:
    """Give a resumed schedule the horizon of its stage: a checkpoint holds its position, not its shape."""
    _check(engine)
    if megatron_stage.has_megatron_schedule(engine):
        megatron_stage.resume_stage(engine, total_steps)
        return
    state = engine.lr_scheduler.state_dict()
    rates = [(group["lr"], group["initial_lr"]) for group in engine.optimizer.param_groups]
    engine.optimizer_config.total_training_steps = total_steps
    engine.lr_scheduler = engine._build_lr_scheduler(engine.optimizer)
    engine.lr_scheduler.load_state_dict(state)
    engine.checkpoint_manager.lr_scheduler = engine.lr_scheduler
    for group, (lr, initial_lr) in zip(engine.optimizer.param_groups, rates, strict=True):
        group["lr"], group["initial_lr"] = lr, initial_lr


def _check(engine: Any) -> None:
    if not hasattr(engine, "_build_lr_scheduler"):
        raise NotImplementedError(f"stages are implemented for FSDP and Megatron only; got {type(engine).__name__}")
