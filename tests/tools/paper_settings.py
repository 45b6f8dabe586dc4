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
"""The settings that the paper and its authors' scripts give (arXiv 2511.10643), as keys of the configuration."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

# What holds on every engine.
PAPER: dict[str, Any] = {
    "data.train_batch_size": 256,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.rollout.n": 8,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 1536,
    "actor_rollout_ref.rollout.temperature": 0.8,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": False,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "gad.stage": "auto",
    "gad.kl_reference": "warmed_up",
    "gad.warmup_epochs": 1.0,
    "gad.warmup_steps": None,
    "gad.discriminator_only_steps": 10,
    "gad.reset_optimizer_at_switch": False,
    "gad.warmup.actor_lr": None,
    "gad.adversarial.actor_lr": None,
    "trainer.total_epochs": 3,
    "trainer.save_freq": 50,
    "actor_rollout_ref.rollout.name": "vllm",
    "trainer.v1.trainer_mode": "gad_sync",
}
_OPTIM = {"lr": 1e-6, "weight_decay": 0.01, "clip_grad": 0.2, "lr_warmup_steps_ratio": 0.0}
_FSDP_OPTIM = {"optimizer": "AdamW", "lr_scheduler_type": "constant"}
_MEGATRON_OPTIM = {"optimizer": "adam", "lr_decay_style": "constant"}
_SECTIONS = ("actor_rollout_ref.actor", "discriminator")


def _optim(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.optim.{key}": value for section in _SECTIONS for key, value in settings.items()}


PAPER |= _optim(_OPTIM)
PAPER_FSDP = PAPER | _optim(_FSDP_OPTIM)
PAPER_FSDP |= {
    "discriminator.fsdp.model_dtype": "fp32",
    "discriminator.fsdp.mixed_precision.param_dtype": "bf16",
}
PAPER_MEGATRON = PAPER | _optim(_MEGATRON_OPTIM)
PAPER_MEGATRON |= {f"{section}.megatron.dtype": "bfloat16" for section in _SECTIONS}

# The baseline: cross-entropy alone, with a higher rate and no KL loss.
SEQKD = {
    "gad.stage": "seqkd",
    "actor_rollout_ref.actor.optim.lr": 5e-6,
    "actor_rollout_ref.actor.use_kl_loss": False,
}

# Sections of gad that hold nothing of the paper.
TOOLS = (
    "discriminator_loss",
    "discriminator_updates",
    "replay",
    "trust",
    "reward",
    "teachers",
    "curriculum",
    "guardian",
)


def differences(config: DictConfig, wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Found and wanted value of every key whose value is another."""
    found = {key: OmegaConf.select(config, key, throw_on_missing=True) for key in wanted}
    return {key: (value, wanted[key]) for key, value in found.items() if value != wanted[key]}
