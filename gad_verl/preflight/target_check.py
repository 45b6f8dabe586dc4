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
"""The modules that adapters are asked for, held against the model: PEFT looks for them in a worker."""

import copy
import logging
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.discriminator.form import empty_discriminator, language_model_class, prepare_form
from gad_verl.errors import GadConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_ALL = "all-linear"
_KEYS = ("target_modules", "target_parameters", "exclude_modules")


def check_targets(key: str, family: Any, model: DictConfig, is_discriminator: bool) -> None:
    """Put the adapters that a section asks for on a model without weights.

    Args:
        key: Of the model's section.
        family: transformers' configuration of the model.
        model: The section. One without adapters, with those of a file, or with all linear layers is not looked at.
        is_discriminator: Which of the two it is.

    Raises:
        GadConfigError: If PEFT finds none of them, or can put no adapter on one.
    """
    asked: dict[str, Any] = OmegaConf.to_container(OmegaConf.masked_copy(model, _KEYS), resolve=True)  # type: ignore[assignment]
    targets = asked.get("target_modules")
    if model.get("lora_rank", 0) <= 0 or model.get("lora_adapter_path", None) or targets == _ALL:
        return
    from peft import LoraConfig, get_peft_model

    empty = _empty(family, is_discriminator)
    names = [name for name, _ in empty.named_modules()]
    shown = f"{key}.target_modules={targets}"
    try:
        get_peft_model(empty, LoraConfig(r=1, **asked))
    except ValueError as error:
        ends = ", ".join(_linear_ends(_empty(family, is_discriminator)))
        said = " ".join(str(error).split())[:300]
        raise GadConfigError(f"{shown}: no adapters can be put on {model.path}: {said} Its layers: {ends}") from None
    missing = [] if isinstance(targets, str) else [one for one in targets or () if not _is_there(one, names)]
    if missing:
        logger.warning("%s: %s has no %s, so that nothing is put there", shown, model.path, ", ".join(missing))


def _empty(family: Any, is_discriminator: bool) -> "PreTrainedModel":
    import torch

    prepared = copy.deepcopy(family)
    if is_discriminator:
        prepare_form(prepared)
        return empty_discriminator(prepared)
    with torch.device("meta"):
        return language_model_class(prepared)._from_config(prepared, attn_implementation="eager")


def _linear_ends(module: "PreTrainedModel") -> list[str]:
    """Last parts of the names of linear layers, as they may be asked for."""
    import torch

    found = (name.rpartition(".")[2] for name, part in module.named_modules() if isinstance(part, torch.nn.Linear))
    return sorted(set(found))


def _is_there(target: str, names: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in names)
