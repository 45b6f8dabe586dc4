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
"""The reader of prompts with images of a checkpoint, and what an evaluation cannot do with them."""

from typing import TYPE_CHECKING, Any

from gad_verl.data.images import MARK
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.tools.evaluation.generation import GenerationSettings
from gad_verl.tools.export.checkpoint import Checkpoint
from gad_verl.tools.export.prompt_options import find_prompt_options

if TYPE_CHECKING:
    from gad_verl.data.image_prompts import ImagePrompts


def check_text_only(teacher: Any, tools: Any, thoughts: Any) -> None:
    """Refuse what reads text alone.

    Args:
        teacher, tools, thoughts: Of an evaluation; None where it has none.

    Raises:
        GadConfigError: Names the option.
    """
    options = {"--teacher-model": teacher, "--tools": tools, "a student that hides its thoughts": thoughts}
    for option, given in options.items():
        if given is not None:
            raise GadConfigError(f"rows with images ({MARK}) are not evaluated with {option}")


def open_image_prompts(
    checkpoint: Checkpoint, builder: SequenceBuilder, settings: GenerationSettings
) -> "ImagePrompts":
    """Reads prompts as the student's training did.

    Args:
        checkpoint: The student.
        builder: Of its tokenizer.
        settings: Has the longest prompt, and options of the processor that are not those of the training.

    Raises:
        GadCheckpointError: Its folder has no processor.
        GadConfigError: The processor is none of those that are covered.
    """
    from gad_verl.data.image_prompts import image_prompts_of_folder

    folder = checkpoint.config_folder
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise GadCheckpointError(
            f"{folder} has no processor of images (preprocessor_config.json): copy it from the model it came from"
        )
    given = settings.mm_processor_kwargs
    return image_prompts_of_folder(
        str(folder),
        builder.tokenizer,
        settings.max_prompt_length,
        template_kwargs=builder.chat_template_kwargs,
        processor_kwargs=find_prompt_options(checkpoint).processor if given is None else given,
        keys=("--max-prompt-length", "--mm-processor-kwargs"),
    )
