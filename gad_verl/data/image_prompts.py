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
"""Prompts with images as verl's agent loop renders them: the same processor, the same tokens, the same positions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.tokenizer import build_multimodal_processor_inputs, get_processor_token_id, hf_processor
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from gad_verl.data.images import decoded, image_files, image_size
from gad_verl.data.prompt_images import PromptImages
from gad_verl.data.tokens import Messages
from gad_verl.errors import GadConfigError, GadDataError

# Of Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5. verl binds the positions of a few more, at which nobody has looked.
PROCESSORS = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor")
_OF_TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")


class ImagePrompts:
    """Renders prompts with images.

    Args:
        tokenizer: The student's.
        processor: The student's, as ``verl.utils.tokenizer.hf_processor`` makes it.
        model_type: transformers' name of the family.
        max_prompt_length: In tokens, those of the images included.
        template_kwargs: verl's ``data.apply_chat_template_kwargs``.
        processor_kwargs: verl's ``data.mm_processor_kwargs``.
        keys: What a user calls the length and the options of the processor, for errors.

    Raises:
        GadConfigError: The processor is none of those that are covered.
    """

    def __init__(
        self,
        tokenizer: Any,
        processor: Any,
        model_type: str | None,
        max_prompt_length: int,
        template_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        keys: tuple[str, str] = ("data.max_prompt_length", "data.mm_processor_kwargs"),
    ) -> None:
        name = type(processor).__name__
        if name not in PROCESSORS:
            raise GadConfigError(
                f"images are covered for students with one of the processors {', '.join(PROCESSORS)}; this one has "
                f"{name if processor is not None else 'none that verl can make'}"
            )
        self._processor, self._kwargs = processor, dict(processor_kwargs or {})
        self._max_prompt_length, self._keys = max_prompt_length, keys
        self._template_kwargs = dict(template_kwargs or {})
        self._image_token = get_processor_token_id(processor, "image")
        self._builder = create_continuous_token_builder(
            tokenizer,
            hf_model_type=model_type,
            chat_template_kwargs=self._template_kwargs,
            mm_processor_kwargs=self._kwargs,
            processor=processor,
        )

    @property
    def processor_kwargs(self) -> dict[str, Any]:
        """What the processor is given."""
        return dict(self._kwargs)

    def read(self, messages: Messages, where: str = "a prompt") -> tuple[list[int], PromptImages]:
        """Token ids of a prompt, with as many tokens for each image as it has parts; never cut.

        Args:
            messages: With parts (:func:`gad_verl.data.images.with_images`).
            where: Which prompt it is, for the error.

        Raises:
            GadDataError: It is longer than a prompt may be.
        """
        files, found = image_files(messages), dict[str, Any]()
        pictures = [decoded(file) for file in files]
        ids = self._builder.build_initial_tokens(list(messages), images=pictures, mm_inputs_out=found)
        self._check_length(len(ids), len(files), where)
        return ids, self.of_rollout(ids, found, files)

    def check(self, messages: Messages, where: str) -> None:
        """Check that a prompt is not too long, without a look at any pixel.

        Args:
            messages, where: See :meth:`read`.

        Raises:
            GadDataError: It is too long, or its template does not write one place for each image.
        """
        sizes = [image_size(file, where) for file in image_files(messages)]
        self._check_length(self.length(messages, sizes, where), len(sizes), where)

    def _check_length(self, tokens: int, images: int, where: str) -> None:
        if tokens > self._max_prompt_length:
            longest, options = self._keys
            raise GadDataError(
                f"{where} has {tokens} tokens with its {images} images, more than {longest}={self._max_prompt_length}, "
                f"and is never cut: raise it, or lower max_pixels in {options}"
            )

    def of_rollout(self, prompt_ids: Sequence[int], inputs: Mapping[str, Any], files: Sequence[Any]) -> PromptImages:
        """The images of a prompt that a rollout has read.

        Args:
            prompt_ids: Of the prompt.
            inputs: ``multi_modal_inputs`` of any of its trajectories.
            files: Contents of the images' files.
        """
        kept = {name: value for name, value in inputs.items() if name not in _OF_TEXT}
        grid = kept["image_grid_thw"]
        kept["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        return PromptImages(kept, self._positions(prompt_ids, grid), tuple(files))

    def of_files(self, prompt_ids: Sequence[int], files: Sequence[bytes]) -> PromptImages:
        """The images of a prompt whose tokens are known, read again from their files."""
        found = build_multimodal_processor_inputs(
            self._processor,
            text=[self._processor.image_token * len(files)],
            images=[decoded(file) for file in files],
            mm_processor_kwargs=self._kwargs or None,
        )
        return self.of_rollout(prompt_ids, found, files)

    def shortened(self, prompt_ids: Sequence[int]) -> list[int]:
        """A prompt for people to read: one token for each image, which has hundreds."""
        shown = list[int]()
        for token in prompt_ids:
            if token != self._image_token or shown[-1:] != [token]:
                shown.append(token)
        return shown

    def _positions(self, prompt_ids: Sequence[int], grid: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([list(prompt_ids)])
        seen, _ = self._processor.get_rope_index(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_grid_thw=grid,
            video_grid_thw=None,
            mm_token_type_ids=(ids == self._image_token).long(),
        )
        return torch.cat([torch.arange(ids.shape[1]).unsqueeze(0), seen[:, 0]])

    def length(self, messages: Messages, sizes: Sequence[tuple[int, int]], where: str) -> int:
        """Tokens of a prompt, without a look at any pixel.

        Args:
            messages: With parts.
            sizes: Heights and widths of its images.
            where: File and row, for the error.

        Raises:
            GadDataError: The template does not write one place for each image.
        """
        text = self._processor.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **self._template_kwargs
        )
        places = text.count(self._processor.image_token)
        if places != len(sizes):
            raise GadDataError(
                f"{where}: the chat template writes {places} places for {len(sizes)} images; set "
                "actor_rollout_ref.model.custom_chat_template to one that writes one for each"
            )
        ids = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(ids) + self.added_tokens(sizes)

    def added_tokens(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of images beyond the one that the template writes for each, from heights and widths alone."""
        counted = self._processor._get_num_multimodal_tokens(image_sizes=[list(size) for size in sizes], **self._kwargs)
        return int(sum(counted["num_image_tokens"])) - len(sizes)


def image_prompts_of_folder(
    folder: str,
    tokenizer: Any,
    max_prompt_length: int,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    **options: Any,
) -> ImagePrompts:
    """Of a model's folder.

    Args:
        folder: Has the processor.
        tokenizer, max_prompt_length, options: See :class:`ImagePrompts`.
        trust_remote_code: Run code of the folder.
        chat_template: In the place of the processor's.

    Raises:
        GadConfigError: The processor is none of those that are covered.
    """
    processor = load_processor(folder, trust_remote_code, chat_template)
    model_type = getattr(getattr(processor, "config", None), "model_type", None)
    return ImagePrompts(tokenizer, processor, model_type, max_prompt_length, **options)


def load_processor(folder: str, trust_remote_code: bool, chat_template: str | None) -> Any:
    """What turns text and images into a model's inputs, as verl's trainer makes it; None where verl makes none.

    Args:
        folder: Of tokenizer and processor.
        trust_remote_code: Run code of the folder.
        chat_template: In the place of the processor's; verl's ``custom_chat_template``.
    """
    processor = hf_processor(folder, trust_remote_code=trust_remote_code)
    if processor is not None and chat_template is not None:
        processor.chat_template = chat_template
    return processor


def image_prompts(config: DictConfig, tokenizer: Any, processor: Any) -> ImagePrompts:
    """Of a whole configuration.

    Args:
        config: The whole configuration.
        tokenizer, processor: The student's.

    Raises:
        GadConfigError: The processor is none of those that are covered.
    """
    data = config.data
    return ImagePrompts(
        tokenizer,
        processor,
        getattr(getattr(processor, "config", None), "model_type", None),
        data.max_prompt_length,
        data.get("apply_chat_template_kwargs", None),
        data.get("mm_processor_kwargs", None),
    )
