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
"""The model of a part of a checkpoint, built of its configuration and its whole state dict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gad_verl.discriminator.conversion import prepare_fsdp_config
from gad_verl.discriminator.form import discriminator_form, empty_discriminator, language_model_class
from gad_verl.errors import USER_ERRORS, GadCheckpointError
from gad_verl.tools.export.checkpoint import brief, load_model_config


def empty_model(part: str, config_folder: Path, trust_remote_code: bool) -> Any:
    """The architecture without weights.

    Args:
        part: "student" or "discriminator".
        config_folder: With ``config.json``.
        trust_remote_code: Run code that the model brings.

    Raises:
        GadCheckpointError: If the configuration cannot be read, or describes no model.
        GadConfigError: If transformers has no class of the family.
    """
    config = load_model_config(config_folder, trust_remote_code)
    try:
        if part == "discriminator":
            prepare_fsdp_config(config)
            return empty_discriminator(config)
        with torch.device("meta"):
            return language_model_class(config)._from_config(config, attn_implementation="eager")
    except USER_ERRORS:
        raise
    # Whatever the constructor of a class says to a value that cannot be.
    except Exception as error:
        raise GadCheckpointError(
            f"{config_folder / 'config.json'} describes no model that can be built: {brief(error)}"
        ) from error


def load_base(part: str, trust_remote_code: bool, path: str, dtype: torch.dtype) -> Any:
    """The base of an adapter that was saved alone."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    if part == "student":
        return language_model_class(config).from_pretrained(path, dtype=dtype)
    prepare_fsdp_config(config)
    # The head over the vocabulary of a language model is not read: the adapter brings the scalar one.
    form = discriminator_form(config).loadable_class
    return form.from_pretrained(path, config=config, dtype=dtype, ignore_mismatched_sizes=True)


def build_model(part: str, config_folder: Path, state: Mapping[str, Tensor], trust_remote_code: bool) -> Any:
    """The model with its weights, which are not copied.

    Raises:
        GadCheckpointError: If configuration and weights do not fit together.
    """
    model = empty_model(part, config_folder, trust_remote_code)
    tied = set(model._tied_weights_keys or ()) if getattr(model.config, "tie_word_embeddings", False) else set()
    misfit = f"{config_folder.parent} does not fit its own configuration:"
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        raise GadCheckpointError(f"{misfit} {brief(error)}") from None
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise GadCheckpointError(f"{misfit} missing {missing[:3]}, unexpected {unexpected[:3]}")
    model.tie_weights()
    return model
