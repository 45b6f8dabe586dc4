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
"""The key ``gad``: defaults, errors, and the number of warmup steps."""

import math
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from typing import Any

import pytest
from hydra.utils import get_class
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig, load_gad_config
from gad_verl.config.renamed import RENAMED_KEYS
from gad_verl.errors import GadConfigError


def default_section() -> DictConfig:
    return OmegaConf.create(files("gad_verl.config").joinpath("gad/gad.yaml").read_text(encoding="utf-8"))


def with_values(**values: Any) -> DictConfig:
    """The default configuration with some keys (dotted, ``__`` for the dot) replaced or added."""
    config = OmegaConf.create({"gad": default_section()})
    for key, value in values.items():
        OmegaConf.update(config, f"gad.{key.replace('__', '.')}", value, merge=False, force_add=True)
    return config


def assert_same(section: dict[str, Any], config: Any, path: str) -> None:
    """Every field of the dataclass is in the YAML with the same value and type, and nothing else is."""
    target = section.pop("_target_", None)
    # The sections of the guardian's rules name no class; the loader reads none anyway.
    assert target is None and path.startswith("gad.guardian.") or get_class(target) is type(config), path
    assert set(section) == {entry.name for entry in fields(config)}, path
    for name, value in section.items():
        expected = getattr(config, name)
        if is_dataclass(expected):
            assert_same(value, expected, f"{path}.{name}")
        else:
            assert value == expected and type(value) is type(expected), f"{path}.{name}"


def test_yaml_and_dataclass_have_the_same_defaults() -> None:
    assert_same(OmegaConf.to_container(default_section()), GadConfig(), "gad")


def test_defaults_are_valid_and_load() -> None:
    assert load_gad_config(OmegaConf.create({"gad": default_section()})) == GadConfig()
    assert load_gad_config(OmegaConf.create({"gad": {}})) == GadConfig()
    # A section without _target_ is as good.
    assert load_gad_config(OmegaConf.create({"gad": asdict(GadConfig())})) == GadConfig()


def test_values_arrive() -> None:
    config = load_gad_config(
        with_values(stage="gad", warmup_steps=3, warmup__actor_lr=1e-5, watchdog__enable=False, warmup_epochs=None)
    )
    assert (config.stage, config.warmup_steps, config.warmup_epochs) == ("gad", 3, None)
    assert config.warmup.actor_lr == 1e-5 and config.adversarial.actor_lr is None
    assert not config.watchdog.enable


def test_interpolations_are_resolved() -> None:
    config = with_values(teacher_key="${other}")
    config.other = "answers"
    assert load_gad_config(config).teacher_key == "answers"


def test_an_interpolation_to_nowhere_names_its_key() -> None:
    with pytest.raises(GadConfigError, match="gad.teacher_key"):
        load_gad_config(with_values(teacher_key="${nowhere}"))


def test_numbers_as_text_are_numbers() -> None:
    # YAML 1.1 reads "1e-6" as text, and so does a user's override.
    assert load_gad_config(with_values(warmup__actor_lr="1e-6")).warmup.actor_lr == 1e-6


@pytest.mark.parametrize("section", [{}, {"gad": None}])
def test_no_section(section: dict) -> None:
    with pytest.raises(GadConfigError, match="no key 'gad'.*gad_trainer"):
        load_gad_config(OmegaConf.create(section))


@pytest.mark.parametrize("section", [5, "auto", [1, 2]])
def test_a_section_that_is_none(section: Any) -> None:
    with pytest.raises(GadConfigError, match="gad"):
        load_gad_config(OmegaConf.create({"gad": section}))


@pytest.mark.parametrize("key", ["nonsense", "warmup__nonsense", "watchdog__nonsense", "adversarial__lr"])
def test_unknown_keys(key: str) -> None:
    with pytest.raises(GadConfigError, match=f"gad.{key.replace('__', '.')}"):
        load_gad_config(with_values(**{key: 1}))


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_is_refused_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(GadConfigError) as error:
        load_gad_config(with_values(**{old.replace(".", "__"): None}))
    assert str(error.value) == f"gad.{old} is now gad.{new}"
    # The table names keys that are gone, and keys that are there.
    section = default_section()
    for key, exists in ((old, False), (new, True)):
        parent, _, name = key.rpartition(".")
        assert (name in (OmegaConf.select(section, parent) if parent else section)) == exists, key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("discriminator_only_steps", "many"),
        ("discriminator_only_steps", 1.5),
        ("discriminator_only_steps", None),
        ("warmup_steps", "x"),
        ("warmup_epochs", "x"),
        ("warmup_epochs", [1]),
        ("reset_optimizer_at_switch", "perhaps"),
        ("stage", None),
        ("stage", ["auto"]),
        ("teacher_key", {"a": 1}),
        ("discriminator_num_layers", 2.5),
        ("discriminator_seed", "x"),
        ("warmup__actor_lr", "fast"),
        ("adversarial__discriminator_lr", [1e-6]),
        ("watchdog__enable", "perhaps"),
        ("watchdog__stage_timeout_s", None),
        ("warmup", None),
    ],
)
def test_wrong_types_name_their_key(key: str, value: Any) -> None:
    with pytest.raises(GadConfigError, match=f"gad.{key.replace('__', '.')}"):
        load_gad_config(with_values(**{key: value}))


@pytest.mark.parametrize(("key", "value"), [("watchdog", 5), ("warmup", "x"), ("adversarial", [1])])
def test_sections_that_are_none_are_named(key: str, value: Any) -> None:
    with pytest.raises(GadConfigError, match=f"gad.*{type(getattr(GadConfig(), key)).__name__}"):
        load_gad_config(with_values(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("stage", "nonsense", "auto, seqkd, warmup, gad, soda"),
        ("stage", "", "auto"),
        ("teacher_overlong", "keep", "cut, drop, error"),
        ("kl_reference", "warmed-up", "warmed_up, initial"),
        ("discriminator_head", "new", "auto, fresh, load"),
        ("discriminator_only_steps", -1, "negative"),
        ("discriminator_n_gpus_per_node", -1, "negative"),
        ("discriminator_nnodes", 0, "must be at least 1"),
        ("discriminator_num_layers", 0, "null or at least 1"),
        ("max_answer_length", 0, "null or at least 1"),
        ("thinking__mode", "on", "none, off, hidden"),
        ("thinking__warmup", "thoughts", "own_thoughts, empty_block"),
        ("thinking__open", "<t>", "name both marks"),
        ("thinking__close", "", "name both marks"),
        ("thinking__unclosed_penalty", -1.0, "negative"),
        ("thinking__budget", 0, "null or at least 1"),
        ("thinking__budget", 5, "gad.thinking.mode=hidden alone"),
        ("max_answer_length", 5, "gad.thinking.mode=hidden alone"),
        ("keep_checkpoints", 0, "null or at least 1"),
        ("keep_checkpoints", -2, "null or at least 1"),
        ("replay_poll_interval_s", 0.0, "positive"),
        ("replay_poll_interval_s", math.nan, "positive"),
        ("teacher_key", "", "column"),
        ("warmup_steps", -1, "negative"),
        ("warmup_epochs", -0.5, "negative"),
        ("warmup_epochs", math.nan, "negative"),
        ("warmup__actor_lr", -1e-6, "negative"),
        ("warmup__discriminator_lr", -1, "negative"),
        ("adversarial__actor_lr", math.nan, "negative"),
        ("adversarial__discriminator_lr", -1, "negative"),
        ("watchdog__check_interval_s", 0, "positive"),
        ("watchdog__check_interval_s", 1e9, "exceed"),
        ("watchdog__stage_timeout_s", 10.0, "exceed"),
    ],
)
def test_bad_values_name_their_key(key: str, value: Any, remedy: str) -> None:
    with pytest.raises(GadConfigError) as error:
        load_gad_config(with_values(**{key: value}))
    assert f"gad.{key.replace('__', '.')}" in str(error.value) and remedy in str(error.value)


@pytest.mark.parametrize("key", ["token_weight", "phrase_weight"])
def test_thoughts_that_nobody_reads_have_no_score(key: str) -> None:
    with pytest.raises(GadConfigError, match="gad.thinking.mode=hidden.*token_weight"):
        load_gad_config(with_values(thinking__mode="hidden", **{f"reward__{key}": 0.5}))


def test_an_answer_is_as_long_as_a_response_unless_it_is_said() -> None:
    assert GadConfig().longest_answer(64) == 64
    assert load_gad_config(with_values(thinking__mode="hidden", max_answer_length=9)).longest_answer(64) == 9


def test_auto_needs_a_length_of_the_warmup() -> None:
    with pytest.raises(GadConfigError, match="gad.warmup_steps or gad.warmup_epochs"):
        load_gad_config(with_values(warmup_epochs=None))
    assert load_gad_config(with_values(warmup_epochs=None, stage="gad")).warmup_epochs is None
    assert load_gad_config(with_values(warmup_epochs=None, warmup_steps=0)).resolve_warmup_steps(10) == 0


@given(steps=st.integers(0, 1000), epochs=st.floats(0, 5), per_epoch=st.integers(1, 1000))
def test_warmup_steps(steps: int, epochs: float, per_epoch: int) -> None:
    # Steps win over epochs, zero steps too.
    assert GadConfig(warmup_steps=steps, warmup_epochs=epochs).resolve_warmup_steps(per_epoch) == steps
    resolved = GadConfig(warmup_epochs=epochs).resolve_warmup_steps(per_epoch)
    assert isinstance(resolved, int) and abs(resolved - epochs * per_epoch) <= 0.5
    assert GadConfig(warmup_epochs=None).resolve_warmup_steps(per_epoch) == 0


@pytest.mark.parametrize(("stage", "alone"), [("auto", 0), ("warmup", 3)])
def test_only_a_run_that_goes_on_without_a_warmup_has_no_step_of_the_discriminator_alone(
    stage: str, alone: int
) -> None:
    """In a warmup that is a run of its own ``warmup_steps`` is not read."""
    config = GadConfig(stage=stage, warmup_steps=0, warmup_epochs=None, discriminator_only_steps=3)
    assert config.build_schedule(10, 5).discriminator_only_steps == alone
    assert GadConfig(stage=stage, warmup_steps=4, discriminator_only_steps=3).build_schedule(10, 5) is not None
