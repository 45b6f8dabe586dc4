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
"""docs/extending.md: every block of code does what the page says, in the place where a run would call it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from page_blocks import page_blocks

from gad_verl import cli
from gad_verl.config import GuardianConfig, load_gad_config
from gad_verl.config.custom_code import load_custom
from gad_verl.discriminator.groups import GroupLayout
from gad_verl.discriminator.loss import LossOptions, group_loss
from gad_verl.guardian import Guardian
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.trainer.group_rewards import AnswerGroup

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
# Each block begins with the name of its file.
SOURCES = {
    block.text.partition("\n")[0].removeprefix("# "): block.text
    for block in page_blocks(PAGE)
    if block.language == "python"
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a block of the page to its file."""

    def written(name: str) -> Path:
        path = tmp_path / name
        path.write_text(SOURCES[name], encoding="utf-8")
        return path

    return written


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("gad_trainer", overrides=list(overrides))


def test_every_block_is_tested_here() -> None:
    assert set(SOURCES) == {"losses.py", "rewards.py", "group_rewards.py", "rules.py", "collect.py", "judge.py"}


def test_a_loss_of_the_discriminator(write: Callable[[str], Path]) -> None:
    where = f"{write('losses.py')}:hinge"
    config = load_gad_config(composed(f"gad.discriminator_loss.custom={where}"))
    assert config.discriminator_loss.custom == where
    scores = torch.tensor([2.0, 1.5, 0.0, 4.0], requires_grad=True)
    loss = group_loss(scores, torch.ones(4), GroupLayout(1, 3), None, 0.0, LossOptions(custom=where))
    # Margins 0.5, 2 and -2.
    assert loss.item() == pytest.approx((0.5 + 0.0 + 3.0) / 3)
    loss.backward()
    assert scores.grad.tolist() == pytest.approx([-2 / 3, 1 / 3, 0.0, 1 / 3])


def test_a_task_reward_and_a_penalty(write: Callable[[str], Path]) -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn

    path = write("rewards.py")

    def reward(name: str, answer: str, truth: str) -> float:
        config = composed(
            f"reward.custom_reward_function.path={path}",
            f"reward.custom_reward_function.name={name}",
            "gad.reward.task_weight=1.0",
            "gad.reward.whitening=group",
        )
        assert load_gad_config(config).reward.task_weight == 1.0
        function = get_custom_reward_fn(config)
        return function(data_source="mine", solution_str=answer, ground_truth=truth, extra_info={})

    assert reward("no_lists", "Buy:\n- honey\n- bread\n\nThen rest.", "") == -0.5
    assert reward("no_lists", "", "") == 0.0
    assert reward("right_number", "It makes 42.", "42") == 1.0
    assert reward("right_number", "It makes 41.", "42") == 0.0


def test_a_reward_over_all_answers_to_a_prompt(write: Callable[[str], Path]) -> None:
    where = f"{write('group_rewards.py')}:said_by_few"
    config = load_gad_config(composed(f"gad.reward.group_function={where}", "gad.reward.task_weight=1.0"))
    assert config.reward.group_function == where
    groups = [
        AnswerGroup([{"role": "user", "content": "?"}], ("t",), ("a", "a", None, "b"), {}),
        AnswerGroup([{"role": "user", "content": "?"}], ("t",), ("a", "b", "c", "a"), {}),
    ]
    found = load_custom(where, "gad.reward.group_function")(groups)
    assert found == [[0.5, 0.5, None, 1.0], [0.5, 1.0, 1.0, 0.5]]


def test_a_rule_of_the_guardian(write: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = f"{write('rules.py')}:ShortPrompts"
    config = load_gad_config(composed(f"gad.guardian.custom_rules=[{where}]")).guardian
    assert isinstance(config, GuardianConfig)
    guardian = Guardian(config)
    logging.getLogger("gad_verl.guardian").setLevel(logging.ERROR)
    rows = [(step, {"gad/stage": 2.0, "prompt_length/mean": 3.0}) for step in range(1, 21)]
    [event] = [event for step, metrics in rows for event in guardian.observe(step, metrics)]
    assert event.rule == "short_prompts" and "3.0 tokens" in event.text and "data.prompt_key" in event.text
    # The other command of the page, on a file of metrics.
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "data": metrics}) for step, metrics in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli.main(["guardian", str(file), "--set", f"custom_rules=[{where}]"]) == 0
    assert "short_prompts" in capsys.readouterr().out


def test_a_source_of_teacher_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(SOURCES["collect.py"], {})
    assert [row.question for row in load_rows("mine.jsonl")] == ["What is honey?", "Where is the sea?"]
    # The commands below the block.
    assert cli.main(["data", "normalize", "mine.jsonl", "--output", "clean.parquet"]) == 0
    assert [row.teacher for row in load_rows("clean.parquet")] == [
        "You ask: What is honey?",
        "You ask: Where is the sea?",
    ]


def test_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    import pandas as pd

    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(3)]
    pd.DataFrame({"prompt": prompts, "teacher_response": ["three words here"] * 3}).to_parquet("val.parquet")
    folder = tmp_path / "evaluations" / "step_600"
    folder.mkdir(parents=True)
    shared = {"sample": 0, "finish_reason": "stop", "prompt_tokens": 4, "response_tokens": 5}
    lines = [
        {"prompt": number, "prompt_id": row.prompt_id, "text": text, **shared}
        for number, (row, text) in enumerate(
            zip(load_rows("val.parquet"), ["one", "one two three", "a b c d e f g"], strict=True)
        )
    ]
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    names: dict = {}
    exec(SOURCES["judge.py"], names)
    # Marks 5, 2.5 and 1.25 against 2.5 each: a win, a tie, a loss.
    assert names["marks"][:, 0].tolist() == [5.0, 2.5, 1.25]
    assert names["score"].value == pytest.approx(100 * 8.75 / (8.75 + 7.5))
    assert names["wins"].value == pytest.approx(50.0)
    assert capsys.readouterr().out.startswith("score 53.8 [")
