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
"""Lengths of the data against the limits."""

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gad_verl.data.file_stamps import file_list
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.doctor.finding import Finding, ok, warning

SAMPLE = 1000
# Above these shares a limit changes what is learned.
_MOST_RESPONSES_CUT, _MOST_PROMPTS_CUT = 0.05, 0.01


def check_lengths(config: Any, teacher_key: str) -> list[Finding]:
    """Share of a sample of prompts and teacher's texts that the limits cut.

    Nothing is found without a tokenizer or with rows that cannot be read or rendered: other checks say so.
    """
    from gad_verl.tools.data.token_stats import count_tokens, run_builder, run_images, summarize

    # Of trajectories their own check says how many are cut: with all that stands between turns.
    if OmegaConf.select(config, "gad.trajectory.enable") or not config.data.train_files:
        return []
    path = Path(file_list(config.data.train_files)[0]).expanduser()
    try:
        if not path.is_file():
            return []
        images = {"open_images": partial(run_images, config), "image_key": config.data.get("image_key") or "images"}
        counted = count_tokens(path, run_builder(config), config.data.prompt_key, teacher_key, SAMPLE, **images)
    except (GadConfigError, GadDataError):
        return []
    # Where thoughts are hidden, answers have a limit of their own.
    own_limit = OmegaConf.select(config, "gad.max_answer_length") is not None
    answers = "gad.max_answer_length" if own_limit else "data.max_response_length"
    found = []
    for name, values, key, most in (
        ("prompts", counted.prompts, "data.max_prompt_length", _MOST_PROMPTS_CUT),
        ("teacher's texts", counted.responses, answers, _MOST_RESPONSES_CUT),
    ):
        limit = OmegaConf.select(config, key)
        summary = summarize(values, limit)
        text = (
            f"mean {summary['mean']:.0f}, longest {int(values.max())} tokens of {len(values)}; {key}={limit} cuts "
            f"{summary['cut_share']:.1%}"
        )
        check = f"length of the {name}"
        if summary["cut_share"] > most:
            remedy = f"{key}={summary['suggested_limit']} would cut {summary['suggested_limit_cuts']:.1%}"
            if name != "prompts":
                remedy += "; or drop long texts (gad.teacher_overlong=drop)"
            found.append(warning(check, text, remedy))
        else:
            found.append(ok(check, text))
    return found
