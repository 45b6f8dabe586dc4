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
"""Student and discriminator of a checkpoint as Hugging Face folders (safetensors), in the trained precision.

verl's own merger rounds to bfloat16 (verl/model_merger/fsdp_model_merger.py); the scores of a discriminator do not
survive that unchanged, so the shards are joined here.
"""

import json
import logging
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from gad_verl.config.thinking import HIDDEN
from gad_verl.data.thinking import closed_prompts
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.conversion import prepare_fsdp_config
from gad_verl.discriminator.form import HEAD_NAMES, discriminator_form, empty_discriminator, language_model_class
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import follow_umask, replaced
from gad_verl.tools.export.adapter import build_adapted, has_adapter
from gad_verl.tools.export.checkpoint import check_exportable, is_megatron, load_tokenizer, transformers_folder
from gad_verl.tools.export.megatron import load_megatron_state
from gad_verl.tools.export.prompt_options import write_prompt_options
from gad_verl.tools.export.reward_model import Scoring, add_reward_form, lm_head_class, saved_weights
from gad_verl.trainer.checkpoints import STATE_FILE, read_state

if TYPE_CHECKING:
    from gad_verl.tools.export.card.request import CardRequest

logger = logging.getLogger(__name__)

PARTS = ("student", "discriminator")
_FOLDERS = {"student": "actor", "discriminator": "discriminator"}
_CARD = "README.md"


def _shard_files(folder: Path) -> list[Path]:
    config = folder / "fsdp_config.json"
    if not config.is_file():
        raise GadCheckpointError(
            f"{folder} is no FSDP checkpoint of verl ({config.name} is missing). Name a folder global_step_N"
        )
    world_size = json.loads(config.read_text(encoding="utf-8"))["world_size"]
    files = [folder / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise GadCheckpointError(
            f"{folder} lacks {', '.join(missing)}: copy the parts of all nodes into one folder before the export"
        )
    return files


def join_shards(name: str, shards: list[Tensor]) -> Tensor:
    """The whole tensor from the pieces of all ranks, in rank order.

    Args:
        name: For the error.
        shards: DTensors (each rank's piece) or plain tensors (copies of the whole).

    Raises:
        GadCheckpointError: If the layout is not a plain or hybrid sharding of FSDP, or copies differ.
    """
    from torch.distributed.tensor import DTensor, Shard

    first = shards[0]
    if not isinstance(first, DTensor):
        if any(not torch.equal(first, other) for other in shards[1:]):
            raise GadCheckpointError(f"{name} differs between ranks although it is not sharded: damaged checkpoint")
        return first
    sharded = [placement for placement in first.placements if isinstance(placement, Shard)]
    if len(sharded) > 1:
        raise GadCheckpointError(f"{name} is sharded in {len(sharded)} dimensions; only FSDP and HSDP can be exported")
    pieces = [shard.to_local() for shard in shards]
    if not sharded:
        return pieces[0]
    # Under hybrid sharding the last mesh dimension shards; the first group of ranks holds a whole copy.
    group = pieces[: first.device_mesh.size(first.device_mesh.ndim - 1)]
    return torch.cat(group, dim=sharded[0].dim)


def _load_shard(file: Path) -> dict[str, Tensor]:
    """The state dict of one rank. A checkpoint may come from elsewhere: nothing in it is run."""
    # Makes the classes of sharded tensors known to torch's loader of tensors alone.
    import torch.distributed.tensor

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise GadCheckpointError(f"{file} is damaged, or holds more than tensors: {reason}") from None


def load_state(folder: Path) -> dict[str, Tensor]:
    """The whole state dict of one model of a checkpoint (``actor`` or ``discriminator``).

    Raises:
        GadCheckpointError: If files are missing or do not fit together.
    """
    files = _shard_files(folder)
    ranks = [_load_shard(file) for file in tqdm(files, desc=f"Reading {folder.name}", unit="shard")]
    return {name: join_shards(name, [rank[name] for rank in ranks]).contiguous() for name in ranks[0]}


def _empty_model(part: str, config_folder: Path) -> Any:
    """The architecture without weights."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(config_folder)
    if part == "discriminator":
        prepare_fsdp_config(config)
        return empty_discriminator(config)
    with torch.device("meta"):
        return language_model_class(config)._from_config(config, attn_implementation="eager")


def _load_base(part: str, path: str, dtype: torch.dtype) -> Any:
    """The base of an adapter that was saved alone."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    if part == "student":
        return language_model_class(config).from_pretrained(path, dtype=dtype)
    prepare_fsdp_config(config)
    # The head over the vocabulary of a language model is not read: the adapter brings the scalar one.
    form = discriminator_form(config).loadable_class
    return form.from_pretrained(path, config=config, dtype=dtype, ignore_mismatched_sizes=True)


def _build_model(part: str, config_folder: Path, state: Mapping[str, Tensor]) -> Any:
    model = _empty_model(part, config_folder)
    config = model.config
    tied = set(model._tied_weights_keys or ()) if getattr(config, "tie_word_embeddings", False) else set()
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise GadCheckpointError(
            f"{config_folder.parent} does not fit its own configuration: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}"
        )
    model.tie_weights()
    return model


def _copy_other_files(config_folder: Path, target: Path) -> None:
    """Tokenizer, generation settings and the like; what is there already stays."""
    for file in config_folder.iterdir():
        of_weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        if file.name == "config.json" or of_weights or (target / file.name).exists():
            continue
        # A folder: further chat templates.
        (shutil.copytree if file.is_dir() else shutil.copy2)(file, target / file.name)


def _score_bias(model: Any) -> float:
    """Bias of the scalar head, also of one that was trained beside an adapter."""
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[-1] == "bias" and "original_module" not in parts and set(parts) & set(HEAD_NAMES):
            return float(tensor)
    return 0.0


def _held_out(checkpoint: str | Path) -> dict[str, Any] | None:
    """What never trained the discriminator of a checkpoint; None where its state does not say."""
    folder = Path(checkpoint)
    state = read_state(folder) if (folder / STATE_FILE).is_file() else None
    return None if state is None or state.held_out is None else asdict(state.held_out)


def export_part(
    checkpoint: str | Path,
    part: str,
    output: str | Path,
    dtype: torch.dtype | None = None,
    adapter_only: bool = False,
    card: "CardRequest | None" = None,
) -> Path:
    """Write one model of a checkpoint as a Hugging Face folder; the folder appears whole or not at all.

    A discriminator loads in the form that was trained and, where transformers has one with the same weights, as a
    sequence classifier (:mod:`gad_verl.tools.export.reward_model`).

    Args:
        checkpoint: A folder ``global_step_N``.
        part: "student" or "discriminator".
        output: Folder to write; must not exist or be empty.
        dtype: Precision to write; None keeps that of the checkpoint.
        adapter_only: Write the adapter of LoRA (of a discriminator with its head) in the format of PEFT.
        card: Write a model card (``README.md``) with what the user adds to it; None writes none.

    Returns:
        ``output``.

    Raises:
        GadCheckpointError: If the checkpoint cannot be exported.
        GadConfigError, GadDataError: If the card names what does not exist or does not belong to the checkpoint.
        FileExistsError: If ``output`` holds files.
        ValueError: If ``part`` is unknown.
    """
    from gad_verl.tools.export.card.run_facts import read_run_facts

    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    output, folder = Path(output), Path(checkpoint) / _FOLDERS[part]
    check_exportable(checkpoint, part, folder.name)
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: remove it or choose another folder")
    run = read_run_facts(checkpoint)
    facts = None
    if card is not None:
        from gad_verl.tools.export.card.page import collect_facts

        facts = collect_facts(checkpoint, part, run, card)
    if is_megatron(folder):
        config_folder, state = transformers_folder(folder), load_megatron_state(folder, part)
    else:
        config_folder, state = folder / "huggingface", load_state(folder)
    if adapter_only and not has_adapter(state):
        raise GadCheckpointError(f"the {part} of {checkpoint} was trained without LoRA: there is no adapter to write")
    if has_adapter(state):
        model = build_adapted(folder, state, lambda: _empty_model(part, config_folder), partial(_load_base, part))
        if not adapter_only:
            model = model.merge_and_unload(safe_merge=True)
    else:
        model = _build_model(part, config_folder, state)
    if dtype is not None:
        model.to(dtype)
    model.config.dtype = next(model.parameters()).dtype
    with replaced(output) as temporary:
        writes_scores = part == "discriminator" and not adapter_only
        model.save_pretrained(temporary, state_dict=saved_weights(model) if writes_scores else None)
        # PEFT leaves a form to fill in, with the folder of the base.
        (temporary / _CARD).unlink(missing_ok=True)
        _copy_other_files(config_folder, temporary)
        scoring, classifier = None, None
        options = dict(run.get("data.apply_chat_template_kwargs") or {})
        thinking = {name: run.get(f"gad.thinking.{name}") for name in ("mode", "open", "close")}
        if part == "student" and run.config:
            hidden = thinking if thinking.get("mode") == HIDDEN else None
            write_prompt_options(temporary, options, hidden, run.get("data.mm_processor_kwargs"))
        if part == "discriminator":
            opened = ""
            if thinking.get("mode") == HIDDEN:
                closing, opened = closed_prompts(SequenceBuilder(load_tokenizer(temporary), 1, 1, None, options))
                options |= closing
            scoring = Scoring(
                run.get("data.max_prompt_length"),
                run.get("gad.max_answer_length") or run.get("data.max_response_length"),
                options,
                _score_bias(model),
                opened,
                _held_out(checkpoint),
            )
            if adapter_only:
                scoring.write(temporary)
            else:
                classifier = add_reward_form(temporary, scoring)
        if facts is not None:
            from gad_verl.tools.export.card.page import Exported, write_card

            precision = str(model.config.dtype).removeprefix("torch.")
            replaced_class = None if scoring is None else lm_head_class(model.config)
            write_card(facts, Exported(temporary, adapter_only, precision, scoring, classifier, replaced_class))
        follow_umask(temporary)
    logger.info("exported the %s of %s to %s", part, checkpoint, output)
    return output
