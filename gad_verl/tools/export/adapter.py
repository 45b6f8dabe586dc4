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
"""Models of a checkpoint that were trained with LoRA: merged into the base, or the adapter alone."""

import functools
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.checkpoint import brief

ADAPTER_CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."


def has_adapter(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict holds weights of LoRA."""
    return any(".lora_" in name for name in state)


def _widest(state: Mapping[str, Tensor]) -> torch.dtype:
    return functools.reduce(
        torch.promote_types, {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    )


def build_adapted(
    folder: Path, state: Mapping[str, Tensor], build_base: Callable[[], Any], load_base: Callable[..., Any]
) -> Any:
    """The model with its adapter, in the widest precision of its weights: a merge in a narrower one loses steps.

    Args:
        folder: Of the part of a checkpoint, with ``adapter_config.json``.
        state: Its whole state dict; without the base where verl saved the adapter alone (``save_lora_only``).
        build_base: Makes the base without weights.
        load_base: Loads the base, of a path and a dtype, where ``state`` lacks it.

    Returns:
        PEFT's model.

    Raises:
        GadCheckpointError: If files are missing or do not fit together.
    """
    from peft import PeftConfig, get_peft_model

    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        raise GadCheckpointError(f"{folder} holds weights of LoRA but no {ADAPTER_CONFIG_FILE}")
    try:
        config = PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise GadCheckpointError(f"{folder / ADAPTER_CONFIG_FILE} cannot be read: {brief(error)}") from None
    dtype = _widest(state)
    has_base = any(".lora_" not in name for name in state)
    base = build_base() if has_base else _load_base(folder, config, load_base, dtype)
    tied = set(base.all_tied_weights_keys)
    # The base that was trained on, not the folder its configuration was read from.
    base.name_or_path = config.base_model_name_or_path
    misfit = f"{folder} does not fit its own {ADAPTER_CONFIG_FILE}:"
    try:
        with torch.device("meta"):
            model = get_peft_model(base, config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GadCheckpointError(f"{misfit} {brief(error)}") from None
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise GadCheckpointError(f"{misfit} {brief(error)}") from None
    missing = [name for name in missing if not _is_tied(name, tied) and (has_base or ".lora_" in name)]
    if missing or unexpected:
        raise GadCheckpointError(f"{misfit} missing {missing[:3]}, unexpected {unexpected[:3]}")
    if _adapts_tied(base):
        _fill_tied(base)
    else:
        base.tie_weights()
    return model


def _is_tied(name: str, tied: Set[str]) -> bool:
    """Whether a weight under PEFT's name is one that the base takes from another."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".original_module.", ".") in tied


def _tied_pairs(base: Any) -> list[tuple[tuple[Any, str], tuple[Any, str]]]:
    """The modules of each tied pair, such as head and embedding, with the names of their weights."""
    splits = ((target.rpartition("."), source.rpartition(".")) for target, source in base.all_tied_weights_keys.items())
    return [
        ((base.get_submodule(target), target_name), (base.get_submodule(source), source_name))
        for (target, _, target_name), (source, _, source_name) in splits
    ]


def _adapts_tied(base: Any) -> bool:
    """Whether an adapter, or a copy that was trained whole, sits on one end of a tied pair: it is no pair any more."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    adapted = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return any(isinstance(module, adapted) for pair in _tied_pairs(base) for module, _ in pair)


def _under_adapter(module: Any) -> Any:
    return getattr(module, "base_layer", getattr(module, "original_module", module))


def _fill_tied(base: Any) -> None:
    """Under the adapters both ends are the base's one weight, of which a checkpoint may hold either name or both."""
    for pair in _tied_pairs(base):
        (target, target_name), (source, source_name) = ((_under_adapter(module), name) for module, name in pair)
        if getattr(target, target_name).is_meta:
            setattr(target, target_name, getattr(source, source_name))
        elif getattr(source, source_name).is_meta:
            setattr(source, source_name, getattr(target, target_name))


def merge(model: Any, folder: Path) -> Any:
    """The base with its adapter in it: the function that was trained.

    An adapter on one end of a tied pair must not reach the other: the pair is parted, in the configuration too.

    Args:
        model: Of :func:`build_adapted`; it is used up.
        folder: Of the part of a checkpoint.

    Raises:
        GadCheckpointError: If the family ties the pair whatever its configuration says.
    """
    base = model.get_base_model()
    if _adapts_tied(base):
        for (target, name), _ in _tied_pairs(base):
            plain = _under_adapter(target)
            setattr(plain, name, torch.nn.Parameter(getattr(plain, name).detach().clone(), requires_grad=False))
        for module in base.modules():
            if getattr(getattr(module, "config", None), "tie_word_embeddings", False):
                module.config.tie_word_embeddings = False
        if base.get_expanded_tied_weights_keys(all_submodels=True):
            raise GadCheckpointError(
                f"{folder}: its adapter changes one of two weights that {type(base).__name__} always ties, and merged "
                "it would change both: export the adapter alone (--adapter)"
            )
    return model.merge_and_unload(safe_merge=True)


def _load_base(folder: Path, config: Any, load_base: Callable[..., Any], dtype: torch.dtype) -> Any:
    path = config.base_model_name_or_path
    try:
        return load_base(path, dtype)
    except (OSError, ValueError) as error:
        raise GadCheckpointError(
            f"{folder} holds the adapter alone (save_lora_only), and its base {path} does not load: {brief(error)}"
        ) from None
