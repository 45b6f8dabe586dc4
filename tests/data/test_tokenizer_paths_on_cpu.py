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
"""A path that leads to no tokenizer: what is there instead."""

from pathlib import Path

import pytest
import verl
from omegaconf import OmegaConf

from gad_verl.data.tokenizer import NOT_SET, may_be_of_the_hub, why_not


@pytest.mark.parametrize(
    ("path", "may"),
    [("Qwen/Qwen3-8B", True), ("gpt2", True), ("/models/x", False), ("./x", False), ("~/x", False), ("a/b/c", False)],
)
def test_a_path_is_told_from_a_name(path: str, may: bool) -> None:
    assert may_be_of_the_hub(path) is may
    assert ("name of the Hub" in why_not(path, OSError("the library's words"))) is may


def test_the_librarys_words_are_kept_where_they_say_more(tmp_path: Path) -> None:
    assert "no tokenizer.json" in why_not(str(tmp_path), OSError("words"))
    (tmp_path / "tokenizer.json").write_text("broken")
    assert why_not(str(tmp_path), OSError("several\nwords")) == "several words"
    assert "file" in why_not(str(tmp_path / "tokenizer.json"), OSError("words"))


def test_a_model_that_nobody_named_is_told_from_one_that_is_missing() -> None:
    default = Path(verl.__file__).parent / "trainer" / "config" / "model" / "hf_model.yaml"
    assert OmegaConf.load(default).path == NOT_SET
    assert "no model was named" in why_not(NOT_SET, OSError("words"))
    assert "no model was named" not in why_not("~/models/another", OSError("words"))
