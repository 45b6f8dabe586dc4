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

import logging
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gad_verl.config.thinking import HIDDEN, ThinkingConfig
from gad_verl.data.thinking import closed_prompts, marks_of
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.form import HEAD_NAMES
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import follow_umask, replaced
from gad_verl.tools.export.adapter import ADAPTER_CONFIG_FILE, build_adapted, has_adapter, merge
from gad_verl.tools.export.building import build_model, empty_model, load_base
from gad_verl.tools.export.checkpoint import (
    check_exportable,
    is_megatron,
    load_model_config,
    load_tokenizer,
    transformers_folder,
)
from gad_verl.tools.export.megatron import load_megatron_state
from gad_verl.tools.export.output import check_output
from gad_verl.tools.export.prompt_options import write_prompt_options
from gad_verl.tools.export.reward_model import Scoring, add_reward_form, lm_head_class, saved_weights
from gad_verl.tools.export.shards import load_state, shard_files
from gad_verl.trainer.checkpoints import STATE_FILE, read_state

if TYPE_CHECKING:
    from gad_verl.tools.export.card.request import CardRequest

logger = logging.getLogger(__name__)

PARTS = ("student", "discriminator")
_FOLDERS = {"student": "actor", "discriminator": "discriminator"}
_CARD = "README.md"


def _copy_other_files(config_folder: Path, target: Path) -> None:
    """Tokenizer, generation settings and the like; they replace what transformers made of the configuration alone."""
    for file in config_folder.iterdir():
        of_weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        if file.name == "config.json" or of_weights:
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


def check_request(
    checkpoint: str | Path, part: str, output: str | Path, adapter_only: bool = False, trust_remote_code: bool = False
) -> Path:
    """What can be known of an export before anything large is read.

    Args:
        checkpoint: A folder ``global_step_N``.
        part: "student" or "discriminator".
        output: Folder to write; must not exist or be empty.
        adapter_only: Whether the adapter of LoRA alone is asked for.
        trust_remote_code: Run code that the model brings.

    Returns:
        The real place of ``output``.

    Raises:
        GadCheckpointError: If the checkpoint does not hold what is asked for.
        GadConfigError, FileExistsError: If ``output`` cannot be written.
        ValueError: If ``part`` is unknown.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    folder = Path(checkpoint) / _FOLDERS[part]
    check_exportable(checkpoint, part, folder.name)
    place = check_output(output)
    if not is_megatron(folder):
        shard_files(folder)
    if adapter_only and not (folder / ADAPTER_CONFIG_FILE).is_file():
        raise _without_adapter(checkpoint, part)
    load_model_config(_config_folder(folder), trust_remote_code)
    return place


def _config_folder(folder: Path) -> Path:
    return transformers_folder(folder) if is_megatron(folder) else folder / "huggingface"


def _without_adapter(checkpoint: str | Path, part: str) -> GadCheckpointError:
    return GadCheckpointError(f"the {part} of {checkpoint} was trained without LoRA: there is no adapter to write")


def export_part(
    checkpoint: str | Path,
    part: str,
    output: str | Path,
    dtype: torch.dtype | None = None,
    adapter_only: bool = False,
    card: "CardRequest | None" = None,
    trust_remote_code: bool = False,
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
        trust_remote_code: Run code that the model brings.

    Returns:
        ``output``.

    Raises:
        GadCheckpointError: If the checkpoint cannot be exported.
        GadConfigError: If no folder can be put at ``output``, or transformers has no class of the model.
        FileExistsError: If ``output`` holds files.
        ValueError: If ``part`` is unknown.
    """
    from gad_verl.tools.export.card.run_facts import read_run_facts

    place = check_request(checkpoint, part, output, adapter_only, trust_remote_code)
    folder = Path(checkpoint) / _FOLDERS[part]
    config_folder = _config_folder(folder)
    run = read_run_facts(checkpoint)
    facts = None
    if card is not None:
        from gad_verl.tools.export.card.page import collect_facts

        facts = collect_facts(checkpoint, part, run, card)
    state = load_megatron_state(folder, part, trust_remote_code) if is_megatron(folder) else load_state(folder)
    if adapter_only and not has_adapter(state):
        raise _without_adapter(checkpoint, part)
    if has_adapter(state):
        build_base = partial(empty_model, part, config_folder, trust_remote_code)
        model = build_adapted(folder, state, build_base, partial(load_base, part, trust_remote_code))
        if not adapter_only:
            model = merge(model, folder)
    else:
        model = build_model(part, config_folder, state, trust_remote_code)
    if dtype is not None:
        model.to(dtype)
    model.config.dtype = next(model.parameters()).dtype
    with replaced(place) as temporary:
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
                builder = SequenceBuilder(load_tokenizer(temporary, trust_remote_code), 1, 1, None, options)
                own = {name: thinking[name] for name in ("open", "close")}
                marks = None if None in own.values() else marks_of(ThinkingConfig(HIDDEN, **own), None)
                closing, opened = closed_prompts(builder, marks)
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
                classifier = add_reward_form(temporary, scoring, trust_remote_code)
        if facts is not None:
            from gad_verl.tools.export.card.page import Exported, write_card

            precision = str(model.config.dtype).removeprefix("torch.")
            replaced_class = None if scoring is None else lm_head_class(model.config)
            write_card(facts, Exported(temporary, adapter_only, precision, scoring, classifier, replaced_class))
        follow_umask(temporary)
    logger.info("exported the %s of %s to %s", part, checkpoint, output)
    return Path(output)
