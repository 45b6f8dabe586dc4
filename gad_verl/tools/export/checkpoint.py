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
"""A checkpoint by its path: verl's ``global_step_N`` or a Hugging Face folder."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import read_json

_WEIGHTS = {".safetensors", ".bin", ".pt"}
# Of a file of weights so many blocks are read for the fingerprint: training changes nearly every number, and a whole
# checkpoint of 100 GB takes minutes to read.
_BLOCKS, _BLOCK_BYTES = 64, 1 << 16
_STEP = re.compile(r"global_step_\d+")
# Of verl's Megatron engine, which writes it last.
_MANIFEST = "ckpt_contents.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a student lies.

    Args:
        path: As the user named it.
        folder: What holds its weights and their configuration.
        config_folder: What ``transformers`` can read configuration and tokenizer from.
        is_verl: Whether the weights are those of a run's checkpoint and have to be exported.
    """

    path: Path
    folder: Path
    config_folder: Path
    is_verl: bool

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are shards of FSDP; Megatron writes them in the form of transformers."""
        return self.is_verl and self.folder != self.config_folder

    def fingerprint(self) -> str:
        """Changes with weights, tokenizer and configuration; a few blocks of each large file are read."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            # The optimizer's state and the generator's (optim_*, extra_state_*) do not change an answer.
            if file.suffix in _WEIGHTS and self.is_sharded and not file.name.startswith("model_"):
                continue
            if file.suffix in _WEIGHTS:
                digest.update(f"{file.name} {file.stat().st_size}".encode())
                for block in _blocks(file):
                    digest.update(block)
            elif file.suffix in {".json", ".jinja", ".model", ".txt"}:
                digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()[:16]


def _blocks(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as handle:
        for number in range(_BLOCKS):
            handle.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
            yield handle.read(_BLOCK_BYTES)


def find_checkpoint(path: str | Path) -> Checkpoint:
    """Recognise a checkpoint.

    Raises:
        GadCheckpointError: If it is none of the layouts, or incomplete.
    """
    path = Path(path).expanduser()
    # Here and below not Path.exists(), which minds a name that is too long.
    if not os.path.exists(path):
        raise GadCheckpointError(f"{path}: no such checkpoint (--model takes a folder, not the name of a hub's model)")
    if (path / "actor").is_dir():
        if is_megatron(path / "actor"):
            folder = transformers_folder(path / "actor")
            return Checkpoint(path, folder, folder, True)
        configuration = path / "actor" / "huggingface"
        if not (configuration / "config.json").is_file():
            raise GadCheckpointError(f"{path} has no actor/huggingface/config.json: an incomplete checkpoint of verl")
        return Checkpoint(path, path / "actor", configuration, True)
    if (path / "config.json").is_file():
        if not any(file.suffix in _WEIGHTS for file in path.iterdir()):
            raise GadCheckpointError(f"{path} has a config.json but no weights (*.safetensors)")
        return Checkpoint(path, path, path, False)
    raise GadCheckpointError(
        f"{path} is neither a folder global_step_N of verl (actor/) nor a Hugging Face folder (config.json)"
        f"{newest_in(path)}"
    )


def is_megatron(folder: Path) -> bool:
    """Whether a model's folder of a checkpoint was written by verl's Megatron engine."""
    return (folder / _MANIFEST).is_file() or (folder / "model").is_dir()


def transformers_folder(folder: Path) -> Path:
    """Where the weights in the form of transformers are.

    Raises:
        GadCheckpointError: If Megatron's own format alone was saved, or the checkpoint is incomplete.
    """
    if not (folder / _MANIFEST).is_file():
        raise GadCheckpointError(f"{folder} lacks {_MANIFEST}, which Megatron writes last: it was not saved to its end")
    found = folder / "model" / "huggingface"
    if not (found / "config.json").is_file():
        raise GadCheckpointError(
            f"{folder} holds Megatron's own format only: train with megatron.use_dist_checkpointing=False, or add "
            "hf_model to checkpoint.save_contents"
        )
    return found


def newest_in(path: Path) -> str:
    """What to name in the place of the folder of a run: its newest checkpoint, as the end of an error."""
    found = [child for child in path.iterdir() if _STEP.fullmatch(child.name)] if path.is_dir() else []
    if not found:
        return ""
    # By number: global_step_50 is older than global_step_200.
    return f"; did you mean {max(found, key=lambda child: int(child.name.rpartition('_')[2]))}?"


def check_exportable(path: str | Path, part: str, folder: str) -> None:
    """Check that a checkpoint of verl holds a part.

    Args:
        path: As the user named it.
        part: ``student`` or ``discriminator``.
        folder: The part's folder in a checkpoint.

    Raises:
        GadCheckpointError: Says what the path is instead, and what to name.
    """
    place = Path(path)
    if os.path.isdir(place / folder):
        return
    if not os.path.isdir(place):
        raise GadCheckpointError(
            f"{path}: {'a file' if os.path.exists(place) else 'no such folder'}; name a folder global_step_N"
        )
    if (place / "config.json").is_file():
        raise GadCheckpointError(f"{path} is a Hugging Face folder already, and no checkpoint of a run (global_step_N)")
    raise GadCheckpointError(f"{path} holds no {part} ({folder}/ is missing){newest_in(place)}")


def brief(error: BaseException | None) -> str:
    """What an error of a library says, in one line of bearable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def brings_code(folder: Path) -> bool:
    """Whether the model in a folder has classes of its own, which transformers runs from the folder or the Hub."""
    return bool((read_json(folder / "config.json") or {}).get("auto_map"))


def load_model_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """transformers' configuration of a folder of a checkpoint.

    Args:
        folder: With ``config.json``.
        trust_remote_code: Run code that the model brings.

    Raises:
        GadCheckpointError: If there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise GadCheckpointError(f"{folder} has no config.json: an incomplete checkpoint; copy it again")
    try:
        # Without a word about code transformers asks on the terminal, where nobody may sit.
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        if brings_code(folder) and not trust_remote_code:
            raise GadCheckpointError(
                f"the model in {folder} brings code of its own: look at it, and if you trust it, use gad-verl export "
                "with --trust-remote-code"
            ) from None
        raise GadCheckpointError(f"{folder / 'config.json'} cannot be read: {brief(error)}") from None


def load_tokenizer(folder: Path, trust_remote_code: bool | None = None) -> Any:
    """The tokenizer of a folder.

    Args:
        folder: With the tokenizer's files.
        trust_remote_code: Run code that the tokenizer brings; None lets transformers ask.

    Raises:
        GadCheckpointError: If there is none.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")):
        raise GadCheckpointError(
            f"{folder} has no tokenizer (tokenizer_config.json): copy it from the model it came from"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise GadCheckpointError(f"the tokenizer in {folder} cannot be read: {brief(error)}") from None
