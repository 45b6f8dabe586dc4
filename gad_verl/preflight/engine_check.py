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
"""Number types and optimizers of FSDP's engines, which verl looks up in a worker when the model is being loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.errors import GadConfigError
from gad_verl.preflight.batch_check import has_reference
from gad_verl.preflight.megatron_check import FSDP

_ACTOR, _REFERENCE, _DISCRIMINATOR = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "discriminator"
# verl/utils/torch_dtypes.py, without the spellings of other frameworks.
_TYPES = "bf16, fp16, fp32"


def check_engines(config: DictConfig, gad_config: GadConfig) -> None:
    """Check what verl's FSDP engines look up by name, by verl's own means.

    Raises:
        GadConfigError: Names the key, and what verl says.
    """
    trained = [(_ACTOR, "fsdp_config")]
    if gad_config.has_discriminator:
        trained.append((_DISCRIMINATOR, "fsdp"))
    for key, engine in trained:
        section = OmegaConf.select(config, key)
        if section.strategy in FSDP:
            _check_types(f"{key}.{engine}", section[engine])
            _check_optimizer(f"{key}.optim", section.optim)
    reference = config.actor_rollout_ref.ref
    if gad_config.compares_with_reference and has_reference(config) and reference.strategy in FSDP:
        _check_types(f"{_REFERENCE}.fsdp_config", reference.fsdp_config)


def _types(engine: DictConfig) -> Iterator[tuple[str, Any]]:
    # Without one verl has a type of its own.
    if engine.get("model_dtype", None) is not None:
        yield "model_dtype", engine.model_dtype
    mixed = engine.get("mixed_precision", None) or {}
    for name in ("param_dtype", "reduce_dtype", "buffer_dtype"):
        if name in mixed:
            yield f"mixed_precision.{name}", mixed[name]


def _check_types(key: str, engine: DictConfig) -> None:
    from verl.utils.torch_dtypes import PrecisionType

    for name, value in _types(engine):
        try:
            PrecisionType.to_dtype(value)
        except RuntimeError:
            raise GadConfigError(f"{key}.{name}={value}: verl knows no such type: set one of {_TYPES}") from None


def _check_optimizer(key: str, optim: DictConfig) -> None:
    """Build it for a weight of one number."""
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config.optimizer import build_optimizer

    given = optim.get("override_optimizer_config", None)
    shown = f" with override_optimizer_config={dict(given)}" if isinstance(given, Mapping | DictConfig) else ""
    try:
        build_optimizer([torch.nn.Parameter(torch.zeros(1, 1))], omega_conf_to_dataclass(optim))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split()).partition(" Available optimizers")[0]
        raise GadConfigError(
            f"{key}: there is no optimizer {optim.optimizer} of {optim.optimizer_impl}{shown}: {said}"
        ) from None
