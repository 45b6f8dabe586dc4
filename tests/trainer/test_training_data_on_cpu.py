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
"""The training data of a run on verl's own set-up of data: curriculum, files that change, checkpoints; no worker."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from gad_verl.config import load_gad_config
from gad_verl.core import Phase
from gad_verl.core.schedule import stage_of
from gad_verl.core.teacher_mix import WeightedText
from gad_verl.data.curriculum_sampler import CurriculumSampler
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.errors import GadCheckpointError
from gad_verl.preflight import check_data, check_schedule
from gad_verl.trainer.data_state import DATA_FILE, read_data_state
from gad_verl.trainer.gad_trainer import GadTrainer
from gad_verl.trainer.rollouts import RolloutGroup, StepRollouts
from gad_verl.trainer.scored import ScoredStep, StepInfo
from gad_verl.trainer.training_data import TrainingData


class Trainer(GadTrainer):
    """The trainer without workers: verl's set-up of the data and its own parts are real."""

    verl_mode = "sync"
    parameter_sync_step = 1

    def __init__(self, config: DictConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer, self.processor, self.global_steps = config, tokenizer, None, 0
        self.gad_config = load_gad_config(config)
        self.data = TrainingData(config, self.gad_config, self.gad_config.teachers.build(), lambda stage: None)
        self._init_dataloader()
        self._load()

    @property
    def folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir)

    def save(self) -> None:
        """As verl and gad_verl do it, as far as the data go."""
        folder = self.folder / f"global_step_{self.global_steps}"
        for part in ("actor", "discriminator"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.data.save(folder)
        torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
        (folder / "gad_parts.pt").touch()
        stage = stage_of(self.schedule.phase(self.global_steps))
        state = {"step": self.global_steps, "stage": stage, "has_discriminator": True, "kl_reference": None}
        (folder / "gad_state.json").write_text(json.dumps({**state, "discriminator_shape": None}))
        (self.folder / "latest_checkpointed_iteration.txt").write_text(str(self.global_steps))

    def _load(self) -> None:
        tracker = self.folder / "latest_checkpointed_iteration.txt"
        if tracker.exists():
            self.global_steps = int(tracker.read_text())
            path = self.folder / f"global_step_{self.global_steps}" / "data.pt"
            self.train_dataloader.load_state_dict(torch.load(path, weights_only=False))
        self.data.resume(self.global_steps)

    def take_data_events(self) -> list[dict[str, Any]]:
        return self.data.take_events()

    def data_metrics(self) -> dict[str, float]:
        return self.data.metrics()

    def run(self, steps: int) -> list[list[str]]:
        """The prompts of the next steps. Each row gets a margin that depends on it and the step."""
        seen = []
        for _ in range(steps):
            self.global_steps += 1
            batch = self._next_train_batch()
            prompts = [messages[0]["content"] for messages in batch["raw_prompt"]]
            scores = torch.tensor([float((hash_of(prompt) * self.global_steps) % 7) for prompt in prompts])
            self.observe(list(zip(map(int, batch["index"]), map(list, batch["raw_prompt"]), strict=True)), scores)
            seen.append(prompts)
        return seen

    def observe(self, asked: list[tuple[int, list[dict]]], scores: torch.Tensor) -> None:
        """Prompts with their numbers, by the scores of their teachers."""
        output = DiscriminatorOutput(scores, torch.zeros(len(asked), 2), torch.ones(len(asked), 2), {})
        teachers = (WeightedText("a", 1.0),)
        groups = [RolloutGroup(row, messages, [1], teachers, "a", ()) for row, messages in asked]
        info = StepInfo(self.global_steps, Phase.ADVERSARIAL, visit=0, num_sessions=2)
        self.data.observe(ScoredStep(info, StepRollouts("train", [], groups), [], output))


# verl's trainer is abstract; the hooks of its modes are not called here.
Trainer.__abstractmethods__ = frozenset()


def hash_of(prompt: str) -> int:
    return sum(prompt.encode())


def rows(count: int, prefix: str = "q", answer: str = "a") -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"{prefix}{number}"}],
            "teacher_response": answer * (number % 5 + 1),
            "data_source": "t",
        }
        for number in range(count)
    ]


class Files:
    """The training file of a run. Every writing has a time of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "train.parquet"
        self._time = 10**18

    def write(self, content: list[dict[str, Any]] | bytes) -> None:
        if isinstance(content, bytes):
            self.path.write_bytes(content)
        else:
            pd.DataFrame(content).to_parquet(self.path)
        self._time += 10**9
        os.utime(self.path, ns=(self._time, self._time))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = Files(tmp_path)
    files.write(rows(12))
    return files


@pytest.fixture
def config(tiny_config: DictConfig, files: Files) -> DictConfig:
    tiny_config.data.train_files = str(files.path)
    tiny_config.data.train_batch_size = 4
    tiny_config.data.seed = 5
    tiny_config.gad.warmup_steps = 0
    tiny_config.gad.reload_data = "epoch"
    tiny_config.trainer.total_epochs = 4
    return tiny_config


def curriculum(config: DictConfig, **values: Any) -> DictConfig:
    for key, value in {"mode": "pool", "difficulty": "margin", "start": 0.5, "pacing_steps": 6, **values}.items():
        config.gad.curriculum[key] = value
    return config


def sorted_all(steps: list[list[str]]) -> list[str]:
    return sorted(prompt for step in steps for prompt in step)


def prompts(count: int, prefix: str = "q") -> list[str]:
    return sorted(f"{prefix}{number}" for number in range(count))


def rules(trainer: Trainer) -> list[tuple[int, str, str, str]]:
    return [(e["step"], e["source"], e["rule"], e["action"]) for e in trainer.take_data_events()]


# ------------------------------ off ------------------------------


def test_off_is_verls_own_way(config: DictConfig, tokenizer: Any) -> None:
    config.gad.reload_data = "never"

    class Plain(PPOTrainer):
        trainer_mode, parameter_sync_step = "sync", 1

        def __init__(self) -> None:
            self.config, self.global_steps = copy.deepcopy(config), 0
            self.tokenizer, self.processor = tokenizer, None
            self._init_dataloader()

    Plain.__abstractmethods__ = frozenset()
    plain, ours = Plain(), Trainer(config, tokenizer)
    for _ in range(7):
        plain.global_steps += 1
        expected = [messages[0]["content"] for messages in plain._next_train_batch()["raw_prompt"]]
        assert ours.run(1) == [expected]
    assert ours.data_metrics() == {} and ours.take_data_events() == []
    assert ours.train_dataloader.num_workers == plain.train_dataloader.num_workers
    ours.save()
    saved = read_data_state(ours.folder / "global_step_7")
    assert (saved.sampler, saved.steps_per_epoch, saved.rows, saved.batch_size) == ("verl", 3, 12, 4)
    assert plain.total_training_steps == ours.total_training_steps == 12


# ------------------------------ files that change ------------------------------


def test_a_file_that_grows_is_taken_over_after_the_pass(config: DictConfig, tokenizer: Any, files: Files) -> None:
    trainer = Trainer(config, tokenizer)
    first = trainer.run(2)
    files.write(rows(20))
    assert sorted_all(first + trainer.run(1)) == prompts(12)
    assert trainer.take_data_events() == [] and trainer.data_metrics()["gad/data_rows"] == 12.0
    assert sorted_all(trainer.run(5)) == prompts(20)
    (event,) = trainer.take_data_events()
    assert (event["step"], event["source"], event["rule"], event["action"]) == (4, "data", "reloaded", "adapt")
    assert event["figures"] == {"rows": 20.0, "rows_before": 12.0, "reloads": 1.0}
    assert "20 rows instead of 12" in event["text"] and "keeps its 12 steps" in event["text"]
    assert (trainer.total_training_steps, trainer.steps_per_epoch) == (12, 3)
    trainer.run(1)
    assert trainer.data_metrics() == {"gad/data_rows": 20.0, "gad/data_passes": 2.0, "gad/data_reloads": 1.0}


def test_a_file_that_is_replaced(config: DictConfig, tokenizer: Any, files: Files) -> None:
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    files.write(rows(8, prefix="new", answer="b"))
    assert sorted_all(trainer.run(2)) == prompts(8, "new")
    assert trainer.train_dataset[0]["teacher_response"] == "b"
    assert sorted_all(trainer.run(2)) == prompts(8, "new")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1 half a file", "no readable parquet file"),
        (rows(3), "fewer than data.train_batch_size=4"),
        ([*rows(5), {**rows(1)[0], "teacher_response": " "}], "row 5"),
        ([{"prompt": "text", "teacher_response": "a"}] * 8, "row 0"),
    ],
    ids=["half written", "too few", "empty text", "no chat"],
)
def test_a_bad_file_never_ends_a_run(config: DictConfig, tokenizer: Any, files: Files, content: Any, said: str) -> None:
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    files.write(content)
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert (event["rule"], event["action"]) == ("kept", "warn") and said in event["text"]
    # Said once, and taken over once it is good.
    assert sorted_all(trainer.run(3)) == prompts(12) and trainer.take_data_events() == []
    files.write(rows(16, prefix="good"))
    assert sorted_all(trainer.run(4)) == prompts(16, "good")
    assert [event["rule"] for event in trainer.take_data_events()] == ["reloaded"]


def test_a_changed_file_is_read_and_rendered_as_before_a_run(config: DictConfig, tokenizer: Any, files: Files) -> None:
    """Prompts that the template refuses do not get in."""
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    config.actor_rollout_ref.model.custom_chat_template = strict + tokenizer.chat_template
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    refused = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    files.write([*rows(9), {**rows(1)[0], "prompt": refused}])
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert event["rule"] == "kept" and "row 9" in event["text"] and "System role not supported" in event["text"]


def test_a_changed_file_whose_texts_become_dates(config: DictConfig, tokenizer: Any, files: Files) -> None:
    def as_json(content: list[dict[str, Any]]) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in content).encode()

    files.path = files.path.with_name("dates.jsonl")
    files.write(as_json(rows(12)))
    config.data.train_files = str(files.path)
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    dates = [{**row, "teacher_response": f"2024-05-{1 + day:02}"} for day, row in enumerate(rows(12))]
    files.write(as_json(dates))
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert event["rule"] == "kept" and "datetime" in event["text"]


def test_a_file_that_is_gone_or_only_touched(config: DictConfig, tokenizer: Any, files: Files) -> None:
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    content = files.path.read_bytes()
    files.path.unlink()
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert event["rule"] == "kept" and str(files.path) in event["text"]
    files.write(content)
    assert sorted_all(trainer.run(3)) == prompts(12)
    assert trainer.take_data_events() == [] and trainer.data_metrics()["gad/data_reloads"] == 0.0


def test_other_content_of_the_same_time_is_not_trusted(config: DictConfig, tokenizer: Any, files: Files) -> None:
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    before = files.path.stat().st_mtime_ns
    files.write(rows(20))
    os.utime(files.path, ns=(before, before))
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert event["rule"] == "kept" and "touch it" in event["text"]


def test_an_error_nobody_thought_of(
    config: DictConfig, tokenizer: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    files.write(rows(20))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr("gad_verl.trainer.training_data.create_rl_dataset", broken)
    assert sorted_all(trainer.run(3)) == prompts(12)
    (event,) = trainer.take_data_events()
    assert "RuntimeError: no space left" in event["text"]


def test_the_shuffle_goes_on(config: DictConfig, tokenizer: Any, files: Files) -> None:
    trainer = Trainer(config, tokenizer)
    first = trainer.run(3)
    files.write(rows(12, answer="b"))
    assert trainer.run(3) != first and [rule for *_, rule, _ in rules(trainer)] == ["reloaded"]


def test_never_means_never(config: DictConfig, tokenizer: Any, files: Files) -> None:
    config.gad.reload_data = "never"
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    files.write(rows(20))
    assert sorted_all(trainer.run(3)) == prompts(12) and trainer.take_data_events() == []


# ------------------------------ curriculum ------------------------------


def test_a_curriculum_draws_the_rows(config: DictConfig, tokenizer: Any, files: Files) -> None:
    config.gad.reload_data = "never"
    config.data.dataloader_num_workers = 2
    curriculum(config, difficulty="teacher_characters", start=0.4, pacing_steps=4)
    trainer = Trainer(config, tokenizer)
    assert isinstance(trainer.train_dataloader.sampler, CurriculumSampler)
    assert trainer.train_dataloader.num_workers == 0
    # 5 of 12 rows in the first step: three texts of one character, two of the three of two.
    short = {prompt for prompt in prompts(12) if int(prompt[1:]) % 5 <= 1}
    assert {prompt for step in trainer.run(1) for prompt in step} <= short
    assert trainer.data_metrics()["gad/curriculum_fraction"] == pytest.approx(0.4)
    trainer.run(9)
    metrics = trainer.data_metrics()
    assert metrics["gad/curriculum_fraction"] == metrics["gad/curriculum_seen"] == 1.0
    events = trainer.take_data_events()
    assert [(event["step"], event["source"], event["rule"]) for event in events] == [
        (step, "curriculum", "fraction") for step in range(1, 6)
    ]
    assert [event["figures"]["fraction"] for event in events] == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0])
    assert "40% of the rows by difficulty are available (5 of 12)" in events[0]["text"]


def test_margins_reach_the_curriculum(config: DictConfig, tokenizer: Any) -> None:
    trainer = Trainer(curriculum(config, mode="order"), tokenizer)
    trainer.run(3)
    assert trainer.data_metrics()["gad/curriculum_seen"] == 1.0
    # Known when the rows were drawn: those of the two steps before.
    assert trainer.data_metrics()["gad/curriculum_known"] == pytest.approx(8 / 12)
    trainer.run(1)
    assert trainer.data_metrics()["gad/curriculum_known"] == 1.0


@pytest.mark.parametrize("learns", [True, False])
def test_learned_margins_survive_a_reload(config: DictConfig, tokenizer: Any, files: Files, learns: bool) -> None:
    curriculum(config, mode="order", difficulty="margin" if learns else "teacher_tokens")
    trainer = Trainer(config, tokenizer)
    trainer.run(3)
    files.write(list(reversed(rows(16))))
    trainer.run(1)
    assert trainer.data_metrics()["gad/curriculum_known"] == (0.75 if learns else 1.0)
    assert trainer.train_dataloader.sampler.curriculum.steps == 4


def test_prompts_on_their_way_at_a_reload_teach_the_row_that_they_are_now(
    config: DictConfig, tokenizer: Any, files: Files
) -> None:
    """An asynchronous step brings them with the numbers that they had in the files before."""
    trainer = Trainer(curriculum(config, mode="order", difficulty="margin"), tokenizer)
    trainer.run(3)
    before = rows(12)
    files.write([*reversed(before[6:]), *rows(16)[12:]])
    trainer.run(1)
    was = trainer.train_dataloader.sampler.curriculum.state_dict()["difficulty"]
    assert len(was) == 10
    # The first is gone, the last had a number that no row has now, and parts are how a chat with images comes.
    numbers = [2, 7, 11]
    chats = [[dict(message) for message in before[number]["prompt"]] for number in numbers]
    chats[2][0]["content"] = [{"type": "text", "text": chats[2][0]["content"]}]
    trainer.observe(list(zip(numbers, chats, strict=True)), torch.tensor([50.0, 60.0, 70.0]))
    now = trainer.train_dataloader.sampler.curriculum.state_dict()["difficulty"]
    assert [row for row in range(10) if now[row] != was[row] and now[row] > was[row]] == [0, 4]


# ------------------------------ teachers ------------------------------


def test_turning_points_of_the_mixture_are_recorded(config: DictConfig, tokenizer: Any) -> None:
    config.gad.teachers.mode = "all"
    config.gad.teachers.schedule = {"small": [[0, 1.0], [4, 0.0]], "large": [[2, 0.0], [4, 1.0]]}
    trainer = Trainer(config, tokenizer)
    trainer.run(6)
    events = trainer.take_data_events()
    assert [(event["step"], event["source"], event["rule"]) for event in events] == [
        (step, "teacher", "mixture") for step in (1, 2, 4)
    ]
    assert events[1]["figures"] == {"large": 0.0, "small": 1.0} and "large 1, small 0" in events[2]["text"]


# ------------------------------ resume ------------------------------


@pytest.mark.parametrize("cut", [1, 3, 5, 8])
@pytest.mark.parametrize("with_curriculum", [False, True])
def test_exact_resume(config: DictConfig, tokenizer: Any, files: Files, cut: int, with_curriculum: bool) -> None:
    if with_curriculum:
        curriculum(config)

    def start(folder: str) -> Trainer:
        files.write(rows(12))
        own = copy.deepcopy(config)
        own.trainer.default_local_dir = str(files.path.parent / folder)
        return Trainer(own, tokenizer)

    def change(trainer: Trainer, first: int, last: int) -> tuple[list[list[str]], list[dict[str, float]]]:
        seen, metrics = [], []
        for step in range(first, last):
            if step == 2:
                files.write(rows(17))
            seen += trainer.run(1)
            metrics.append(trainer.data_metrics())
        return seen, metrics

    expected = change(start("whole"), 0, 11)
    first = start("cut")
    before = change(first, 0, cut)
    first.save()
    change(first, cut, cut + 1)  # lost
    second = Trainer(first.config, tokenizer)
    assert second.global_steps == cut
    after = change(second, cut, 11)
    if cut == 3:
        # The file had changed, and this pass had not begun: the resumed run notices at once.
        assert "changed" in [rule for *_, rule, _ in rules(second)]
        return
    assert (before[0] + after[0], before[1] + after[1]) == expected


def test_a_resumed_run_says_that_a_file_has_changed(config: DictConfig, tokenizer: Any, files: Files) -> None:
    first = Trainer(config, tokenizer)
    first.run(2)
    first.save()
    saved = read_data_state(first.folder / "global_step_2")
    assert (saved.sampler, saved.steps_per_epoch, saved.rows, saved.files[0].path) == ("verl", 3, 12, str(files.path))
    files.write(rows(40))
    second = Trainer(config, tokenizer)
    (event,) = second.take_data_events()
    assert (event["step"], event["rule"], event["action"]) == (2, "changed", "warn")
    assert str(files.path) in event["text"] and "40 rows instead of 12" in event["text"]
    # The run is as long as it was, and its stages lie where they lay.
    assert (second.total_training_steps, second.steps_per_epoch) == (12, 3)
    assert config.trainer.total_training_steps is None
    assert config.actor_rollout_ref.actor.optim.total_training_steps == 12
    assert sorted_all(second.run(10)) == prompts(40)


def test_the_check_before_a_resumed_run_knows_its_length(config: DictConfig, tokenizer: Any, files: Files) -> None:
    config.gad.warmup_steps, config.gad.stage = 9, "auto"
    first = Trainer(config, tokenizer)
    first.run(3)
    first.save()
    # 8 steps by the new file: the warmup would not fit.
    files.write(rows(8))
    gad_config = load_gad_config(config)
    check_schedule(config, gad_config, check_data(config, gad_config))
    config.trainer.resume_mode = "disable"
    with pytest.raises(ValueError, match="gad.warmup_steps"):
        check_schedule(config, gad_config, check_data(config, gad_config))


@pytest.mark.parametrize("before", [True, False])
def test_switching_a_curriculum_on_or_off(config: DictConfig, tokenizer: Any, before: bool) -> None:
    config.gad.reload_data = "never"
    curriculum(config, mode="pool" if before else "none")
    first = Trainer(config, tokenizer)
    first.run(4)
    first.save()
    second = Trainer(curriculum(config, mode="none" if before else "pool"), tokenizer)
    assert rules(second) == [(4, "curriculum", "switched", "info")]
    assert len(sorted_all(second.run(6))) == 24
    if not before:
        assert second.train_dataloader.sampler.curriculum.steps == 10
        assert second.data_metrics()["gad/curriculum_fraction"] == 1.0


def test_a_damaged_state_is_an_error(config: DictConfig, tokenizer: Any) -> None:
    first = Trainer(config, tokenizer)
    first.run(1)
    first.save()
    (first.folder / "global_step_1" / DATA_FILE).write_text("{")
    with pytest.raises(GadCheckpointError, match=f"{DATA_FILE} is damaged"):
        Trainer(config, tokenizer)
