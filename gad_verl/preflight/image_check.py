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
"""Images beside the prompts: whether student, discriminator and rollout all see them, in every row."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.modes import SYNC, trainer_mode
from gad_verl.data.file_stamps import file_list
from gad_verl.data.image_prompts import ImagePrompts, image_prompts, load_processor
from gad_verl.data.images import image_size, refuse_films, row_images, with_images
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.schema import column_names
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.errors import GadDataError
from gad_verl.preflight.megatron_check import FSDP

# verl's settings, each with the name of its column where it is not set.
_IMAGES, _OTHERS = ("image_key", "images"), {"video_key": "videos", "audio_key": "audios"}


def check_images(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the images of every row, and that the run can use them; films and sound are refused.

    Raises:
        GadConfigError: Names the key and the remedy.
        GadDataError: Names the file, the row and the column, and the remedy.
    """
    prompts: ImagePrompts | None = None
    for where, messages, files in _rows_with_images(config):
        sizes = [image_size(file, where) for file in files]
        if prompts is None:
            prompts = _prompts(config, gad_config)
        _check_length(config, prompts.length(with_images(messages, files), sizes, where), len(files), where)


def _rows_with_images(config: DictConfig) -> Iterator[tuple[str, Any, tuple[bytes, ...]]]:
    data = config.data
    column = data.get(_IMAGES[0]) or _IMAGES[1]
    others = [data.get(key) or name for key, name in _OTHERS.items()]
    for path in dict.fromkeys([*file_list(data.train_files), *file_list(data.val_files)]):
        columns = [name for name in (column, *others) if name in column_names(path)]
        for number, row in enumerate(open_file(path).rows([data.prompt_key, *columns]) if columns else ()):
            if isinstance(row, BadRow):
                raise GadDataError(row.message)
            where = f"{path}, row {number}"
            refuse_films(row, others, where)
            files = row_images(row.get(column), row[data.prompt_key], where, column)
            if files:
                yield where, row[data.prompt_key], files


def _prompts(config: DictConfig, gad_config: GadConfig) -> ImagePrompts:
    """What reads the prompts, once it is known that the run can."""
    _check_modes(config, gad_config)
    student, judge = config.actor_rollout_ref.model, config.discriminator.model
    tokenizer = load_tokenizer("actor_rollout_ref.model", student)
    processor = processor_of(student)
    prompts = image_prompts(config, tokenizer, processor)
    if gad_config.has_discriminator and judge.path != student.path:
        other = processor_of(judge)
        require(
            type(other) is type(processor)
            and other.image_processor.to_dict() == processor.image_processor.to_dict()
            and other.tokenizer.get_vocab() == processor.tokenizer.get_vocab(),
            f"rows with images: the discriminator reads what the student's processor makes of them, but "
            f"discriminator.model.path={judge.path} has another processor; take a model of the student's family",
        )
    return prompts


def processor_of(model: Any) -> Any:
    """The processor that a section of a model names; None where verl makes none."""
    return load_processor(
        model.get("tokenizer_path", None) or model.path,
        model.get("trust_remote_code", False),
        model.get("custom_chat_template", None),
    )


def _check_modes(config: DictConfig, gad_config: GadConfig) -> None:
    strategies = {
        "actor_rollout_ref.actor": config.actor_rollout_ref.actor.strategy,
        "discriminator": config.discriminator.strategy,
    }
    for key, strategy in strategies.items():
        require(
            strategy in FSDP,
            f"rows with images are trained on FSDP only, but {key}.strategy={strategy}: choose gad_trainer",
        )
    mode = trainer_mode(config)
    for refused, said in (
        (gad_config.trajectory.enable, "gad.trajectory.enable=True: leave the images out, or set it to False"),
        (gad_config.stage == "soda", "gad.stage=soda: choose another stage"),
        (mode != SYNC, f"trainer.v1.trainer_mode={mode}: set it to {SYNC}"),
        (gad_config.thinking.hides, "gad.thinking.mode=hidden: set it to off"),
    ):
        require(not refused, f"rows with images are not supported with {said}")


def _check_length(config: DictConfig, tokens: int, count: int, where: str) -> None:
    """verl drops such rows where it is asked to; else each of their rollouts would fail."""
    if tokens > config.data.max_prompt_length and not config.data.filter_overlong_prompts:
        raise GadDataError(
            f"{where}: the prompt has {tokens} tokens with its {count} images, more than data.max_prompt_length="
            f"{config.data.max_prompt_length}, and one with images is never cut: raise it, lower max_pixels in "
            "data.mm_processor_kwargs, or set data.filter_overlong_prompts=True"
        )
