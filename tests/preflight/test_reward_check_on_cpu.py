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
"""A reward that verl could not give in the adversarial stage is refused before the run, and no other."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.preflight import check_config, check_data
from gad_verl.preflight.reward_check import check_reward_interface, check_reward_rows

FUNCTION = "reward.custom_reward_function"
CHAT = [{"role": "user", "content": "how many?"}]
TRUTH = {"style": "rule", "ground_truth": "7"}
ASKED = {"gad.reward.task_weight": 1.0}


def changed(config: DictConfig, values: dict[str, Any]) -> DictConfig:
    for key, value in values.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def check(config: DictConfig) -> None:
    gad_config = load_gad_config(config)
    check_reward_interface(config, gad_config)
    check_reward_rows(config, gad_config)


def refused(config: DictConfig, *parts: str) -> None:
    with pytest.raises((GadConfigError, GadDataError)) as raised:
        check(config)
    message = str(raised.value)
    assert "\n" not in message and all(part in message for part in parts), message


def own(folder: Path, text: str) -> str:
    path = folder / "own.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(folder: Path, *sources: Any, name: str = "rows.parquet", **columns: Any) -> dict[str, str]:
    """A training file with one row for each ``data_source``, each of them twice."""
    columns = {"reward_model": TRUTH, **columns}
    found = [{"prompt": CHAT, "teacher_response": "7", "data_source": one, **columns} for one in sources for _ in "ab"]
    path = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(found).to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return {"data.train_files": str(path)}


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "compute_score", "own.py"),
        ("import nothing_of_this_name", "compute_score", "nothing_of_this_name"),
        ("def compute_score(:", "compute_score", "SyntaxError"),
        ("def other(): ...", "compute_score", "compute_score"),
        ("compute_score = 1", "compute_score", "cannot be called"),
        ("def compute_score(): ...", None, f"{FUNCTION}.name"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_named(
    tiny_config: DictConfig, tmp_path: Path, text: str | None, name: str | None, said: str, weight: float
) -> None:
    """verl's reward workers load it whether anybody asks it or not."""
    path = str(tmp_path / "own.py") if text is None else own(tmp_path, text)
    values = {f"{FUNCTION}.path": path, f"{FUNCTION}.name": name, "gad.reward.task_weight": weight}
    refused(changed(tiny_config, values), f"{FUNCTION}.", path, said)


def test_the_check_of_a_run_looks_at_both(tiny_config: DictConfig, tmp_path: Path) -> None:
    changed(tiny_config, ASKED | rows(tmp_path, *["mine"] * 8))
    gad_config = check_config(tiny_config)
    with pytest.raises(GadDataError, match="mine"):
        check_data(tiny_config, gad_config)
    with pytest.raises(GadConfigError, match="nowhere"):
        check_config(changed(tiny_config, {f"{FUNCTION}.path": "/nowhere.py"}))


def test_verls_older_keys_count_too(tiny_config: DictConfig, tmp_path: Path) -> None:
    changed(tiny_config, {"custom_reward_function.path": own(tmp_path, ""), "custom_reward_function.name": "gone"})
    refused(tiny_config, "gone", "own.py")


def test_a_manager_that_verl_does_not_have(tiny_config: DictConfig, tmp_path: Path) -> None:
    refused(changed(tiny_config, {"reward.reward_manager.name": "naiv"}), "reward.reward_manager", "naiv")


def test_a_function_that_is_never_asked_is_said_once(
    tiny_config: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = own(tmp_path, "def compute_score(**_): return 0.0")
    for values, why in (
        ({}, "task_weight=0"),
        ({**ASKED, "gad.reward.group_function": "json:dumps"}, "group_function"),
        ({**ASKED, "gad.reward.group_function": None, "gad.stage": "seqkd"}, "stage=seqkd"),
        ({**ASKED, "gad.stage": "auto"}, None),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="gad_verl"):
            changed(tiny_config, {f"{FUNCTION}.path": path, **values})
            check_reward_interface(tiny_config, load_gad_config(tiny_config))
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == (why is not None) and all(why in one and path in one for one in said)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_rows_that_verl_has_no_reward_for_are_named(tiny_config: DictConfig, tmp_path: Path, name: str) -> None:
    changed(tiny_config, ASKED | rows(tmp_path, "openai/gsm8k", "mine", name=name))
    refused(tiny_config, f"{name}, row 2:", "data_source='mine'", f"{FUNCTION}.path")
    changed(tiny_config, rows(tmp_path, "openai/gsm8k", None, name=name))
    refused(tiny_config, f"{name}, row 2,", "None")
    # Whoever brings a function, or asks none, may call the rows what they like.
    changed(tiny_config, rows(tmp_path, "openai/gsm8k", "mine", name=name))
    check(changed(tiny_config, {"gad.reward.task_weight": 0.0}))
    check(changed(tiny_config, {**ASKED, "gad.stage": "seqkd"}))
    check(changed(tiny_config, {"gad.stage": "warmup"}))
    refused(changed(tiny_config, {"gad.discriminator_updates.passing_only": True}), "mine")
    path = own(tmp_path, "def compute_score(**_): return 0.0")
    check(changed(tiny_config, {"gad.stage": "auto", f"{FUNCTION}.path": path}))


def test_what_verl_knows_passes_and_no_answer_is_run(
    tiny_config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.utils.reward_score import prime_code

    def ran(*_: Any, **__: Any) -> None:
        raise AssertionError("the check runs no code of an answer")

    monkeypatch.setattr(prime_code, "apps_check_correctness", ran)
    known = ["openai/gsm8k", "lighteval/MATH", "math_dapo", "aime_2024", "codecontests", "searchR1_nq"]
    check(changed(tiny_config, ASKED | rows(tmp_path, *known, teacher_response="```python\nraise SystemExit\n```")))


def test_a_package_that_a_reward_wants_is_named(
    tiny_config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "verl.utils.reward_score.geo3k", None)
    refused(changed(tiny_config, ASKED | rows(tmp_path, "hiyouga/geometry3k")), "geometry3k", "wants a package")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize("wrong", [0, 3])
def test_a_ground_truth_is_wanted_of_every_row(tiny_config: DictConfig, tmp_path: Path, name: str, wrong: int) -> None:
    values = rows(tmp_path, "openai/gsm8k", "math_dapo", name=name)
    path = tmp_path / name
    whole = pd.read_parquet(path) if name.endswith("parquet") else pd.read_json(path, lines=True)
    whole.loc[wrong, "reward_model"] = None
    if name.endswith("parquet"):
        whole.to_parquet(path)
    else:
        path.write_text("\n".join(row.dropna().to_json() for _, row in whole.iterrows()), encoding="utf-8")
    refused(changed(tiny_config, ASKED | values), f"{name}, row {wrong}, column 'reward_model'", "ground_truth")


def test_a_ground_truth_is_wanted_of_every_file(tiny_config: DictConfig, tmp_path: Path) -> None:
    changed(tiny_config, ASKED | rows(tmp_path, "openai/gsm8k", reward_model={"style": "rule"}))
    refused(tiny_config, "rows.parquet", "ground_truth")
    check(changed(tiny_config, rows(tmp_path, "openai/gsm8k", reward_model={"ground_truth": ""})))
