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
"""Whole runs of a student that thinks: the same run without its thoughts is what it is held against."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_run import FakeRun, random_answer
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict

from gad_verl.errors import GadConfigError
from gad_verl.trainer.snapshot import PAIRS_FILE

STEPS, ONLY, WARMUP = 5, 1, 3
PROMPTS, N = 8, 4
LIMIT, LONGEST_ANSWER = 160, 64
SWITCHED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture
def start(tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    """A step of the discriminator alone, two of warmup, two adversarial; with some of ``gad`` set."""
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 10
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
    tiny_config.gad.discriminator_only_steps, tiny_config.gad.warmup_steps = ONLY, WARMUP
    # What the doubles do not compute anew in each run.
    tiny_config.data.shuffle = False

    def started(answer: Callable[[int, int, int], Any] = random_answer, **gad: Any) -> FakeRun:
        with open_dict(tiny_config):
            for name, value in gad.items():
                section, _, key = name.rpartition("__")
                (tiny_config.gad[section] if section else tiny_config.gad)[key] = value
        return FakeRun(tiny_config, monkeypatch, answer).fit()

    return started


def thinks(index: int, session: int, step: int) -> bool:
    return (index + 2 * session + step) % 5 != 0


def thoughts(index: int, session: int, step: int) -> str:
    """Thoughts of some sessions, and none of others."""
    if not thinks(index, session, step):
        return ""
    return f"<think>\n{random_answer(index, session + 100, step)[:40]}\n</think>\n\n"


def thinking_answer(index: int, session: int, step: int) -> str:
    return thoughts(index, session, step) + random_answer(index, session, step)


@pytest.fixture
def hidden(tiny_config: DictConfig, start: Callable[..., FakeRun]) -> Callable[..., FakeRun]:
    def started(answer: Callable[[int, int, int], Any] = thinking_answer, **gad: Any) -> FakeRun:
        tiny_config.data.max_response_length = LIMIT
        # verl's reads data.max_response_length as the rollout's.
        return start(answer, thinking__mode="hidden", max_answer_length=LONGEST_ANSWER, **gad)

    return started


def rows(batch: TensorDict) -> list[tuple[list[int], list[int]]]:
    """Ids and loss mask of each row of a supervised batch that has a loss."""
    pairs = zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
    return [(ids.tolist(), mask.tolist()) for ids, mask in pairs if mask.any()]


def sums(update: list[dict[str, Any]]) -> list[float]:
    return sorted(round(row["rm_scores"].sum().item(), 5) for row in update)


def test_the_run_is_that_of_the_same_student_without_thoughts(
    hidden: Callable[..., FakeRun], start: Callable[..., FakeRun], tiny_config: DictConfig
) -> None:
    bare = start(random_answer)
    groups, metrics, updates = bare.discriminator.named("update"), bare.metrics, bare.policy_rows()
    tiny_config.trainer.default_local_dir += "_hidden"
    run = hidden()
    # The discriminator reads the same rows, and so all that is said of them is the same.
    assert run.discriminator.named("update") == groups
    for step in range(1, STEPS + 1):
        found, expected = run.metrics[step], metrics[step]
        same = [name for name in expected if name.startswith(("disc/", "gad/")) and not name.endswith("_s")]
        assert len(same) > 25
        assert {name: found[name] for name in same} == {name: expected[name] for name in same}
        assert {name for name in found if name.startswith("gad/")} - set(expected) == {
            "gad/thinking_rate",
            "gad/thinking_closed_rate",
            "gad/thinking_tokens",
        }
        assert found["gad/thinking_closed_rate"] == 1.0 and 0.5 < found["gad/thinking_rate"] < 1.0
    # The reward of an answer goes to its thoughts too: one reward, on the last token of all.
    for update, expected_update in zip(run.policy_rows(), updates, strict=True):
        assert sums(update) == sums(expected_update)
        for row in update:
            assert len(row["rm_scores"]) == len(row["responses"])
            assert torch.count_nonzero(row["rm_scores"][:-1]) == 0
        longer = [len(one["responses"]) for one in update], [len(one["responses"]) for one in expected_update]
        assert sum(longer[0]) > sum(longer[1])


def test_the_warmup_teaches_answers_behind_the_students_own_thoughts(hidden: Callable[..., FakeRun]) -> None:
    run = hidden()
    tokenizer = run.trainer.tokenizer
    learned = [row for batch in run.student.named("supervised_update") for row in rows(batch)]
    assert len(learned) == (WARMUP - ONLY) * PROMPTS
    own = {thoughts(index, session, step) for index in range(48) for session in range(N) for step in (2, 3)}
    given = set()
    for ids, mask in learned:
        # The loss lies on the end of the row, which is the teacher's text.
        first = mask.index(1)
        assert mask == [0] * first + [1] * (len(ids) - first)
        text = tokenizer.decode(ids[first:]).removesuffix(tokenizer.eos_token)
        assert text and "<" not in text
        before = tokenizer.decode(ids[:first]).rpartition("<|im_start|>assistant\n")[2]
        assert before in own
        given.add(bool(before))
    # Those of the first rollout: some think and some do not.
    assert given == {True, False}


@pytest.mark.parametrize("stage", ["auto", "seqkd"])
def test_the_teachers_text_behind_an_empty_block(hidden: Callable[..., FakeRun], stage: str) -> None:
    run = hidden(stage=stage, thinking__warmup="empty_block" if stage == "auto" else "own_thoughts")
    tokenizer = run.trainer.tokenizer
    learned = [row for batch in run.student.named("supervised_update") for row in rows(batch)]
    assert len(learned) >= 2 * PROMPTS
    for ids, mask in learned:
        first = mask.index(1)
        assert tokenizer.decode(ids[:first]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert mask == [0] * first + [1] * (len(ids) - first)


def test_preferences_compare_visible_answers_behind_an_empty_block(
    hidden: Callable[..., FakeRun], tiny_config: DictConfig
) -> None:
    tiny_config.data.train_max_samples = 2 * PROMPTS
    run = hidden(stage="soda", warmup_steps=1, soda__snapshot_steps=2)
    pairs = (Path(tiny_config.trainer.default_local_dir) / PAIRS_FILE).read_text(encoding="utf-8")
    assert pairs.count("rejected_finished") == 2 * PROMPTS and "think" not in pairs
    tokenizer = run.trainer.tokenizer
    learned = [row for batch in run.student.named("supervised_update") for row in rows(batch)]
    assert len(learned) == (1 + 2 * 2) * PROMPTS
    for ids, mask in learned:
        first = mask.index(1)
        assert tokenizer.decode(ids[:first]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert "<" not in tokenizer.decode(ids[first:]).removesuffix(tokenizer.eos_token)


def unclosed(index: int, session: int, step: int) -> bool:
    return (index + session) % 3 == 0


def sometimes_unclosed(index: int, session: int, step: int) -> str:
    if not unclosed(index, session, step):
        return thinking_answer(index, session, step)
    # Cut by the limit, or ended within.
    return "<think>\n" + "hm " * (100 if session % 2 else 2)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_who_never_comes_to_an_answer_gets_the_worst_reward_of_the_group(
    hidden: Callable[..., FakeRun], penalty: float
) -> None:
    run = hidden(sometimes_unclosed, thinking__unclosed_penalty=penalty)
    for step, groups in enumerate(run.discriminator.named("update"), 1):
        valid = [one for group in groups for one in group.valid_students()]
        assert 0 < sum(valid) < PROMPTS * N
        metrics = run.metrics[step]
        assert metrics["disc/num_pairs"] == sum(valid)
        # They came: nothing failed.
        assert metrics["gad/failed_rollouts"] == 0
        assert metrics["gad/thinking_closed_rate"] == pytest.approx(sum(valid) / len(valid))
    seen = 0
    for update in run.policy_rows():
        by_prompt: dict[int, list[tuple[bool, float]]] = {}
        for row in update:
            text = run.trainer.tokenizer.decode(row["responses"])
            is_open = "<think>" in text and "</think>" not in text
            by_prompt.setdefault(int(row["index"]), []).append((is_open, row["rm_scores"].sum().item()))
        for rewards in by_prompt.values():
            lost = {round(reward, 5) for is_open, reward in rewards if is_open}
            answered = [reward for is_open, reward in rewards if not is_open]
            if not lost or not answered:
                continue
            seen += 1
            assert len(lost) == 1
            worst = lost.pop()
            assert worst == pytest.approx(min(answered), abs=1e-4) if penalty == 0 else worst < min(answered) - 0.1
    assert seen > PROMPTS


def test_a_step_in_which_nobody_comes_to_an_answer_teaches_nothing(hidden: Callable[..., FakeRun]) -> None:
    run = hidden(lambda *_: "<think>\nhm")
    for update in run.policy_rows():
        assert update and all(torch.count_nonzero(row["rm_scores"]) == 0 for row in update)
    assert all(run.metrics[step]["gad/thinking_closed_rate"] == 0.0 for step in range(1, STEPS + 1))
    # The warmup has thoughts of nothing to offer.
    for batch in run.student.named("supervised_update"):
        assert all("<think>\n\n</think>\n\n" in run.trainer.tokenizer.decode(ids) for ids, _ in rows(batch))


def test_thoughts_that_leave_no_room_for_the_teachers_text_are_not_taken(hidden: Callable[..., FakeRun]) -> None:
    long = "<think>\n" + "x" * 130 + "\n</think>\n\n"

    def answer(index: int, session: int, step: int) -> str:
        return (long if session == 0 else "<think>ok</think>\n\n") + "a dog"

    run = hidden(answer)
    given = set()
    for batch in run.student.named("supervised_update"):
        for ids, mask in rows(batch):
            first = mask.index(1)
            before = run.trainer.tokenizer.decode(ids[:first]).rpartition("assistant\n")[2]
            given.add(before)
            prompt = run.trainer.tokenizer.decode(ids).rpartition("assistant\n")[0] + "assistant\n"
            assert len(ids) - len(run.trainer.tokenizer(prompt, add_special_tokens=False)["input_ids"]) <= LIMIT
    assert "<think>ok</think>\n\n" in given and given <= {"<think>ok</think>\n\n", long}


# ------------------------------ off ------------------------------


def test_off_turns_the_switch_of_the_template(start: Callable[..., FakeRun], tiny_config: DictConfig) -> None:
    tiny_config.actor_rollout_ref.model.custom_chat_template = SWITCHED
    run = start(thinking__mode="off")
    # In one place: the rollout, both models and whoever reads the record follow it.
    assert run.trainer.config.data.apply_chat_template_kwargs == {"enable_thinking": False}
    assert run.trainer.parts.step.encoding.student.chat_template_kwargs == {"enable_thinking": False}
    for groups in run.discriminator.named("update"):
        for group in groups:
            prompt = run.trainer.tokenizer.decode(group.teacher_ids[0][: group.prompt_length])
            assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    assert "gad/thinking_rate" not in run.metrics[1]


def test_off_without_a_switch_is_refused(start: Callable[..., FakeRun], tiny_config: DictConfig) -> None:
    with pytest.raises(GadConfigError, match="gad.thinking.mode=off.*enable_thinking.*hidden"):
        start(thinking__mode="off")
    tiny_config.actor_rollout_ref.model.custom_chat_template = SWITCHED
    tiny_config.data.apply_chat_template_kwargs = {"enable_thinking": True}
    with pytest.raises(GadConfigError, match="data.apply_chat_template_kwargs.enable_thinking=True"):
        start(thinking__mode="off")
