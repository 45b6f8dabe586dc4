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
"""Rows and mean lengths of the data that a run names."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig

from gad_verl.errors import GadDataError
from gad_verl.tools.estimate import measured_data
from gad_verl.tools.estimate.gpus import GPUS
from gad_verl.tools.estimate.run_estimate import estimate
from gad_verl.tools.estimate.run_settings import read_settings


def test_rows_are_counted_in_every_format(tiny_config: DictConfig, tmp_path: Path) -> None:
    assert measured_data.count_rows(tiny_config) == 48
    rows = [{"prompt": [{"role": "user", "content": "a"}], "teacher_response": "b"}] * 5
    lines, whole = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    lines.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    whole.write_text(json.dumps(rows), encoding="utf-8")
    tiny_config.data.train_files = [str(lines), str(whole)]
    assert measured_data.count_rows(tiny_config) == 10
    tiny_config.data.train_max_samples = 7
    assert measured_data.count_rows(tiny_config) == 7
    tiny_config.data.train_files = [str(lines), str(tmp_path / "elsewhere.jsonl")]
    assert measured_data.count_rows(tiny_config) is None
    broken = tmp_path / "rows.parquet"
    broken.write_bytes(b"no parquet")
    tiny_config.data.train_files = str(broken)
    with pytest.raises(GadDataError, match="rows.parquet"):
        measured_data.count_rows(tiny_config)


def test_lengths_are_those_of_the_encoder(tiny_config: DictConfig, tokenizer: object) -> None:
    import pandas as pd

    from gad_verl.data.tokens import SequenceBuilder

    builder = SequenceBuilder(tokenizer, 10_000, 10_000)
    rows = pd.read_parquet(tiny_config.data.train_files)
    teacher = [len(builder.response(text).token_ids) for text in rows["teacher_response"]]
    prompts = [len(builder.prompt(list(messages))) for messages in rows["prompt"]]
    found = measured_data.measured_lengths(tiny_config, "teacher_response")
    assert found.teacher.low == found.teacher.high == pytest.approx(sum(teacher) / 48)
    assert found.prompt.low == pytest.approx(sum(prompts) / 48)
    assert found.response.low < found.teacher.low < found.response.high
    # As the run renders them, not as the tokenizer's own template does.
    tiny_config.actor_rollout_ref.model.custom_chat_template = "{{ messages[-1]['content'] }}{{ more }}"
    tiny_config.data.apply_chat_template_kwargs = {"more": "!" * 5}
    plain = [len(messages[-1]["content"].encode()) + 5 for messages in rows["prompt"]]
    found = measured_data.measured_lengths(tiny_config, "teacher_response")
    assert found.prompt.low == pytest.approx(sum(plain) / 48)
    # The teacher's texts say nothing of how long a student thinks.
    tiny_config.gad.thinking.mode, tiny_config.data.max_response_length = "hidden", 10_000
    thinking = measured_data.measured_lengths(tiny_config, "teacher_response")
    assert thinking.teacher == found.teacher and thinking.response.low > found.response.high
    # What a limit cuts is not computed.
    tiny_config.data.max_prompt_length = 10
    assert measured_data.measured_lengths(tiny_config, "teacher_response").prompt.high == 10
    tiny_config.actor_rollout_ref.model.path = "somewhere/else"
    assert measured_data.measured_lengths(tiny_config, "teacher_response") is None


def test_a_configuration_for_the_cpu_is_said(tiny_config: DictConfig) -> None:
    found = estimate(read_settings(tiny_config), GPUS["a100-80g"], rows=48)
    assert [text for text in found.warnings if "a100-80g" in text]
    assert found.room is None
    # transformers' own rollout holds weights and the cache of its sequences, no share of the GPU.
    assert found.phases[0].parts["rollout: weights and cache"].high < 1e9
