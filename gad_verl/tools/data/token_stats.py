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
"""``gad-verl data stats``: tokens of prompts and teacher texts, and the share that the limits cut."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from gad_verl.data.endings import EXTRA_INFO, MARKS, cut_texts
from gad_verl.data.images import image_size, row_images, with_images
from gad_verl.data.schema import teacher_texts
from gad_verl.data.tokenizer import load_tokenizer, why_not
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadConfigError
from gad_verl.tools.data.row_file import open_gad_file

if TYPE_CHECKING:
    from gad_verl.data.image_prompts import ImagePrompts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Limits are suggested as multiples of this, so that this share of the texts stays whole.
STEP = 64
COVERED = 0.99
_NO_LIMIT = 2**40


def load_builder(tokenizer_path: str, chat_template_kwargs: dict[str, Any] | None = None) -> SequenceBuilder:
    """The training's encoder for a tokenizer, without limits.

    Raises:
        GadConfigError: If the tokenizer cannot be loaded, or has no EOS or chat template.
    """
    from transformers import AutoTokenizer

    local = Path(tokenizer_path).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(local if local.exists() else tokenizer_path)
    except Exception as error:
        why = why_not(tokenizer_path, error)
        raise GadConfigError(f"--tokenizer {tokenizer_path}: no tokenizer can be loaded: {why}") from None
    return SequenceBuilder(tokenizer, _NO_LIMIT, _NO_LIMIT, chat_template_kwargs=chat_template_kwargs)


def run_builder(config: DictConfig) -> SequenceBuilder:
    """The encoder of a run's student, with the run's chat template and its options, without limits.

    Raises:
        GadConfigError: If the tokenizer cannot be loaded, or has no EOS or chat template.
    """
    tokenizer = load_tokenizer("actor_rollout_ref.model", config.actor_rollout_ref.model)
    options = dict(config.data.get("apply_chat_template_kwargs", {}) or {})
    return SequenceBuilder(tokenizer, _NO_LIMIT, _NO_LIMIT, chat_template_kwargs=options)


def run_images(config: DictConfig) -> "ImagePrompts":
    """The reader of a run's prompts with images.

    Raises:
        GadConfigError: If its student has no eyes, or none that are covered.
    """
    from gad_verl.data.image_prompts import image_prompts_of_folder

    model = config.actor_rollout_ref.model
    return image_prompts_of_folder(
        str(Path(model.get("tokenizer_path", None) or model.path).expanduser()),
        load_tokenizer("actor_rollout_ref.model", model),
        _NO_LIMIT,
        trust_remote_code=model.get("trust_remote_code", False),
        chat_template=model.get("custom_chat_template", None),
        template_kwargs=config.data.get("apply_chat_template_kwargs", None),
        processor_kwargs=config.data.get("mm_processor_kwargs", None),
    )


def load_images(folder: str, builder: SequenceBuilder, processor_kwargs: Mapping[str, Any] | None) -> "ImagePrompts":
    """The reader of prompts with images of a model's folder.

    Args:
        folder: Of tokenizer and processor.
        builder: Of :func:`load_builder`.
        processor_kwargs: verl's ``data.mm_processor_kwargs``.

    Raises:
        GadConfigError: If it has no processor that is covered.
    """
    from gad_verl.data.image_prompts import image_prompts_of_folder

    local = Path(folder).expanduser()
    return image_prompts_of_folder(
        str(local if local.exists() else folder),
        builder.tokenizer,
        _NO_LIMIT,
        template_kwargs=builder.chat_template_kwargs,
        processor_kwargs=processor_kwargs,
    )


class _Prompts:
    """Counts the tokens of prompts; what reads images is made where the first of them has one."""

    def __init__(
        self, builder: SequenceBuilder, open_images: Callable[[], "ImagePrompts"] | None, image_key: str
    ) -> None:
        self._builder, self._open_images, self._image_key = builder, open_images, image_key
        self._images: ImagePrompts | None = None

    def count(self, row: Mapping[str, Any], messages: Any, where: str) -> int:
        if self._open_images is None:
            return len(self._builder.prompt(messages))
        files = row_images(row.get(self._image_key), messages, where, self._image_key)
        if not files:
            return len(self._builder.prompt(messages))
        if self._images is None:
            self._images = self._open_images()
        return self._images.length(with_images(messages, files), [image_size(file, where) for file in files], where)


@dataclass(frozen=True)
class Lengths:
    """Token counts.

    Args:
        prompts: Tokens of each rendered prompt.
        responses: Tokens of each teacher text; its EOS included, unless the row says that it was cut.
    """

    prompts: NDArray[np.int64]
    responses: NDArray[np.int64]


def count_tokens(
    path: str | Path,
    builder: SequenceBuilder,
    prompt_key: str,
    teacher_key: str,
    limit: int | None = None,
    open_images: Callable[[], "ImagePrompts"] | None = None,
    image_key: str = "images",
) -> Lengths:
    """Token counts of a file's rows, as the training will encode them.

    Args:
        path: A file of GAD's schema.
        builder: See :func:`load_builder` and :func:`run_builder`.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher texts.
        limit: Only so many rows, evenly spread over the file.
        open_images: Makes what reads prompts with images, where there are some; without it texts alone are counted.
        image_key: Column of the images.
    """
    from transformers.utils import logging as transformers_logging

    # "Sequence longer than the maximum length of the model": that is what is being counted here.
    transformers_logging.set_verbosity_error()
    opened = open_gad_file(path, prompt_key, teacher_key)
    count = opened.rows if limit is None else min(limit, opened.rows)
    wanted = set((np.arange(count) * opened.rows // count).tolist())
    prompts, responses, counter = [], [], _Prompts(builder, open_images, image_key)
    images = [] if open_images is None else [image_key]
    rows = opened.records([prompt_key, teacher_key, EXTRA_INFO, *MARKS, *images])
    for number, row in enumerate(tqdm(rows, total=opened.rows, desc="Counting", unit="row", delay=2, mininterval=1)):
        if number in wanted:
            where = f"{path}, row {number}"
            prompts.append(counter.count(row, row[prompt_key], where))
            texts = teacher_texts(row[teacher_key], where)
            ends = zip(texts, cut_texts(row, len(texts), where), strict=True)
            responses.extend(len(builder.response(text, not cut).token_ids) for text, cut in ends)
    return Lengths(np.array(prompts), np.array(responses))


def suggested_limit(lengths: NDArray[np.int64]) -> int:
    """Smallest multiple of 64 that leaves 99 % of the texts whole."""
    return max(STEP, STEP * math.ceil(np.quantile(lengths, COVERED, method="higher") / STEP))


def summarize(lengths: NDArray[np.int64], limit: int | None) -> dict[str, Any]:
    """Quantiles, mean, the share over a limit, the tokens that it cuts, and a limit that would cut 1 % at most."""
    suggested = suggested_limit(lengths)
    result: dict[str, Any] = {
        "texts": len(lengths),
        "tokens": int(lengths.sum()),
        "mean": float(lengths.mean()),
        "quantiles": {f"{q:g}": int(np.quantile(lengths, q, method="nearest")) for q in QUANTILES},
        "suggested_limit": suggested,
        "suggested_limit_cuts": float((lengths > suggested).mean()),
    }
    if limit is not None:
        over = lengths > limit
        result |= {
            "limit": limit,
            "cut_texts": int(over.sum()),
            "cut_share": float(over.mean()),
            "cut_tokens_share": float((lengths[over] - limit).sum() / max(1, lengths.sum())),
        }
    return result
