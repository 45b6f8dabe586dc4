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
"""The YAML files: verl's format rule, and how they compose."""

import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

FOLDER = Path(str(files("gad_verl.config")))
YAMLS = sorted(FOLDER.rglob("*.yaml"))

_FIELD = re.compile(r"^\s*(?:-\s+\S|[\w.@/]+\s*:)")


def _inline_comment(line: str) -> bool:
    """Whether a ``#`` outside of quotes follows a value."""
    quote = None
    for before, char in zip(" " + line, line, strict=False):
        if quote is not None:
            quote = None if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and before.isspace():
            return True
    return False


def format_errors(text: str) -> list[str]:
    """What verl's CI refuses: a field without a comment right above and a blank line before it; inline comments."""
    lines = text.splitlines()
    errors = []
    for number, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if _inline_comment(line):
            errors.append(f"line {number + 1}: inline comment: {line}")
        if not _FIELD.match(line):
            errors.append(f"line {number + 1}: neither a field nor a comment: {line}")
            continue
        above = number - 1
        if above < 0 or not lines[above].lstrip().startswith("#"):
            errors.append(f"line {number + 1}: no comment above: {line}")
            continue
        if len(lines[above]) - len(lines[above].lstrip()) != len(line) - len(line.lstrip()):
            errors.append(f"line {above + 1}: the comment is not indented like its field")
        while above >= 0 and lines[above].lstrip().startswith("#"):
            above -= 1
        if above >= 0 and lines[above].strip():
            errors.append(f"line {number + 1}: no blank line before the comment of: {line}")
    return errors


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_format(path: Path) -> None:
    assert format_errors(path.read_text(encoding="utf-8")) == []


def test_the_files_are_there() -> None:
    assert {path.relative_to(FOLDER).as_posix() for path in YAMLS} >= {
        "gad/gad.yaml",
        "gad_cpu.yaml",
        "gad_trainer.yaml",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a\na: 1\n\n# b\nb: '#'\n", 0),
        ("a: 1\n", 1),
        ("# a\na: 1\n# b\nb: 2\n", 1),
        ("# a\na: 1  # inline\n", 1),
        ("# a\na:\n  # b\n  b: 1\n", 1),
        ("# a\na:\n\n  # b\n  b: 1\n", 0),
        ("# a\na:\n\n# b\n  b: 1\n", 1),
        ("# a\n\na: 1\n", 1),
        ("# a\na:\n\n  - b\n", 1),
    ],
)
def test_the_checker_finds_what_is_wrong(text: str, expected: int) -> None:
    assert len(format_errors(text)) == expected


# ------------------------------ composition ------------------------------

# What gad_cpu.yaml may change: sizes, precision, devices, processes. Nothing of the method.
CPU_ONLY = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.dataloader_num_workers",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.actor.use_torch_compile",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.rollout.name",
    "actor_rollout_ref.rollout.checkpoint_engine.backend",
    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.dtype",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.enforce_eager",
    "actor_rollout_ref.rollout.free_cache_engine",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.max_",
    "actor_rollout_ref.rollout.calculate_log_probs",
    "actor_rollout_ref.rollout.agent.num_workers",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    "discriminator.ppo_max_token_len_per_gpu",
    "discriminator.model.enable_gradient_checkpointing",
    "discriminator.fsdp.use_torch_compile",
    "discriminator.fsdp.mixed_precision",
    "critic.ppo_max_token_len_per_gpu",
    # Follows critic.ppo_max_token_len_per_gpu.
    "critic.forward_max_token_len_per_gpu",
    "critic.model.enable_gradient_checkpointing",
    "critic.fsdp.use_torch_compile",
    "critic.fsdp.mixed_precision",
    "reward.num_workers",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units",
    "gad.discriminator_only_steps",
    "gad.replay_poll_interval_s",
    "gad.watchdog",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "trainer.device",
    "ray_kwargs.ray_init",
)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their (unresolved) values."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


@pytest.fixture(scope="module")
def trainer(compose_config: Callable[..., DictConfig]) -> DictConfig:
    return compose_config("gad_trainer")


@pytest.fixture(scope="module")
def cpu(compose_config: Callable[..., DictConfig]) -> DictConfig:
    return compose_config("gad_cpu")


def test_cpu_differs_in_the_intended_keys_only(trainer: DictConfig, cpu: DictConfig) -> None:
    first, second = (dict(leaves(OmegaConf.to_container(config, resolve=False))) for config in (trainer, cpu))
    changed = {key for key in first.keys() | second.keys() if first.get(key, "absent") != second.get(key, "absent")}
    assert changed, "gad_cpu changes nothing"
    assert sorted(key for key in changed if not key.startswith(CPU_ONLY)) == []


@pytest.mark.parametrize("name", ["trainer", "cpu"])
def test_compositions_have_what_gad_needs(name: str, request: pytest.FixtureRequest) -> None:
    config = request.getfixturevalue(name)
    assert config.trainer.v1.trainer_mode == "gad_sync" and config.trainer.use_v1
    assert config.algorithm.adv_estimator == "grpo" and config.actor_rollout_ref.actor.use_kl_loss
    # Strictly on-policy: one optimizer step per batch.
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == config.data.train_batch_size
    assert config.data.custom_cls.name == "GadDataset"
    assert not config.discriminator.enable and not config.reward.reward_model.enable
    config = OmegaConf.create(OmegaConf.to_container(config))
    # The discriminator follows the student, the data set follows gad.
    config.actor_rollout_ref.model.path = "some/model"
    config.gad.teacher_key, config.gad.teacher_overlong = "answers", "drop"
    assert config.discriminator.model.path == config.critic.model.path == "some/model"
    assert (config.data.teacher_key, config.data.teacher_overlong) == ("answers", "drop")


def test_precision_on_a_cpu(cpu: DictConfig) -> None:
    def engines() -> Iterator[DictConfig]:
        yield cpu.actor_rollout_ref.actor.fsdp_config
        yield cpu.actor_rollout_ref.ref.fsdp_config
        yield cpu.discriminator.fsdp
        yield cpu.critic.fsdp

    for engine in engines():
        assert set(engine.mixed_precision.values()) == {"fp32"} and engine.model_dtype == "fp32"
    assert cpu.actor_rollout_ref.rollout.dtype == "float32"
    for model in (cpu.discriminator.model, cpu.critic.model):
        assert model.override_config.attn_implementation == "sdpa"


def test_hydra_refuses_an_unknown_key_before_us(compose_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigCompositionException, match="gad.nonsense"):
        compose_config("gad_cpu", "gad.nonsense=1")
