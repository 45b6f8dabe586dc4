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
"""The configuration of Megatron composes, and what cannot work is refused before anything starts."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from gad_verl.compat import MEGATRON_USES, VerlUse, unread_uses
from gad_verl.config import load_gad_config
from gad_verl.config.micro_batch import tokens_per_micro_batch
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.preflight.megatron_check import check_installed

BOTH = ("gad_megatron_trainer",)
STUDENT_ONLY = ("gad_megatron_trainer", "critic@discriminator=dp_critic")
DISCRIMINATOR_ONLY = ("gad_trainer", "critic@discriminator=megatron_critic")


@pytest.fixture(scope="module")
def compose(compose_config: Callable[..., DictConfig], tiny_folder: Path) -> Callable[..., DictConfig]:
    """Composes a layout once and sets keys on copies of it: composing takes a second."""
    paths = (
        f"actor_rollout_ref.model.path={tiny_folder / 'model'}",
        f"data.train_files={tiny_folder / 'train.parquet'}",
        f"data.val_files={tiny_folder / 'val.parquet'}",
        "trainer.n_gpus_per_node=8",
        "actor_rollout_ref.rollout.name=hf",
    )
    layouts: dict[tuple[str, ...], DictConfig] = {}

    def composed(layout: tuple[str, ...], *overrides: str) -> DictConfig:
        if layout not in layouts:
            layouts[layout] = compose_config(*layout, *paths)
        config = copy.deepcopy(layouts[layout])
        for key, value in (override.split("=", 1) for override in overrides):
            OmegaConf.update(config, key, yaml.safe_load(value))
        return config

    return composed


@pytest.mark.parametrize(
    ("layout", "student", "discriminator"),
    [(BOTH, "megatron", "megatron"), (STUDENT_ONLY, "megatron", "fsdp"), (DISCRIMINATOR_ONLY, "fsdp", "megatron")],
)
def test_both_engines_can_be_mixed(compose: Callable, layout: tuple, student: str, discriminator: str) -> None:
    config = compose(layout)
    assert check_config(config).stage == "auto"
    assert config.actor_rollout_ref.actor.strategy == config.actor_rollout_ref.ref.strategy == student
    assert config.discriminator.strategy == discriminator
    assert config.discriminator.optim.lr == 1e-6 and config.discriminator.enable is False
    assert tokens_per_micro_batch(config.discriminator) == config.discriminator.ppo_max_token_len_per_gpu


def test_the_discriminators_worker_is_configured_for_megatron(compose: Callable) -> None:
    from gad_verl.discriminator.group_config import build_worker_config

    config = compose(DISCRIMINATOR_ONLY, "discriminator.megatron.pipeline_model_parallel_size=2")
    config.actor_rollout_ref.model.override_config = {"attn_implementation": "sdpa"}
    worker, options = build_worker_config(config, load_gad_config(config), total_steps=7)
    assert worker.engine_config.strategy == "megatron"
    assert worker.engine_config.pipeline_model_parallel_size == 2
    assert worker.engine_config.max_token_len_per_gpu == config.discriminator.ppo_max_token_len_per_gpu
    assert worker.optimizer_config.total_training_steps == 7
    assert options.fresh_head


# One line each: what is set, and what the error names.
REFUSED = [
    (BOTH, "discriminator.megatron.tensor_model_parallel_size=3", "does not divide the 8 GPUs"),
    (BOTH, "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=4", "attention heads"),
    (BOTH, "discriminator.megatron.tensor_model_parallel_size=2", "vocabulary"),
    (BOTH, "discriminator.megatron.pipeline_model_parallel_size=4", "do not divide 2 layers"),
    (BOTH, "discriminator.megatron.virtual_pipeline_model_parallel_size=2", "at least 2"),
    (BOTH, "actor_rollout_ref.ref.megatron.pipeline_model_parallel_size=8", "actor_rollout_ref.ref.megatron"),
    (BOTH, "actor_rollout_ref.actor.megatron.expert_model_parallel_size=2", "the experts"),
    (BOTH, "discriminator.megatron.vanilla_mbridge=True", "Megatron-Bridge"),
    (BOTH, "discriminator.megatron.use_dist_checkpointing=True", "use_dist_checkpointing"),
    (BOTH, "discriminator.megatron.use_megatron_fsdp=True", "use_megatron_fsdp"),
    (BOTH, "discriminator.megatron.dynamic_context_parallel=True", "dynamic_context_parallel"),
    (BOTH, "discriminator.checkpoint.async_save=True", "discriminator.checkpoint.async_save"),
    (BOTH, "discriminator.model.lora_rank=4", "LoRA"),
    (STUDENT_ONLY, "actor_rollout_ref.model.lora_rank=4", "LoRA"),
    (STUDENT_ONLY, "actor_rollout_ref.actor.megatron.use_distributed_optimizer=False", "use_distributed_optimizer"),
    (STUDENT_ONLY, "actor_rollout_ref.actor.optim.use_checkpoint_opt_param_scheduler=False", "use_checkpoint_opt"),
    (STUDENT_ONLY, "actor_rollout_ref.ref.strategy=fsdp2", "same engine"),
    (DISCRIMINATOR_ONLY, "gad.discriminator_share_prompt=always", "share_prompt"),
    (DISCRIMINATOR_ONLY, "gad.discriminator_loss.gradient_penalty=1.0", "gradient_penalty needs"),
    (BOTH, "discriminator.strategy=fsdp2", "critic@discriminator=dp_critic"),
    (BOTH, "actor_rollout_ref.actor.strategy=fsdp", "--config-name gad_trainer"),
    (("gad_trainer",), "discriminator.strategy=megatron", "critic@discriminator=megatron_critic"),
    (("gad_trainer", "model_engine=veomni"), "gad.stage=auto", "critic@discriminator=dp_critic"),
]


@pytest.mark.parametrize(("layout", "override", "named"), REFUSED, ids=[override for _, override, _ in REFUSED])
def test_what_cannot_work_is_refused(compose: Callable, layout: tuple, override: str, named: str) -> None:
    with pytest.raises(GadConfigError) as error:
        check_config(compose(layout, override))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_context_parallelism_needs_packed_sequences(compose: Callable) -> None:
    context = "discriminator.megatron.context_parallel_size=2"
    config = compose(DISCRIMINATOR_ONLY, context)
    check_config(config)
    assert tokens_per_micro_batch(config.discriminator) == 2 * config.discriminator.ppo_max_token_len_per_gpu
    with pytest.raises(GadConfigError, match="use_remove_padding"):
        check_config(compose(DISCRIMINATOR_ONLY, context, "actor_rollout_ref.model.use_remove_padding=False"))


def test_what_was_never_run_is_said(compose: Callable, caplog: pytest.LogCaptureFixture) -> None:
    check_config(compose(("gad_trainer", "model_engine=veomni", "critic@discriminator=dp_critic")))
    check_config(compose(DISCRIMINATOR_ONLY, "discriminator.megatron.context_parallel_size=2"))
    assert "veomni is checked by its configuration alone" in caplog.text
    assert "context parallelism were checked by their configuration alone" in caplog.text


def test_missing_packages_are_named(compose: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed(compose(("gad_trainer",)))
    with pytest.raises(GadConfigError, match=r"megatron\.core is not installed"):
        check_installed(compose(DISCRIMINATOR_ONLY))


def test_what_is_used_of_verls_megatron_engine_is_there() -> None:
    assert unread_uses(MEGATRON_USES) == []
    gone = VerlUse("verl.workers.engine.megatron.transformer_impl:MegatronEngine", "of_another_release", "test")
    (line,) = unread_uses((gone,))
    assert line == "verl.workers.engine.megatron.transformer_impl.MegatronEngine.of_another_release is gone (test)"
