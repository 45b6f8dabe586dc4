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
"""Rows and mean lengths of the training data, where they are on this machine."""

import logging
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gad_verl.config.thinking import HIDDEN
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import open_file
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.estimate import timing
from gad_verl.tools.estimate.ranges import Range
from gad_verl.tools.estimate.timing import Lengths

logger = logging.getLogger(__name__)

SAMPLE = 500


def count_rows(config: DictConfig) -> int | None:
    """Rows of ``data.train_files``; None if one of the files is not here.

    Raises:
        GadDataError: If a file is not readable.
    """
    paths = [Path(path).expanduser() for path in file_list(config.data.train_files or [])]
    if not paths or not all(path.is_file() for path in paths):
        return None
    rows = sum(_rows_of(path) for path in paths)
    most = config.data.get("train_max_samples", -1)
    return min(rows, most) if most and most > 0 else rows


def _rows_of(path: Path) -> int:
    source = open_file(path)
    return sum(1 for _ in source.rows()) if source.count is None else source.count


def measured_lengths(config: DictConfig, teacher_key: str) -> Lengths | None:
    """Mean tokens of a sample of the rows; None if data or tokenizer are not here.

    The student's responses are taken to be as long as the teacher's, give or take a third: that is what it learns. Of a
    student that hides its thoughts nothing is known but the limit.
    """
    model = config.actor_rollout_ref.model
    tokenizer = Path(str(model.get("tokenizer_path", None) or model.path)).expanduser()
    paths = [Path(path).expanduser() for path in file_list(config.data.train_files or [])]
    if OmegaConf.select(config, "gad.trajectory.enable"):
        logger.warning("the lengths of trajectories are not measured: name them by --teacher-tokens, --response-tokens")
        return None
    if not tokenizer.is_dir() or not paths or not all(path.is_file() for path in paths):
        return None
    from gad_verl.tools.data.token_stats import count_tokens, run_builder, run_images

    images = {"open_images": partial(run_images, config), "image_key": config.data.get("image_key") or "images"}
    try:
        builder = run_builder(config)
        counted = [
            count_tokens(path, builder, config.data.prompt_key, teacher_key, max(1, SAMPLE // len(paths)), **images)
            for path in paths
        ]
    except (GadConfigError, GadDataError, ImportError) as error:
        logger.warning("the lengths of the data are not measured: %s", error)
        return None
    limits = config.data.max_prompt_length, config.data.max_response_length
    prompts = [min(tokens, limits[0]) for lengths in counted for tokens in lengths.prompts.tolist()]
    texts = [min(tokens, limits[1]) for lengths in counted for tokens in lengths.responses.tolist()]
    prompt, teacher = sum(prompts) / len(prompts), sum(texts) / len(texts)
    if OmegaConf.select(config, "gad.thinking.mode") == HIDDEN:
        assumed = timing.RESPONSE_SHARE * limits[1]
        return Lengths(
            Range.exact(prompt),
            assumed,
            Range.exact(teacher),
            f"measured on {len(prompts)} rows of data.train_files; thoughts and answers of the student together are "
            f"assumed to be {timing.RESPONSE_SHARE.low:.0%} to {timing.RESPONSE_SHARE.high:.0%} of their limit",
            is_measured=True,
        )
    return Lengths(
        Range.exact(prompt),
        Range(teacher * 0.75, min(teacher * 1.33, limits[1])),
        Range.exact(teacher),
        f"measured on {len(prompts)} rows of data.train_files; the student's responses are taken to be 0.75 to 1.33 "
        "times as long as the teacher's texts there",
        is_measured=True,
    )
