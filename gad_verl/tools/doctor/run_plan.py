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
"""``gad-verl doctor --plan``: what ``verl.trainer.main_ppo`` with the same arguments would train.

Runs the check of :mod:`gad_verl.preflight` and verl's own, and tells the settings that decide a run. No Ray, no
accelerator, no weights: of a model, only tokenizer and configuration are read.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.modes import SYNC, TRAINER_MODES, rollout_gpus, trainer_mode
from gad_verl.config.stage_rates import stage_rates
from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.errors import GadConfigError
from gad_verl.preflight import PlannedRun, run_preflight
from gad_verl.preflight.parts_check import instantiation_error
from gad_verl.preflight.thinking_check import thinking_of_run
from gad_verl.tools.doctor.families import discriminator_family, student_family

_PHASE_NAMES = {
    Phase.DISCRIMINATOR_ONLY: "discriminator alone",
    Phase.WARMUP: "warmup",
    Phase.ADVERSARIAL: "adversarial",
    Phase.SEQKD: "SeqKD",
    Phase.SNAPSHOT: "snapshot of the student's answers",
    Phase.PREFERENCE: "preferences (SODA)",
}


def check_verl(config: DictConfig) -> None:
    """verl's own check of a configuration, which ``main_ppo`` runs first.

    Raises:
        GadConfigError: With what verl says.
    """
    from hydra.errors import InstantiationException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        # It prints that all is well and warns that there is no critic: neither belongs to the settings.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(sys.stderr):
            validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (AssertionError, ValueError, NotImplementedError) as error:
        raise GadConfigError(f"verl refuses the configuration: {error}") from None
    except InstantiationException as error:
        raise GadConfigError(instantiation_error(error)) from None


def stages(schedule: StageSchedule) -> Iterator[tuple[Phase, int, int]]:
    """Phases of a run with their first and last step, in order."""
    first = 1
    snapshot, warmup = schedule.snapshot_steps, schedule.warmup_steps
    borders = {schedule.discriminator_only_steps, snapshot, warmup, snapshot + warmup, schedule.total_steps}
    for last in sorted(border for border in borders if 1 <= border <= schedule.total_steps):
        phase = schedule.phase(first)
        # SeqKD and a stage alone have one phase over a border of "auto".
        if last == schedule.total_steps or schedule.phase(last + 1) is not phase:
            yield phase, first, last
            first = last + 1


def _differences(found: Any, default: Any, prefix: str) -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict) and isinstance(default[key], dict) and default[key]:
            yield from _differences(value, default[key], f"{prefix}.{key}")
        elif value != default[key]:
            yield f"{prefix}.{key}={value}"


def _engine(section: DictConfig) -> str:
    if "megatron" not in section:
        return section.strategy
    layout = section.megatron
    sizes = {
        "TP": layout.tensor_model_parallel_size,
        "PP": layout.pipeline_model_parallel_size,
        "CP": layout.context_parallel_size,
        "EP": layout.expert_model_parallel_size,
    }
    return f"{section.strategy} " + " ".join(f"{name}={size}" for name, size in sizes.items())


def _rates(config: DictConfig, schedule: StageSchedule) -> Iterator[str]:
    """The learning rates that the run reads, of each model that learns."""
    for side in ("student", "discriminator"):
        rates = stage_rates(side, schedule.steps_by_phase(), partial(OmegaConf.select, config))
        if rates:
            yield f"{side} " + ", ".join(f"{title} {rate:g}".strip() for title, rate in rates)


def _lines(config: DictConfig, run: PlannedRun) -> Iterator[tuple[str, str]]:
    data, student, rollout = config.data, config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    discriminator, trainer, gad = config.discriminator, config.trainer, run.gad_config
    yield "student", f"{config.actor_rollout_ref.model.path}, {_engine(student)}"
    family = student_family(config)
    if family is not None:
        yield "family of the student", family
    if gad.has_discriminator:
        own = gad.discriminator_nnodes * gad.discriminator_n_gpus_per_node
        pool = f"{own} GPUs of its own" if own else "on the student's GPUs"
        yield "discriminator", f"{discriminator.model.path}, {_engine(discriminator)}, {pool}"
        family = discriminator_family(config)
        if family is not None:
            yield "family of the discriminator", family
    of_rollout = f", and {rollout.nnodes} x {rollout.n_gpus_per_node} of the rollout" if rollout_gpus(config) else ""
    yield "GPUs", f"{trainer.nnodes} x {trainer.n_gpus_per_node}{of_rollout}"
    yield "rollout", f"{rollout.name}, TP={rollout.tensor_model_parallel_size}, temperature {rollout.temperature}"
    yield (
        "batch",
        f"{data.train_batch_size} prompts x {rollout.n} responses, optimizer steps of {student.ppo_mini_batch_size}; "
        f"at most {data.max_prompt_length} + {data.max_response_length} tokens",
    )
    yield "thinking", thinking_of_run(config, gad)
    yield "learning rates", "; ".join(_rates(config, run.schedule))
    if student.use_kl_loss and gad.stage != "seqkd":
        yield "KL loss", f"{student.kl_loss_coef} {student.kl_loss_type}, reference {gad.kl_reference}"
    yield "rows", f"{run.rows}, {run.steps_per_epoch} steps an epoch"
    for phase, first, last in stages(run.schedule):
        yield f"steps {first}-{last}", _PHASE_NAMES[phase]
    kept = gad.keep_checkpoints or trainer.max_actor_ckpt_to_keep or "all"
    yield "checkpoints", f"{trainer.default_local_dir}, every {trainer.save_freq} steps, kept: {kept}"
    yield "goes on from", "the beginning" if run.resume_folder is None else str(run.resume_folder)
    default = asdict(GadConfig())
    for line in _differences(asdict(gad), default, "gad"):
        yield "not as published", line


def plan(config: DictConfig) -> list[tuple[str, str]]:
    """Run every check that comes before a run; returns the settings that decide it, as names and texts.

    Raises:
        GadConfigError, GadDataError, GadCheckpointError, GadCompatError: One error with the remedy.
    """
    if trainer_mode(config) not in TRAINER_MODES:
        raise GadConfigError(
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} is stock verl: a plan is made for "
            f"trainer.v1.trainer_mode={SYNC}"
        )
    check_verl(config)
    return list(_lines(config, run_preflight(config)))


def describe(lines: Sequence[tuple[str, str]]) -> str:
    """A plan as text."""
    width = max(len(name) for name, _ in lines)
    text = "".join(f"{name:<{width}}  {value}\n" for name, value in lines)
    return f"{text}All checks passed. Nothing was started.\n"
