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
"""What checkpoints hold: enough to go on from, and written by one process."""

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.errors import GadConfigError
from gad_verl.preflight.megatron_check import MEGATRON


def check_checkpoints(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that checkpoints that are written hold the models, and that those that are read bring them back.

    Raises:
        GadConfigError: Names the key.
    """
    if config.actor_rollout_ref.actor.checkpoint.get("async_save", False):
        raise GadConfigError(
            "actor_rollout_ref.actor.checkpoint.async_save=True leaves the tracker file to another process, so student "
            "and discriminator could part: set it to False"
        )
    models = {"actor_rollout_ref.actor": config.actor_rollout_ref.actor}
    if gad_config.has_discriminator:
        models["discriminator"] = config.discriminator
    for key, model in models.items():
        if config.trainer.save_freq > 0:
            _check_contents(f"{key}.checkpoint.save_contents", model)
        if config.trainer.resume_mode != "disable":
            _check_contents(f"{key}.checkpoint.load_contents", model)


def _check_contents(key: str, model: DictConfig) -> None:
    contents = OmegaConf.select(model, ".".join(key.split(".")[-2:]), default=None)
    # Megatron's engine reads the folder of transformers back, FSDP's does not.
    names = ("model", "hf_model") if model.strategy == MEGATRON else ("model",)
    if contents is not None and not any(name in contents for name in names):
        raise GadConfigError(
            f"{key}={list(contents)} leaves the weights out, and a resumed run would go on with those that it began "
            "with: add model"
        )
