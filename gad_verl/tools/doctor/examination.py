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
"""All checks in their order: the machine first, then what the configuration asks of it, the one step last."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.data.tokenizer import may_be_of_the_hub
from gad_verl.errors import GadCompatError, GadConfigError
from gad_verl.tools.doctor.finding import Finding, error, ok, run_check, warning
from gad_verl.tools.doctor.lengths import check_lengths
from gad_verl.tools.doctor.machine import Device, check_gpus, check_this_machine, find_gpus
from gad_verl.tools.doctor.versions import check_versions

Check = tuple[str, Callable[[], Sequence[Finding]]]


class Doctor:
    """The checks of one request; what several need is made once.

    Args:
        config_name: ``--config-name``; None checks the environment alone.
        config_path: ``--config-path``.
        overrides: As for ``verl.trainer.main_ppo``.
        one_step_s: Seconds that the one step may take; None makes none.
    """

    def __init__(
        self,
        config_name: str | None = None,
        config_path: str | None = None,
        overrides: Sequence[str] = (),
        one_step_s: float | None = None,
    ) -> None:
        self.config_name, self.config_path, self.overrides = config_name, config_path, overrides
        self.one_step_s = one_step_s
        self.config: DictConfig | None = None

    @cached_property
    def gad_config(self) -> Any:
        """The section ``gad``, validated."""
        from gad_verl.config import load_gad_config

        return load_gad_config(self.config)

    @cached_property
    def gpus(self) -> list[Device]:
        """GPUs of this machine."""
        return find_gpus()

    @property
    def _has_discriminator(self) -> bool:
        return self.gad_config.has_discriminator

    def checks(self) -> Iterator[Check]:
        """Name and function of each check, to be run in this order: the first one composes the configuration."""
        if self.config_name is not None:
            yield "configuration", self._compose
        yield "versions", self._versions
        yield "internals of verl", self._internals
        yield "GPUs", lambda: check_gpus(self.gpus, self.config, os.environ.get("RAY_ADDRESS"))
        yield "machine", lambda: check_this_machine(self.config)
        if self.config is None:
            return
        # These import verl, as what composed the configuration did.
        from gad_verl.tools.doctor.families import check_model_families
        from gad_verl.tools.doctor.one_step import check_one_step
        from gad_verl.tools.doctor.tokenizers import check_positions, check_tokenizers

        yield "configuration", self._configuration
        yield "data", self._data
        yield "tokenizers", lambda: check_tokenizers(self.config, self._has_discriminator)
        yield "prompts", self._prompts
        yield "length of the rows", lambda: check_positions(self.config, self._has_discriminator)
        yield "sizes of the models", self._sizes
        yield "length of the data", lambda: check_lengths(self.config, self.gad_config.teacher_key)
        yield "families", lambda: check_model_families(self.config, self._has_discriminator)
        yield "models", self._models
        yield "room", self._room
        if self.one_step_s is not None:
            step = (self.config, self.config_name, self.config_path, self.overrides, self.one_step_s)
            yield "one step", lambda: check_one_step(*step)

    def _compose(self) -> list[Finding]:
        from gad_verl.preflight.composing import compose_config
        from gad_verl.preflight.platform_check import choose_platform

        name = self.config_name
        config = compose_config(name, self.overrides, self.config_path)
        if config.get("gad", None) is None:
            raise GadConfigError(
                f"--config-name {name} has no key gad: take gad_trainer, gad_cpu or gad_megatron_trainer, or a "
                "configuration over one of them"
            )
        self.config = config
        choose_platform(config)
        return []

    def _strategies(self) -> set[str]:
        if self.config is None:
            return set()
        sections = (self.config.actor_rollout_ref.actor, self.config.get("discriminator", None) or {})
        return {str(section.get("strategy", "")) for section in sections}

    def _versions(self) -> list[Finding]:
        rollout = None if self.config is None else str(self.config.actor_rollout_ref.rollout.name)
        return check_versions(rollout, "megatron" in self._strategies())

    def _internals(self) -> list[Finding]:
        from gad_verl import compat
        from gad_verl.preflight.megatron_check import check_installed

        name = "internals of verl"
        try:
            # verl warns of every engine that is not installed.
            with warnings.catch_warnings(action="ignore"):
                compat.check()
        except GadCompatError as reason:
            return [error(name, str(reason), "Install the verl that is named")]
        from verl.plugin.platform import get_platform

        found = [ok(name, f"everything that is used of verl is there, on the platform {get_platform().device_name}")]
        if "megatron" in self._strategies():
            check_installed(self.config)
            found.append(ok("internals of verl's Megatron engine", "there"))
        if importlib.util.find_spec("hydra_plugins.gad_verl_searchpath") is None:
            remedy = "Install with --config-settings editable_mode=compat, or as a wheel (README.md, Install)"
            found.append(error("search path of Hydra", "--config-name gad_trainer will not be found", remedy))
        return found

    def _configuration(self) -> list[Finding]:
        from gad_verl.preflight import check_config
        from gad_verl.tools.doctor.run_plan import check_verl

        check_config(self.config)
        check_verl(self.config)
        return [ok("configuration", f"{self.config_name}: its keys fit each other; stage {self.gad_config.stage}")]

    def _data(self) -> list[Finding]:
        from gad_verl.preflight import check_data, check_schedule

        rows = check_data(self.config, self.gad_config)
        found = [ok("data", f"{rows} training rows with prompts and teacher's texts")]
        check_schedule(self.config, self.gad_config, rows)
        return [*found, ok("stages", "they fit into the run")]

    def _prompts(self) -> list[Finding]:
        from gad_verl.preflight import check_prompts
        from gad_verl.preflight.thinking_check import thinking_of_run

        check_prompts(self.config, self.gad_config)
        found = [ok("prompts", "the chat templates render every one, and what is asked is in it")]
        if self.gad_config.trajectory.enable:
            from gad_verl.preflight.trajectory_check import check_trajectories

            check_trajectories(self.config, self.gad_config)
            found.append(ok("trajectories", "rollouts with the same tools could be what the teacher's rows are"))
        return [*found, ok("thinking", thinking_of_run(self.config, self.gad_config))]

    def _sizes(self) -> list[Finding]:
        from gad_verl.preflight.size_check import check_vocabularies

        check_vocabularies(self.config, self.gad_config)
        return [ok("sizes of the models", "each token has an embedding")]

    def _models(self) -> list[Finding]:
        from gad_verl.preflight import check_discriminator

        found = []
        models = {"actor_rollout_ref.model.path": self.config.actor_rollout_ref.model.path}
        if self._has_discriminator:
            models["discriminator.model.path"] = self.config.discriminator.model.path
        for key, path in models.items():
            folder = Path(str(path)).expanduser()
            if folder.is_dir():
                found += check_weights(key, folder)
            elif not may_be_of_the_hub(str(path)):
                found.append(error(key, f"{path}: there is no such folder", f"Set {key} to the folder of the model"))
            else:
                found.append(ok(key, f"{path} is no folder here: it will be loaded from the hub"))
        check_discriminator(self.config, self.gad_config)
        return [*found, ok("checkpoint to resume", "nothing that does not fit")]

    def _room(self) -> list[Finding]:
        """Disk, and the memory of GPUs and host where there are GPUs."""
        import psutil

        from gad_verl.tools.doctor import storage
        from gad_verl.tools.estimate.measured_data import count_rows
        from gad_verl.tools.estimate.run_estimate import estimate
        from gad_verl.tools.estimate.run_settings import read_settings

        try:
            settings = read_settings(self.config)
        except GadConfigError as reason:
            remedy = "Name a folder with the config.json of the model"
            return [warning("disk and memory", f"cannot be estimated: {reason}", remedy)]
        steps, rows = settings.total_steps, count_rows(self.config)
        if not steps and rows is not None:
            steps = rows // settings.prompts * settings.epochs
        found = storage.check_disk(settings, steps, Path(str(self.config.trainer.default_local_dir)).expanduser())
        if settings.on_cpu or not self.gpus:
            return found
        smallest = min(self.gpus, key=lambda device: device.memory)
        needed = estimate(replace(settings, total_steps=None), storage.gpu_of(smallest))
        found += storage.check_memory(needed)
        return found + storage.check_host(needed, float(psutil.virtual_memory().available))


def check_weights(key: str, folder: Path) -> list[Finding]:
    """A model folder has a configuration and weights, and of several files none is missing."""
    from gad_verl.preflight.model_check import missing_weights

    missing = missing_weights(folder)
    if missing is not None:
        return [error(key, missing, "")]
    size = sum(file.stat().st_size for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin")))
    return [ok(key, f"{folder}: {size / 1e9:.2f} GB of weights")]


def examine(doctor: Doctor) -> list[Finding]:
    """Run every check. One that fails does not stop the others."""
    return [finding for name, check in doctor.checks() for finding in run_check(name, check)]
