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
"""Numbers of verl's sections that are none, or out of range: verl finds out on the first worker, or never."""

import math
import os
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.config.checks import NOT_NEGATIVE, POSITIVE, Range
from gad_verl.errors import GadConfigError
from gad_verl.preflight.joined_cluster import cluster_address

_ROLLOUT = "actor_rollout_ref.rollout"
_VALIDATION = f"{_ROLLOUT}.val_kwargs"
_ANY = Range("a number", lambda value: value == value)
_FINITE = Range("finite and not negative", lambda value: 0 <= value < math.inf)
_SHARE = Range("above 0 and at most 1", lambda value: 0 < value <= 1)
_MODELS: Mapping[str, Range] = {
    "actor_rollout_ref.actor.optim.lr": NOT_NEGATIVE,
    "actor_rollout_ref.actor.optim.clip_grad": POSITIVE,
    "actor_rollout_ref.actor.kl_loss_coef": _ANY,
    "actor_rollout_ref.actor.entropy_coeff": _ANY,
    "discriminator.optim.lr": NOT_NEGATIVE,
    "discriminator.optim.clip_grad": POSITIVE,
}
# Of the validation too, which a run of texts alone has.
_ROLLOUTS: Mapping[str, Range] = {
    f"{_VALIDATION}.temperature": _FINITE,
    f"{_VALIDATION}.top_p": _SHARE,
    f"{_ROLLOUT}.gpu_memory_utilization": _SHARE,
}
_SAMPLING: Mapping[str, Range] = {f"{_ROLLOUT}.temperature": POSITIVE, f"{_ROLLOUT}.top_p": _SHARE}
_TOP_K = (f"{_ROLLOUT}.top_k", f"{_VALIDATION}.top_k")
_WHOLE = ("data.seed", "trainer.save_freq", "trainer.test_freq", "trainer.total_epochs", *_TOP_K)
# verl compares them with 0.
_NEEDED = ("trainer.save_freq", "trainer.test_freq")
# vLLM's own names (vllm/config/model.py) without those of other libraries, and what the rollout hf takes by verl's.
_TYPES = {
    "vllm": ("auto", "bfloat16", "float16", "float32", "float", "half"),
    "hf": ("bfloat16", "bf16", "float16", "fp16", "float32", "fp32"),
}
_REMEDIES: Mapping[str, str] = {
    f"{_ROLLOUT}.temperature": (
        ": at 0 all answers to a prompt are the same, and it divides the log-probabilities that the student learns by "
        "(gad_trainer has 0.8; greedy answers of the validation are val_kwargs)"
    )
}


def check_numbers(config: DictConfig, gad_config: GadConfig) -> None:
    """Check rates, frequencies and the sampling of the rollouts.

    Raises:
        GadConfigError: Names the key, and what it may be.
    """
    samples = gad_config.stage != "seqkd"
    for key, allowed in {**_MODELS, **_ROLLOUTS, **(_SAMPLING if samples else {})}.items():
        value = OmegaConf.select(config, key, default=None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and allowed.holds(value)):
            wanted = (
                allowed.wanted if is_number else f"a number ({allowed.wanted})" if allowed is not _ANY else "a number"
            )
            raise GadConfigError(f"{key}={value} must be {wanted}{_REMEDIES.get(key, '')}")
    for key in _WHOLE:
        value = OmegaConf.select(config, key, default=None)
        if (value is not None or key in _NEEDED) and (isinstance(value, bool) or not isinstance(value, int)):
            raise GadConfigError(f"{key}={value}: a whole number is needed")
    for key in _TOP_K:
        value = OmegaConf.select(config, key, default=None)
        if value is not None and value < -1:
            raise GadConfigError(f"{key}={value} must be at least 1, or -1 to leave no token out")
    rollout = config.actor_rollout_ref.rollout
    types = _TYPES.get(str(rollout.name))
    if types is not None and str(rollout.dtype) not in types:
        raise GadConfigError(f"{_ROLLOUT}.dtype={rollout.dtype}: the rollout {rollout.name} has {', '.join(types)}")


def check_folder(config: DictConfig) -> None:
    """Check that the folder of the run is none of somebody's files, and can be written to.

    Raises:
        GadConfigError: It, or a folder above it, is a file or somebody else's.
    """
    trainer = config.trainer
    place = os.path.abspath(trainer.default_local_dir)
    while not os.path.exists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise GadConfigError(
            f"trainer.default_local_dir={trainer.default_local_dir}: {place} is a file: name a folder, "
            "which the run makes"
        )
    # A launch that joins a cluster may start the run on another machine.
    if cluster_address(config) is None and not os.access(place, os.W_OK | os.X_OK):
        raise GadConfigError(
            f"trainer.default_local_dir={trainer.default_local_dir}: nothing can be written to {place}: name a folder "
            "of yours"
        )
