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
"""The two forms of a discriminator on disk, and the way from each to the other.

FSDP trains ``...ForTokenClassification`` with the head ``score.weight`` [1, h] and often ``score.bias`` [1]; where the
family has no such class, what Megatron trains: ``...ForCausalLM`` whose ``lm_head.weight`` is the head, [1, h], and has
no bias. The rest of the weights has the same names in both. The bias is kept in the configuration
(``gad_score_bias``): Megatron's engine adds it to its scores, so a converted discriminator gives the scores that it
gave before. It is a constant of all scores, and the pair loss has no gradient for it.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gad_verl.discriminator.form import CLASSIFIER_HEADS, HEAD_NAMES, LM_HEAD, empty_discriminator, prepare_form
from gad_verl.discriminator.model import head_name
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import follow_umask, replaced

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
CAUSAL_HEAD = f"{LM_HEAD}.weight"
BIAS_KEY = "gad_score_bias"
HEAD_FILE = "discriminator_head.safetensors"
# transformers takes a file of this name for the whole model and does not look at the index.
WHOLE_FILE = "model.safetensors"
BODY_FILE = "discriminator_body.safetensors"


@dataclass(frozen=True)
class ScalarHead:
    """The head of a discriminator.

    Args:
        weight: (1, h).
        bias: What is added to every score.
    """

    weight: Tensor
    bias: float = 0.0


def weight_files(folder: str | Path) -> dict[str, str]:
    """File of each weight of a folder in the format of safetensors.

    Raises:
        GadCheckpointError: If there is no such file.
    """
    from safetensors import safe_open

    folder = Path(folder)
    index = folder / INDEX
    if index.is_file():
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened:
            found.update(dict.fromkeys(opened.keys(), file.name))
    if not found:
        raise GadCheckpointError(
            f"{folder} has no weights in the format of safetensors, which Megatron-Bridge reads: load it with "
            "transformers and save it again by save_pretrained"
        )
    return found


def _read(folder: Path, files: dict[str, str], name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(str(folder / files[name]), framework="pt") as opened:
        return opened.get_tensor(name)


def read_head(folder: str | Path) -> ScalarHead | None:
    """The scalar head of a discriminator in either form; None where the folder has none (a language model).

    Raises:
        GadCheckpointError: If a head has more than one output, or the folder has no weights that can be read.
    """
    folder = Path(folder)
    files = weight_files(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in CLASSIFIER_HEADS:
        if f"{name}.weight" in files:
            weight = _read(folder, files, f"{name}.weight")
            if weight.shape[0] != 1:
                raise GadCheckpointError(f"{folder} is no discriminator: its head has {weight.shape[0]} outputs, not 1")
            bias = _read(folder, files, f"{name}.bias").item() if f"{name}.bias" in files else 0.0
            return ScalarHead(weight, bias)
    if CAUSAL_HEAD in files:
        weight = _read(folder, files, CAUSAL_HEAD)
        if weight.shape[0] == 1:
            return ScalarHead(weight, float(config.get(BIAS_KEY, 0.0)))
    return None


def _causal_class_name(config: Any) -> str:
    """Name of the family's causal language model in transformers.

    Raises:
        GadCheckpointError: If the family has none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise GadCheckpointError(f"transformers has no causal language model of the family {config.model_type!r}")
    return name


def prepare_causal_config(config: Any, bias: float) -> None:
    """Describe a discriminator in Megatron's form: one output, nothing tied to the embedding. Changes ``config``."""
    config.architectures = [_causal_class_name(config)]
    config.tie_word_embeddings = False
    setattr(config, BIAS_KEY, bias)


def prepare_fsdp_config(config: Any) -> None:
    """Describe a discriminator in FSDP's form. Changes ``config``."""
    config.architectures = [prepare_form(config).model_class.__name__]
    if hasattr(config, BIAS_KEY):
        delattr(config, BIAS_KEY)


def _is_head(name: str) -> bool:
    return name == CAUSAL_HEAD or name.partition(".")[0] in HEAD_NAMES


def _layer(name: str) -> int:
    """Number of the layer that a weight belongs to; -1 for none."""
    _, found, rest = name.partition(".layers.")
    return int(rest.partition(".")[0]) if found else -1


def _body(files: dict[str, str], num_layers: int) -> dict[str, str]:
    return {name: file for name, file in files.items() if not _is_head(name) and _layer(name) < num_layers}


def _write_index(target: Path, files: dict[str, str]) -> None:
    size = sum((target / file).stat().st_size for file in set(files.values()))
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _other_files(source: Path) -> Iterable[Path]:
    """Tokenizer, generation settings and the like."""
    weights = (".safetensors", ".bin", ".pt", ".pth")
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in ("config.json", INDEX) and file.suffix not in weights:
            yield file


def link_causal(source: str | Path, target: str | Path, config: Any, head: ScalarHead) -> None:
    """Make ``target`` look like a discriminator in Megatron's form without copying its body.

    Args:
        source: Any folder of the family: a language model, or a discriminator in either form.
        target: Folder to fill; it must exist and holds links into ``source`` afterwards.
        config: transformers' configuration of the discriminator; may have fewer layers than ``source``. Saved as it is.
        head: What becomes ``lm_head.weight``.

    Raises:
        GadCheckpointError: If ``source`` cannot be read, or the head does not fit.
    """
    from safetensors.torch import save_file

    source, target = Path(source).resolve(), Path(target)
    text_config = config.get_text_config()
    if head.weight.shape != (1, text_config.hidden_size):
        raise GadCheckpointError(
            f"the head of {source} is {tuple(head.weight.shape)}, not (1, {text_config.hidden_size})"
        )
    files = _body(weight_files(source), text_config.num_hidden_layers)
    names = {file: BODY_FILE if file == WHOLE_FILE else file for file in files.values()}
    for file, name in names.items():
        os.symlink(source / file, target / name)
    for other in _other_files(source):
        os.symlink(other, target / other.name)
    save_file({CAUSAL_HEAD: head.weight.contiguous()}, target / HEAD_FILE)
    _write_index(target, {name: names[file] for name, file in files.items()} | {CAUSAL_HEAD: HEAD_FILE})
    config.save_pretrained(target)


def load_config(folder: Path) -> Any:
    """transformers' configuration of a discriminator in either form, with one label."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.num_labels = 1
    return config


def fsdp_head(config: Any) -> tuple[str, bool]:
    """Name of the head of a discriminator in FSDP's form, and whether it has a bias."""
    model = empty_discriminator(config)
    name = head_name(model)
    return name, getattr(model, name).bias is not None


def _write_weights(source: Path, target: Path, files: dict[str, str], head: dict[str, Tensor]) -> None:
    """The body's files one after the other, and the head."""
    from safetensors.torch import load_file, save_file

    def body_of(file: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in load_file(source / file).items() if files.get(name) == file}

    names = sorted(set(files.values()))
    if len(names) == 1:
        save_file({**body_of(names[0]), **head}, target / WHOLE_FILE, metadata={"format": "pt"})
        return
    for file in names:
        save_file(body_of(file), target / file, metadata={"format": "pt"})
    save_file(head, target / HEAD_FILE, metadata={"format": "pt"})
    _write_index(target, {**files, **dict.fromkeys(head, HEAD_FILE)})


def _convert(source: str | Path, target: str | Path, to_causal: bool) -> Path:
    source, target = Path(source), Path(target)
    head = read_head(source)
    if head is None:
        raise GadCheckpointError(f"{source} is no discriminator: it has no scalar head")
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: remove it or choose another folder")
    config = load_config(source)
    if to_causal:
        prepare_causal_config(config, head.bias)
        tensors = {CAUSAL_HEAD: head.weight}
    else:
        prepare_fsdp_config(config)
        name, has_bias = fsdp_head(config)
        tensors = {f"{name}.weight": head.weight}
        if has_bias:
            tensors[f"{name}.bias"] = torch.tensor([head.bias], dtype=head.weight.dtype)
        elif head.bias:
            logger.warning("the head of %s has no bias: every score is lower by %g", config.architectures[0], head.bias)
    files = _body(weight_files(source), config.get_text_config().num_hidden_layers)
    with replaced(target) as temporary:
        temporary.mkdir(parents=True)
        _write_weights(source, temporary, files, tensors)
        for file in _other_files(source):
            # A model card describes the form that it was written for.
            if file.name != "README.md":
                shutil.copy2(file, temporary / file.name)
        config.save_pretrained(temporary)
        follow_umask(temporary)
    return target


def to_megatron(source: str | Path, target: str | Path) -> Path:
    """Write a discriminator in Megatron's form: ``...ForCausalLM`` with ``lm_head.weight`` [1, h].

    Args:
        source: A discriminator in either form, as written by ``save_pretrained`` or ``gad-verl export``.
        target: Folder to write; must not exist or be empty. It appears whole or not at all.

    Raises:
        GadCheckpointError: If ``source`` is no discriminator.
        FileExistsError: If ``target`` holds files.
    """
    return _convert(source, target, to_causal=True)


def to_classifier(source: str | Path, target: str | Path) -> Path:
    """Write a discriminator in FSDP's form: ``...ForTokenClassification`` with ``score.weight``, where there is one.

    Arguments and errors as of :func:`to_megatron`.
    """
    return _convert(source, target, to_causal=False)
