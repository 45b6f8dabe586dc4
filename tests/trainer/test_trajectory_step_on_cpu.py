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
"""Runs on trajectories: what discriminator and student get of them, by a whole run with stand-ins for workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_run import FakeRun
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from tool_language import TOOLS_FILE, build_tool_folder, build_tool_tokenizer

from gad_verl.core.token_credit import mix_granularities, sum_by_segment
from gad_verl.data.tools import load_tools, schemas_of
from gad_verl.data.trajectories import Trajectory, turn_ends
from gad_verl.errors import GadConfigError
from gad_verl.trainer.encoding import EncodedGroup
from gad_verl.trainer.rollouts import RolloutGroup, Session
from gad_verl.trainer.turn_credit import turn_credit

STEPS, ONLY, WARMUP = 4, 1, 2
PROMPTS, N = 8, 4
TOOLS = {"function_tool_path": str(TOOLS_FILE)}
TOKENIZER = build_tool_tokenizer()
CALL = '<tool_call>{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}</tool_call>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tool_folder(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def config(tiny_config: DictConfig, folder: Path) -> DictConfig:
    """A step of the discriminator alone, one of warmup, two adversarial, on trajectories."""
    with open_dict(tiny_config):
        tiny_config.actor_rollout_ref.model.path = str(folder / "model")
        tiny_config.data.train_files = str(folder / "train.parquet")
        tiny_config.data.val_files = str(folder / "val.parquet")
        tiny_config.data.max_prompt_length, tiny_config.data.max_response_length = 128, 320
        tiny_config.data.shuffle = False
        tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 10
        tiny_config.trainer.val_before_train = False
        tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
        tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = ONLY, WARMUP
        tiny_config.gad.trajectory.enable, tiny_config.gad.teacher_key = True, "teacher_messages"
        tiny_config.actor_rollout_ref.rollout.multi_turn.function_tool_path = TOOLS["function_tool_path"]
    return tiny_config


@pytest.fixture
def start(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    def started(answer: Callable[[int, int, int], Any], **gad: Any) -> FakeRun:
        with open_dict(config):
            for name, value in gad.items():
                OmegaConf.update(config, f"gad.{name.replace('__', '.')}", value)
        return FakeRun(config, monkeypatch, answer, tools=schemas_of(load_tools(TOOLS))).fit()

    return started


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def trajectory(*pieces: tuple[bool, str]) -> tuple[list[int], list[int]]:
    """Ids and mask of what the student said (with EOS) and what came between."""
    found, mask = list[int](), list[int]()
    for own, text in pieces:
        part = [*ids(text), TOKENIZER.eos_token_id] if own else ids(text)
        found, mask = found + part, mask + [int(own)] * len(part)
    return found, mask


def result(text: str) -> str:
    return f"\n<|im_start|>user\n<r>{text}</r><|im_end|>\n<|im_start|>assistant\n"


def numbers(index: int, path: Path) -> tuple[int, int]:
    import pandas as pd

    asked = pd.read_parquet(path)["prompt"][index][0]["content"]
    a, b = asked.split("+")
    return int(a), int(b)


def perfect(index: int, folder: Path) -> tuple[list[int], list[int]]:
    """What the teacher would have said."""
    a, b = numbers(index, folder / "train.parquet")
    return trajectory((True, CALL.format(a=a, b=b)), (False, result(str(a + b))), (True, f"it is {a + b}"))


def mixed(index: int, session: int, step: int, folder: Path) -> tuple[list[int], list[int]]:
    """The teacher's, an answer without a call, a broken call, and two calls one after the other."""
    whole = perfect(index, folder)
    if session == 0:
        return whole
    if session == 1:
        return trajectory((True, f"maybe {index} {step}"))
    if session == 2:
        return trajectory((True, "<tool_call>add</tool_call>"))
    wrong = "Unknown function 'sub'. Available tools: ['add', 'spell']"
    return trajectory(
        (True, '<tool_call>{"name": "sub", "arguments": {}}</tool_call>'),
        (False, result(wrong)),
        (True, CALL.format(a=1, b=1)),
        (False, result("2")),
        (True, f"so {index}"),
    )


def learned(batch: TensorDict) -> list[tuple[list[int], list[int]]]:
    pairs = zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
    return [(row.tolist(), mask.tolist()) for row, mask in pairs if mask.any()]


@pytest.mark.parametrize("score", ["last", "turns"])
def test_a_student_that_does_as_the_teacher_is_read_as_the_teacher(
    start: Callable[..., FakeRun], folder: Path, score: str
) -> None:
    run = start(lambda index, *_: perfect(index, folder), trajectory__score=score)
    groups = [group for batch in run.discriminator.named("update") for group in batch]
    assert len(groups) == STEPS * PROMPTS
    for group in groups:
        assert [*group.student_ids] == [group.teacher_ids[0]] * N
        assert (group.ends is None) == (score == "last")
        if group.ends is not None:
            assert len(set(map(tuple, group.ends))) == 1
            row = group.teacher_ids[0]
            # At the ends of the call and of the answer.
            assert [row[end] for end in group.ends[0]] == [TOKENIZER.eos_token_id] * 2
            assert group.ends[0][-1] == len(row) - 1
    for step in range(1, STEPS + 1):
        found = run.metrics[step]
        assert found["disc/accuracy"] in (0.0, 0.5) and found["gad/turns_ratio"] == 1.0
        assert found["gad/turns"] == 2.0 and found["gad/calls"] == 1.0 and found["gad/invalid_call_rate"] == 0.0
        assert found["gad/length_ratio"] == 1.0 and found["gad/student_finished_rate"] == 1.0


def test_calls_and_turns_are_counted_and_rewards_lie_on_sampled_tokens(
    start: Callable[..., FakeRun], folder: Path
) -> None:
    run = start(lambda *at: mixed(*at, folder))
    for step in range(1, STEPS + 1):
        found = run.metrics[step]
        assert found["gad/turns"] == pytest.approx((2 + 1 + 1 + 3) / 4)
        assert found["gad/teacher_turns"] == 2.0
        # One good call, none, a broken one, an unknown and a good one.
        assert found["gad/calls"] == pytest.approx(4 / 4)
        assert found["gad/invalid_call_rate"] == pytest.approx(2 / 4)
        assert found["gad/student_finished_rate"] == 1.0
    for update in run.policy_rows():
        for row in update:
            places = row["rm_scores"].nonzero().flatten().tolist()
            assert places in ([], [len(row["responses"]) - 1])
            assert all(row["response_mask"][place] for place in places)


def test_the_warmup_teaches_what_the_assistant_said_and_nothing_else(
    start: Callable[..., FakeRun], folder: Path
) -> None:
    run = start(lambda *at: mixed(*at, folder))
    rows = [row for batch in run.student.named("supervised_update") for row in learned(batch)]
    assert len(rows) == (WARMUP - ONLY) * PROMPTS
    for row, mask in rows:
        spoken = TOKENIZER.decode([token for token, own in zip(row, mask, strict=True) if own])
        before, asked = TOKENIZER.decode(row).split("<|im_start|>user\n")[1].split("<|im_end|>")[0], None
        a, b = map(int, before.split("+"))
        asked = CALL.format(a=a, b=b) + "<|im_end|>" + f"it is {a + b}<|im_end|>"
        assert spoken == asked
        assert TOKENIZER.decode(row).startswith("<|im_start|>system\nadd(a,b)spell(text,times)<|im_end|>\n")


def test_seqkd_learns_the_same_rows(start: Callable[..., FakeRun], folder: Path) -> None:
    run = start(lambda *at: mixed(*at, folder), stage="seqkd")
    rows = [row for batch in run.student.named("supervised_update") for row in learned(batch)]
    assert len(rows) == STEPS * PROMPTS
    for row, mask in rows:
        spoken = TOKENIZER.decode([token for token, own in zip(row, mask, strict=True) if own])
        assert spoken.count("<|im_end|>") == 2 and "<r>" not in spoken and "<r>" in TOKENIZER.decode(row)


def test_results_are_hidden_from_the_discriminator_alone(start: Callable[..., FakeRun], folder: Path) -> None:
    run = start(lambda *at: mixed(*at, folder), trajectory__hide_context=True)
    for batch in run.discriminator.named("update"):
        for group in batch:
            for row in [*group.teacher_ids, *group.student_ids]:
                text = TOKENIZER.decode(row)
                assert text.count("<r>(hidden)</r>") == text.count("<r>")
    supervised = [row for batch in run.student.named("supervised_update") for row in learned(batch)]
    assert supervised and not any("(hidden)" in TOKENIZER.decode(row) for row, _ in supervised)


def test_turns_are_rewarded_by_what_they_brought(
    start: Callable[..., FakeRun], config: DictConfig, folder: Path
) -> None:
    config.algorithm.adv_estimator = "gad_process"
    run = start(lambda *at: mixed(*at, folder), reward__phrase_weight=1.0, reward__phrase_unit="turn")
    several = 0
    for update in run.policy_rows():
        for row in update:
            places = set(row["rm_scores"].nonzero().flatten().tolist())
            ends = turn_ends(row["response_mask"].tolist())
            assert places <= set(ends)
            several += len(places) > 1
    assert several
    assert run.metrics[STEPS]["gad/token_credit_missing"] == 0.0


@given(st.data(), st.booleans())
def test_credit_of_turns_sums_to_the_score(data: st.DataObject, mean: bool) -> None:
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4))
    mask = [own for said, given_ in lengths for own in [1] * said + [0] * given_][: -lengths[-1][1]]
    trailing = data.draw(st.integers(0, 2))
    prompt, response = [1, 2, 3], list(range(len(mask) + trailing))
    read = Trajectory(list(range(len(mask))), True, False, mask)
    session = Session(0, response, response, mask=mask + [0] * trailing)
    group = RolloutGroup(0, [], prompt, (), "", (session, None))
    encoded = EncodedGroup(prompt, (read,), (1.0,), (read, None))
    values = torch.randn(len(prompt) + len(mask), dtype=torch.float64)
    credit, none = turn_credit(group, encoded, [values, values[:1]], mean)
    assert none is None and credit is not None
    at_ends = values[[len(prompt) + end for end in turn_ends(mask)]]
    score = at_ends.mean() if mean else at_ends[-1]
    assert credit.of_tokens.sum().item() == pytest.approx((score - values[len(prompt) - 1]).item())
    assert set(credit.of_tokens.nonzero().flatten().tolist()) <= set(turn_ends(mask))
    assert torch.equal(sum_by_segment(credit.of_tokens, credit.ends), credit.of_tokens)
    last = turn_ends(session.mask)[-1]
    mixed_up = mix_granularities(2.0, credit.of_tokens, credit.ends, 1.0, 0.5, 0.0, last)
    assert mixed_up.sum().item() == pytest.approx(2.0 + 0.5 * credit.of_tokens.sum().item())
    assert mixed_up[last + 1 :].abs().sum().item() == 0.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"thinking__mode": "hidden"}, "set the mode to off"),
        ({"teacher_overlong": "drop"}, "cut or error"),
        ({"reward__token_weight": 1.0}, "phrase_unit=turn"),
        ({"reward__phrase_weight": 1.0}, "set it to turn"),
        ({"trajectory__enable": False, "trajectory__score": "turns"}, "gad.trajectory.enable=True alone"),
        ({"trajectory__enable": False, "reward__phrase_unit": "turn"}, "sentence or phrase"),
        ({"trajectory__score": "first"}, "last"),
        ({"stage": "soda"}, "gad.stage=soda"),
    ],
)
def test_what_does_not_go_together_is_refused(config: DictConfig, overrides: dict[str, Any], words: str) -> None:
    from gad_verl.config import load_gad_config

    for name, value in overrides.items():
        OmegaConf.update(config, f"gad.{name.replace('__', '.')}", value, force_add=True)
    with pytest.raises(GadConfigError, match=words):
        load_gad_config(config)


def test_rows_of_any_form_become_the_same_texts(config: DictConfig, folder: Path, tmp_path: Path) -> None:
    import pandas as pd

    from gad_verl.data.dataset import GadDataset

    frame = pd.read_parquet(folder / "train.parquet")[:4]
    frame["teacher_messages"] = [json.loads(text) for text in frame["teacher_messages"]]
    frame.to_parquet(tmp_path / "lists.parquet")
    OmegaConf.set_struct(config, False)
    of_texts = GadDataset(str(folder / "train.parquet"), TOKENIZER, config.data)
    of_lists = GadDataset(str(tmp_path / "lists.parquet"), TOKENIZER, config.data)
    for number in range(4):
        assert of_lists[number]["teacher_messages"] == of_texts[number]["teacher_messages"]
