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
"""From the configuration keys ``discriminator`` and ``gad`` to the configuration of the worker group."""

from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig

from gad_verl.config import GadConfig
from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions
from gad_verl.discriminator.loss import LossOptions


def wants_fresh_head(config: DictConfig, gad_config: GadConfig) -> bool:
    """Whether the head is new: asked for, or (auto) the discriminator starts from the student's weights.

    With ``discriminator.model.lora_adapter_path`` the head belongs to the adapter.
    """
    model = config.discriminator.model
    if gad_config.discriminator_head == "auto":
        return model.path == config.actor_rollout_ref.model.path and model.get("lora_adapter_path") is None
    return gad_config.discriminator_head == "fresh"


def build_worker_config(
    config: DictConfig, gad_config: GadConfig, total_steps: int
) -> tuple[TrainingWorkerConfig, DiscriminatorOptions]:
    """Configuration of :class:`gad_verl.discriminator.worker.DiscriminatorWorker`, by the keys of verl's critic."""
    section = omega_conf_to_dataclass(config.discriminator)
    engine = section.engine
    engine.use_dynamic_bsz = section.use_dynamic_bsz
    engine.max_token_len_per_gpu = section.ppo_max_token_len_per_gpu
    engine.micro_batch_size_per_gpu = section.ppo_micro_batch_size_per_gpu
    section.optim.total_training_steps = total_steps
    profiler = config.discriminator.get("profiler", None)
    worker_config = TrainingWorkerConfig(
        model_type=MODEL_TYPE,
        model_config=section.model,
        engine_config=engine,
        optimizer_config=section.optim,
        checkpoint_config=section.checkpoint,
        profiler_config=omega_conf_to_dataclass(profiler) if profiler else None,
    )
    options = DiscriminatorOptions(
        fresh_head=wants_fresh_head(config, gad_config),
        num_layers=gad_config.discriminator_num_layers,
        seed=gad_config.discriminator_seed,
        share_prompt=gad_config.discriminator_share_prompt,
        loss=LossOptions(
            pairs=gad_config.discriminator_loss.pair_options(),
            custom=gad_config.discriminator_loss.custom,
            # Applied at each k-th update only, k times as strong (StyleGAN2, arXiv 1912.04958, section 3.1).
            penalty_coefficient=(
                gad_config.discriminator_loss.gradient_penalty * gad_config.discriminator_loss.gradient_penalty_every
            ),
            penalty_distance=gad_config.discriminator_loss.gradient_penalty_distance,
        ),
    )
    return worker_config, options
