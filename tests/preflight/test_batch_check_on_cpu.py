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
"""Batches and rows that verl's workers would refuse in the middle of a run are refused before it, and no others."""

import copy
import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl.utils import tensordict_utils as tu
from verl.utils.seqlen_balancing import rearrange_micro_batches
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.engine_workers import TrainingWorker

from gad_verl.core.schedule import STAGES
from gad_verl.errors import GadConfigError
from gad_verl.preflight import check_config
from gad_verl.preflight.batch_check import Ranks, check_batches, check_longest_row, ranks_of

PART = "actor_rollout_ref"
ACTOR, ROLLOUT, REF = (f"{PART}.{name}" for name in ("actor", "rollout", "ref"))
MINI, SIZE, TOKENS = "ppo_mini_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu"
drawn = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@pytest.fixture
def small(tiny_config: DictConfig) -> DictConfig:
    """What the checks read: copies of all of it take their time."""
    part, read = tiny_config[PART], ("fsdp", "lora", "batch", "token", "dynamic", "loss", "ulysses")

    def of(section: DictConfig) -> dict[str, Any]:
        found = OmegaConf.to_container(section, resolve=True)
        return {key: value for key, value in found.items() if any(word in key for word in read)}

    found = {name: of(part[name]) for name in ("actor", "ref", "model")}
    found["rollout"] = of(part.rollout) | {"n": part.rollout.n}
    critic, algorithm = of(tiny_config.critic) | {"enable": None}, OmegaConf.to_container(tiny_config.algorithm)
    sizes = {key: tiny_config.data[key] for key in ("train_batch_size", "max_prompt_length", "max_response_length")}
    trainer = {"nnodes": 1, "n_gpus_per_node": 1}
    return OmegaConf.create(
        {
            PART: found,
            "critic": critic,
            "algorithm": algorithm,
            "data": sizes,
            "trainer": trainer,
            "gad": {"stage": "auto"},
        }
    )


def changed(config: DictConfig, values: dict[str, Any]) -> DictConfig:
    config = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def refusal(check: Any, config: DictConfig) -> str:
    """What a check says; empty if nothing."""
    try:
        check(config, SimpleNamespace(stage=config.gad.stage))
    except GadConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def rows_of(count: int, length: int = 3) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.arange(length)] * count, layout=torch.jagged)


def verl_takes(rows: int, ranks: int) -> bool:
    """Whether verl's worker begins an update with mini-batches of so many rows, of all ranks."""

    class Reached(Exception):
        pass

    class Engine:
        def get_data_parallel_size(self) -> int:
            return ranks

        def get_data_parallel_rank(self) -> int:
            raise Reached

    data = tu.get_tensordict({"input_ids": rows_of(1)}, {"mini_batch_size": rows, "epochs": 1})
    try:
        inspect.unwrap(TrainingWorker.train_mini_batch)(SimpleNamespace(engine=Engine()), data)
    except AssertionError:
        return False
    except Reached:
        return True
    raise AssertionError("verl's worker has neither refused the rows nor asked for its rank")


@drawn
@example(prompts=64, n=8, gpus=6, shared=1)
@example(prompts=256, n=8, gpus=24, shared=1)
@given(
    prompts=st.integers(1, 300), n=st.integers(2, 9), gpus=st.integers(1, 48), shared=st.sampled_from([1, 1, 2, 3, 4])
)
def test_a_batch_is_refused_where_verl_refuses_it_and_what_is_named_does(
    small: DictConfig, prompts: int, n: int, gpus: int, shared: int
) -> None:
    config = changed(
        small,
        {
            "trainer.n_gpus_per_node": gpus * shared,
            f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": shared,
            f"{ROLLOUT}.n": n,
            "data.train_batch_size": prompts,
            f"{ACTOR}.{MINI}": prompts,
        },
    )
    said = refusal(check_batches, config)
    assert bool(said) == (not verl_takes(prompts * n, gpus))
    if said:
        assert f"{ACTOR}.{MINI}={prompts} " in said and f"{gpus} data-parallel" in said
        named = [int(number) for number in re.findall(r"\d+", said[said.index(" to ") : said.index(", and data")])]
        for fitting in named:
            assert not refusal(check_batches, changed(config, {f"{ACTOR}.{MINI}": fitting}))
        assert all(not verl_takes(other * n, gpus) for other in range(min(named) + 1, max(named)))


def test_a_batch_without_scores_is_filled_up(small: DictConfig, tiny_config: DictConfig) -> None:
    odd = {"trainer.n_gpus_per_node": 7, "data.train_batch_size": 8, f"{ACTOR}.{MINI}": 8}
    refused = {stage for stage in STAGES if refusal(check_batches, changed(small, {**odd, "gad.stage": stage}))}
    assert refused == {"auto", "gad"}
    with pytest.raises(GadConfigError, match="7 data-parallel ranks"):
        check_config(changed(tiny_config, odd))


def test_the_critic_of_gae_has_batches_of_its_own(small: DictConfig) -> None:
    values = {"trainer.n_gpus_per_node": 3, f"{ROLLOUT}.n": 4, f"{ACTOR}.{MINI}": 6, f"critic.{MINI}": 8}
    assert not refusal(check_batches, changed(small, values))
    values["algorithm.adv_estimator"] = "gae"
    assert refusal(check_batches, changed(small, values)).startswith(f"critic.{MINI}=8 ")
    assert not refusal(check_batches, changed(small, {**values, f"critic.{MINI}": 3}))


@pytest.mark.parametrize(
    ("engine", "found"), [("megatron", Ranks(2, 2)), ("veomni", Ranks(4, 4)), ("fsdp", Ranks(8, 2))]
)
def test_ranks_of_each_engine(engine: str, found: Ranks) -> None:
    sections = {
        "megatron": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "context_parallel_size": 2},
        "veomni": {"ulysses_parallel_size": 4},
        "fsdp": {"ulysses_sequence_parallel_size": 2},
    }
    config = OmegaConf.create(
        {"trainer": {"nnodes": 2, "n_gpus_per_node": 8}, "critic": {"strategy": engine, engine: sections[engine]}}
    )
    assert ranks_of(config, "critic") == found


@drawn
@given(
    rows=st.integers(1, 6), part=st.sampled_from([ACTOR, ROLLOUT, REF]), size=st.integers(1, 14), gpus=st.integers(1, 3)
)
def test_micro_batches_of_equal_size_divide_the_rows_of_a_rank(
    small: DictConfig, rows: int, part: str, size: int, gpus: int
) -> None:
    """A step of two mini-batches: the student's update has the rows of one, the log-probabilities those of both."""
    key = f"{part}.{'ppo' if part == ACTOR else 'log_prob'}_{SIZE}"
    values = {
        "trainer.n_gpus_per_node": gpus,
        f"{ROLLOUT}.n": 2,
        "data.train_batch_size": 2 * rows * gpus,
        f"{ACTOR}.{MINI}": rows * gpus,
        f"{ACTOR}.use_dynamic_bsz": False,
        f"{ROLLOUT}.log_prob_use_dynamic_bsz": False,
        f"{REF}.log_prob_use_dynamic_bsz": False,
        f"{ACTOR}.use_kl_loss": True,
        **{f"{ACTOR}.ppo_{SIZE}": 1, f"{ROLLOUT}.log_prob_{SIZE}": 1, f"{REF}.log_prob_{SIZE}": 1},
        key: size,
    }
    config = changed(small, values)
    own = 2 * rows if part == ACTOR else 4 * rows
    data = tu.get_tensordict({"input_ids": rows_of(own)}, {"use_dynamic_bsz": False, SIZE: size})
    said = refusal(check_batches, config)
    try:
        prepare_micro_batches(data)
        assert not said
    except AssertionError:
        assert said.startswith(f"{key}={size} ")
        fitting = int(re.search(r"set it to (\d+)", said)[1])
        assert not refusal(check_batches, changed(config, {key: fitting}))
    # By tokens, and where nobody reads them, sizes do not matter.
    assert not refusal(check_batches, changed(config, {f"{PART}.{one}": True for one in DYNAMIC}))
    if part == REF:
        assert not refusal(check_batches, changed(config, {f"{ACTOR}.use_kl_loss": False}))
    if part == ROLLOUT:
        assert not refusal(check_batches, changed(config, {"algorithm.rollout_correction.bypass_mode": True}))


DYNAMIC = ("actor.use_dynamic_bsz", "rollout.log_prob_use_dynamic_bsz", "ref.log_prob_use_dynamic_bsz")
LIMITS = {
    f"{ACTOR}.ppo_{TOKENS}": {},
    f"{ROLLOUT}.log_prob_{TOKENS}": {},
    f"{REF}.log_prob_{TOKENS}": {f"{ACTOR}.use_kl_loss": True},
    f"critic.ppo_infer_{TOKENS}": {"algorithm.adv_estimator": "gae"},
}


@pytest.mark.parametrize("key", LIMITS)
@pytest.mark.parametrize("shared", [1, 2])
def test_the_longest_row_fits_into_a_micro_batch(small: DictConfig, key: str, shared: int) -> None:
    values = {f"{PART}.{one}": True for one in DYNAMIC} | LIMITS[key]
    values |= {"trainer.n_gpus_per_node": 2, "data.max_prompt_length": 30, "data.max_response_length": 11}
    engines = (f"{ACTOR}.fsdp_config", f"{REF}.fsdp_config", "critic.fsdp")
    values |= {f"{engine}.ulysses_sequence_parallel_size": shared for engine in engines}
    row = {"input_ids": rows_of(1, 41)}
    for limit in range(18, 45):
        said = refusal(check_longest_row, changed(small, {**values, key: limit}))
        try:
            rearrange_micro_batches(tu.get_tensordict(row, {}), max_token_len=limit * shared)
            assert not said
        except AssertionError:
            assert "30 + 11 = 41" in said and f"{key}={limit}" in said
            fitting = int(re.search(r"at least (\d+)", said)[1])
            assert not refusal(check_longest_row, changed(small, {**values, key: fitting}))
            assert refusal(check_longest_row, changed(small, {**values, key: fitting - 1}))


def test_a_limit_that_nobody_reads_is_no_matter(small: DictConfig, tiny_config: DictConfig) -> None:
    low = {f"{REF}.log_prob_{TOKENS}": 2, f"critic.ppo_infer_{TOKENS}": 2}
    assert not refusal(check_longest_row, changed(small, {**low, f"{ACTOR}.use_kl_loss": False}))
    assert refusal(check_longest_row, changed(small, {**low, f"{ACTOR}.use_kl_loss": True}))
    kept = {f"{ACTOR}.use_kl_loss": True, "gad.stage": "seqkd", "algorithm.adv_estimator": "gae"}
    assert not refusal(check_longest_row, changed(small, {**low, **kept}))
    low = {f"{ACTOR}.ppo_{TOKENS}": 2, f"{ROLLOUT}.log_prob_{TOKENS}": 2}
    assert refusal(check_longest_row, changed(small, low))
    assert not refusal(check_longest_row, changed(small, {**low, f"{ACTOR}.use_dynamic_bsz": False}))
    with pytest.raises(GadConfigError, match=TOKENS):
        check_config(changed(tiny_config, low))
