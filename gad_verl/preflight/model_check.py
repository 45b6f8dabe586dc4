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
"""Tokenizers, the loaded discriminator, and the checkpoint to resume: what files tell without loading weights."""

import copy
from pathlib import Path

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.form import CLASSIFIER_HEADS, LM_HEAD, discriminator_form
from gad_verl.discriminator.model import prepare_config
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.preflight.megatron_check import MEGATRON
from gad_verl.record.files import read_json
from gad_verl.trainer import checkpoints
from gad_verl.trainer.begun import resume_folder


def check_tokenizers(config: DictConfig) -> None:
    """Check that student and discriminator have a tokenizer with an EOS and a chat template.

    Raises:
        GadConfigError: Names the model.
    """
    models = {
        "actor_rollout_ref.model": config.actor_rollout_ref.model,
        "discriminator.model": config.discriminator.model,
    }
    for key, model in models.items():
        tokenizer = load_tokenizer(key, model)
        try:
            SequenceBuilder(tokenizer, config.data.max_prompt_length, config.data.max_response_length)
        except GadConfigError as error:
            raise GadConfigError(f"{key}.path={model.get('tokenizer_path', None) or model.path}: {error}") from None


def missing_weights(folder: Path) -> str | None:
    """What a model folder lacks to be loaded, in words; None where its configuration and its weights are there."""
    if not (folder / "config.json").is_file():
        return f"{folder} has no config.json: give the folder of a Hugging Face model"
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            files = (read_json(index) or {}).get("weight_map")
            if not isinstance(files, dict):
                return f"{index} is damaged: download the model again"
            names = {str(name) for name in files.values()}
            missing = sorted(name for name in names if not (folder / name).is_file())
            return f"{folder} lacks {', '.join(missing)}: download the model again" if missing else None
    if not any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin")):
        return f"{folder} has no weights (*.safetensors): download the model again"
    return None


def check_weights(config: DictConfig, has_discriminator: bool) -> None:
    """Check that the models that are folders here have their weights, which verl would miss on the first worker.

    Raises:
        GadConfigError: Names the model and what it lacks.
    """
    models = {"actor_rollout_ref.model.path": config.actor_rollout_ref.model.path}
    if has_discriminator:
        models["discriminator.model.path"] = config.discriminator.model.path
    for key, path in models.items():
        folder = Path(str(path)).expanduser()
        missing = missing_weights(folder) if folder.is_dir() else None
        if missing is not None:
            raise GadConfigError(f"{key}: {missing}")


def _safetensors_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of all tensors of a model folder, read from the headers alone."""
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    return shapes


def _is_vocabulary(name: str, shape: list[int]) -> bool:
    """Whether a head is that of a language model."""
    return name == f"{LM_HEAD}.weight" and shape[0] != 1


def check_discriminator(config: DictConfig, gad_config: GadConfig) -> None:
    """Check a discriminator that is loaded, as far as files tell without loading it.

    Raises:
        GadCheckpointError: If its head is missing or has another shape.
    """
    from transformers import AutoConfig

    folder = resume_folder(config.trainer)
    if not gad_config.has_discriminator:
        return
    path = Path(config.discriminator.model.path).expanduser()
    if path.is_dir():
        hf_config = AutoConfig.from_pretrained(path, trust_remote_code=config.discriminator.model.trust_remote_code)
        text_config = hf_config.get_text_config()
        layers = gad_config.discriminator_num_layers
        if layers is not None and layers > text_config.num_hidden_layers:
            raise GadConfigError(
                f"gad.discriminator_num_layers={layers}, but {path} has {text_config.num_hidden_layers} layers"
            )
        # As the worker will: it refuses a family whose layers cannot be cut.
        prepare_config(copy.deepcopy(hf_config), layers)
        model = config.discriminator.model
        same_model = model.path == config.actor_rollout_ref.model.path
        head = gad_config.discriminator_head
        head_is_in_model = model.get("lora_adapter_path", None) is None
        if head_is_in_model and (head == "load" or (head == "auto" and not same_model)):
            shapes = _safetensors_shapes(path)
            heads = [f"{name}.weight" for name in CLASSIFIER_HEADS]
            of_lm = f"{LM_HEAD}.weight"
            megatron = config.discriminator.strategy == MEGATRON
            if not megatron and not discriminator_form(hf_config).is_classifier:
                heads = [of_lm]
            found = [
                (name, shape) for name, shape in shapes.items() if name in heads and not _is_vocabulary(name, shape)
            ]
            if megatron and shapes.get(of_lm, [0])[0] == 1:
                found.append((of_lm, shapes[of_lm]))
            if shapes and not found:
                raise GadCheckpointError(
                    f"discriminator.model.path={path} has no scalar head ({heads[0]}). Set "
                    "gad.discriminator_head=fresh to begin with a new one"
                )
            for name, shape in found:
                if shape != [1, text_config.hidden_size]:
                    raise GadCheckpointError(
                        f"discriminator.model.path={path}: {name} has shape {shape}, a discriminator of this size "
                        f"needs [1, {text_config.hidden_size}]"
                    )
        wanted = checkpoints.discriminator_shape(hf_config, layers, model)
        state = None if folder is None else checkpoints.read_state(folder)
        if state is not None and state.has_discriminator and state.discriminator_shape != wanted:
            raise GadCheckpointError(
                f"the discriminator in {folder} has the shape {state.discriminator_shape}, the configuration asks for "
                f"{wanted}. Set discriminator.model and gad.discriminator_num_layers as they were, or "
                "trainer.resume_mode=disable"
            )
