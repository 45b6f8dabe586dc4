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
"""What verl finds out about a configuration when it builds its parts: amid its set-up, with Ray and engines running."""

import copy
import importlib.util
import re
import traceback
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.errors import GadConfigError
from gad_verl.preflight.batch_check import has_reference
from gad_verl.preflight.engine_check import check_engines

_ACTOR, _ROLLOUT, _DISCRIMINATOR = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "discriminator"
# Packages of verl's rollouts.
_PACKAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
_FULL_KEY = re.compile(r"full_key: (\S+)")


def check_parts(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the rollout's name, build verl's own settings of rollout, student and discriminator, and compare them.

    Raises:
        GadConfigError: Names the key, and what verl says.
    """
    _check_rollout(config)
    for key, section in _sections(config, gad_config):
        _build(key, section)
    check_engines(config, gad_config)
    _check_micro_batches(config, gad_config)


def _check_rollout(config: DictConfig) -> None:
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    name, mode = str(config.actor_rollout_ref.rollout.name), config.actor_rollout_ref.rollout.get("mode", "async")
    known = sorted(one for one, _ in _ROLLOUT_REGISTRY if one in RolloutReplicaRegistry._registry)
    require(name in known, f"{_ROLLOUT}.name={name}: verl has {', '.join(known)}")
    require(
        (name, mode) in _ROLLOUT_REGISTRY,
        f"{_ROLLOUT}.mode={mode}: verl's rollouts answer in the mode async alone; set it, or leave it out",
    )
    package = _PACKAGES.get(name, None)
    if package is None or importlib.util.find_spec(package) is not None:
        return
    if name == "vllm":
        raise GadConfigError(
            f"{_ROLLOUT}.name=vllm, but vLLM is not installed: install it (on a CPU: make install), or set "
            f"{_ROLLOUT}.name=hf for small models"
        )
    raise GadConfigError(
        f"{_ROLLOUT}.name={name}, but its package {package} is not installed: install it, or set {_ROLLOUT}.name=vllm"
    )


def _sections(config: DictConfig, gad_config: GadConfig) -> Iterator[tuple[str, DictConfig]]:
    for key in (_ROLLOUT, _ACTOR, _DISCRIMINATOR):
        if key != _DISCRIMINATOR or gad_config.has_discriminator:
            yield key, OmegaConf.select(config, key)


def _build(key: str, section: DictConfig) -> None:
    from hydra.errors import InstantiationException
    from verl.utils.config import omega_conf_to_dataclass

    # Its model is read from its folder then, or from a hub, which others look at.
    without_model = copy.deepcopy(section)
    OmegaConf.set_struct(without_model, False)
    without_model.pop("model", None)
    try:
        omega_conf_to_dataclass(without_model)
    except InstantiationException as error:
        raise GadConfigError(instantiation_error(error, key)) from None
    except (AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise GadConfigError(f"{key}: verl refuses its settings: {_words(error)}") from None


def instantiation_error(error: Exception, key: str = "") -> str:
    """Of Hydra's exception one line: the section, and what verl has said.

    Args:
        error: Hydra's.
        key: The section where Hydra names none.
    """
    found = _FULL_KEY.search(str(error))
    return f"{found[1] if found else key}: verl refuses its settings: {_words(error.__cause__ or error)}"


def _words(error: BaseException) -> str:
    """What an exception says; of an assertion without words its line."""
    said = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    if not said and frames:
        said = str(frames[-1].line)
    return said or type(error).__name__


def _check_micro_batches(config: DictConfig, gad_config: GadConfig) -> None:
    """What the student's worker asserts before it loads the model, and what its reference reads."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    require(
        actor.use_dynamic_bsz == rollout.log_prob_use_dynamic_bsz,
        f"{_ACTOR}.use_dynamic_bsz={actor.use_dynamic_bsz}, but {_ROLLOUT}.log_prob_use_dynamic_bsz="
        f"{rollout.log_prob_use_dynamic_bsz}: one engine does both; set them alike, or leave the second out",
    )
    kind = "max_token_len_per_gpu" if actor.use_dynamic_bsz else "micro_batch_size_per_gpu"
    for key, value in (
        (f"{_ACTOR}.ppo_{kind}", actor.get(f"ppo_{kind}", None)),
        (f"{_ROLLOUT}.log_prob_{kind}", rollout.get(f"log_prob_{kind}", None)),
    ):
        require(
            value is not None,
            f"{_ACTOR}.use_dynamic_bsz={actor.use_dynamic_bsz} needs {key}: set it",
        )
    reference = config.actor_rollout_ref.ref
    compares = gad_config.compares_with_reference and has_reference(config)
    require(
        not compares
        or bool(reference.log_prob_use_dynamic_bsz)
        or reference.get("log_prob_micro_batch_size_per_gpu", None) is not None,
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=False needs "
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu: set it",
    )
