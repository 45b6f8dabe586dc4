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
"""The curriculum inside a real data loader on real files; figures and keys of rows; checks of rows; stamps of files."""

import math
import os
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.utils.dataset.rl_dataset import collate_fn

from gad_verl.config import CurriculumConfig, GadConfig, TeacherMixConfig
from gad_verl.core.curriculum import Curriculum, CurriculumSettings
from gad_verl.data.curriculum_sampler import CurriculumSampler, row_difficulty, row_keys
from gad_verl.data.dataset import GadDataset
from gad_verl.data.file_stamps import changed_files, file_list, stamp_files
from gad_verl.data.row_checks import TrainingRowChecks
from gad_verl.data.schema import check_file, teacher_names
from gad_verl.errors import GadConfigError, GadDataError

ROWS = 14


def rows(count: int = ROWS, **columns: Any) -> list[dict[str, Any]]:
    """Row i: prompt "question i", a teacher text of 3 (i + 1) characters; columns: a function of i, or a value."""
    return [
        {"prompt": [{"role": "user", "content": f"question {number}"}], "teacher_response": "é a" * (number + 1)}
        | {name: value(number) if callable(value) else value for name, value in columns.items()}
        for number in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> str:
    pd.DataFrame(content).to_parquet(path)
    return str(path)


@pytest.fixture
def make_dataset(tmp_path: Path, tiny_config: DictConfig, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(content: list[dict[str, Any]], name: str = "train.parquet") -> GadDataset:
        path = write(tmp_path / name, content)
        return GadDataset(data_files=[path], tokenizer=tokenizer, config=tiny_config.data)

    return make


# ------------------------------ figures and keys of rows ------------------------------


def test_lengths_are_those_of_the_texts(make_dataset: Any) -> None:
    dataset = make_dataset([*rows(3), *rows(1, teacher_response="ab"), *rows(1, teacher_response="abcd")])
    characters = row_difficulty(dataset, CurriculumConfig(difficulty="teacher_characters"), "teacher_response")
    tokens = row_difficulty(dataset, CurriculumConfig(difficulty="teacher_tokens"), "teacher_response")
    assert characters.tolist() == [3.0, 6.0, 9.0, 2.0, 4.0]
    # One token a byte, two bytes for the accented letter.
    assert tokens.tolist() == [4.0, 8.0, 12.0, 2.0, 4.0]


def test_the_length_of_several_texts_is_their_mean(make_dataset: Any) -> None:
    dataset = make_dataset(rows(2, teacher_response=lambda number: ["ab", "abcd"] if number else ["a"]))
    for difficulty in ("teacher_characters", "teacher_tokens"):
        found = row_difficulty(dataset, CurriculumConfig(difficulty=difficulty), "teacher_response")
        assert found.tolist() == [1.0, 3.0]


def test_a_column_is_the_difficulty(make_dataset: Any) -> None:
    dataset = make_dataset(rows(3, level=lambda number: [5, 1, 3][number]))
    config = CurriculumConfig(difficulty="column", column="level")
    assert row_difficulty(dataset, config, "teacher_response").tolist() == [5.0, 1.0, 3.0]
    assert row_difficulty(dataset, CurriculumConfig(difficulty="margin"), "teacher_response") is None


def test_keys_follow_the_prompts(make_dataset: Any) -> None:
    first = row_keys(make_dataset([*rows(3), *rows(1)]))
    second = row_keys(make_dataset([*reversed(rows(3, teacher_response="other"))], "other.parquet"))
    assert len(set(first)) == 4 and second == [first[2], first[1], first[0]]


# ------------------------------ the loader ------------------------------


def learned(row: int, step: int) -> float:
    return math.sin(3.0 * step + row)


class Reader:
    """Reads batches as verl's trainer does and shows the curriculum a margin of each row after each step."""

    def __init__(self, dataset: GadDataset, batch: int, fetch: int, settings: CurriculumSettings, learns: bool) -> None:
        difficulty = None if learns else np.arange(len(dataset), dtype=float)
        curriculum = Curriculum(settings, difficulty, len(dataset), batch, row_keys(dataset))
        self.sampler = CurriculumSampler(curriculum)
        self.loader = StatefulDataLoader(
            dataset=dataset,
            batch_size=fetch,
            num_workers=0,
            drop_last=True,
            collate_fn=collate_fn,
            sampler=self.sampler,
        )
        self.fetches = batch // fetch
        self.iterator = None

    def fetch(self) -> list[int]:
        try:
            if self.iterator is None:
                self.iterator = iter(self.loader)
            batch = next(self.iterator)
        except StopIteration:
            self.iterator = iter(self.loader)
            batch = next(self.iterator)
        return [int(index) for index in batch["index"]]

    def steps(self, first: int, last: int) -> list[list[int]]:
        result = []
        for step in range(first, last):
            result.append([row for _ in range(self.fetches) for row in self.fetch()])
            self.sampler.curriculum.update(result[-1], [learned(row, step) for row in result[-1]])
        return result


@pytest.fixture
def dataset(make_dataset: Any) -> GadDataset:
    return make_dataset(rows())


@given(
    mode=st.sampled_from(["order", "pool"]),
    learns=st.booleans(),
    cut=st.integers(1, 10),
    sizes=st.sampled_from([(4, 4), (4, 2), (3, 1), (14, 14)]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_resumed_loader_goes_on_exactly(
    dataset: GadDataset, mode: str, learns: bool, cut: int, sizes: tuple[int, int]
) -> None:
    plan = CurriculumSettings(mode=mode, pacing_steps=6, start=0.3)
    expected = Reader(dataset, *sizes, plan, learns).steps(0, 12)
    first = Reader(dataset, *sizes, plan, learns)
    before = first.steps(0, cut)
    state = pickle.dumps(first.loader.state_dict())
    first.steps(cut, cut + 1)
    second = Reader(dataset, *sizes, plan, learns)
    second.loader.load_state_dict(pickle.loads(state))
    assert before + second.steps(cut, 12) == expected


def test_a_pass_has_whole_steps_and_rounds_lose_no_row(dataset: GadDataset) -> None:
    reader = Reader(dataset, 4, 4, CurriculumSettings(mode="pool", start=1.0), learns=False)
    assert len(reader.loader) == ROWS // 4 == sum(1 for _ in reader.loader)
    reader = Reader(dataset, 4, 4, CurriculumSettings(mode="pool", start=1.0), learns=False)
    # 7 steps of 4 rows are two rounds of 14.
    visits = np.bincount([row for step in reader.steps(0, 7) for row in step], minlength=ROWS)
    assert visits.tolist() == [2] * ROWS


def test_a_resume_with_other_rows_begins_a_pass(make_dataset: Any, dataset: GadDataset) -> None:
    plan = CurriculumSettings(mode="order")
    old = Reader(dataset, 4, 4, plan, learns=True)
    old.steps(0, 2)
    grown = make_dataset(rows(ROWS + 6), "grown.parquet")
    new = Reader(grown, 4, 4, plan, learns=True)
    new.loader.load_state_dict(pickle.loads(pickle.dumps(old.loader.state_dict())))
    assert len({row for step in new.steps(2, 7) for row in step}) == ROWS + 6
    assert new.sampler.curriculum.steps == 7


@pytest.mark.parametrize("mode", ["order", "pool"])
@pytest.mark.parametrize(("before", "after"), [(4, 6), (6, 4), (4, 5)])
def test_a_resume_with_another_batch_size_begins_a_pass(
    dataset: GadDataset, mode: str, before: int, after: int
) -> None:
    """What was drawn for steps of the old size would shift every later step against its draw."""
    plan = CurriculumSettings(mode=mode, start=1.0)
    old = Reader(dataset, before, before, plan, learns=True)
    old.steps(0, 2)
    new = Reader(dataset, after, after, plan, learns=True)
    new.loader.load_state_dict(pickle.loads(pickle.dumps(old.loader.state_dict())))
    for step in range(2, 9):
        [rows_of_step] = new.steps(step, step + 1)
        assert sorted(rows_of_step) == sorted(new.sampler.last_draw.rows) and len(set(rows_of_step)) == after


# ------------------------------ checks of rows ------------------------------


def config_of(teacher_mode: str = "all", schedule: Any = None, **curriculum: Any) -> GadConfig:
    config = GadConfig(
        teachers=TeacherMixConfig(mode=teacher_mode, schedule=schedule), curriculum=CurriculumConfig(**curriculum)
    )
    config.validate()
    return config


def check(config: GadConfig, *files: str, last_step: int = 10) -> int:
    checks = TrainingRowChecks(config)
    count = checks.check_files(list(files), "prompt")
    checks.check_together(1, last_step)
    return count


def teacher_rows(*names: Any) -> list[dict[str, Any]]:
    return rows(len(names), teacher=lambda number: names[number], teacher_response=lambda number: ["a", "b"])


def test_names_of_teachers_are_checked(tmp_path: Path) -> None:
    config = config_of("all", {"small": 1, "large": 1})
    good = write(tmp_path / "good.parquet", teacher_rows(["small", "large"], ["large", "large"]))
    assert check(config, good) == 2 and check(config, good, good) == 4
    short = write(tmp_path / "short.parquet", teacher_rows(["small", "large"], ["large"]))
    with pytest.raises(GadDataError, match=r"short.parquet, row 1, column 'teacher': 1 names for 2 teacher texts"):
        check(config, short)
    # Without a schedule nobody asks for names.
    assert check(config_of("all"), short) == 2


def test_a_row_whose_teachers_weigh_nothing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", teacher_rows("small", "large", "other"))
    with pytest.raises(GadDataError, match=r"x.parquet, row 2: .*weigh 0 at step 1 .*'other'"):
        check(config_of("weighted", {"small": 1, "large": 1}), path)
    fading = config_of("weighted", {"small": [[0, 1], [9, 0]], "large": 1, "other": 1})
    assert check(fading, path, last_step=8) == 3
    with pytest.raises(GadDataError, match=r"row 0: .*at step 9"):
        check(fading, path, last_step=9)


def test_a_mixture_of_unknown_teachers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", teacher_rows("small", "large"))
    with pytest.raises(
        GadConfigError, match="'huge', whom no row of the training data has; they have 'large', 'small'"
    ):
        check(config_of("all", {"small": 1, "large": 1, "huge": 1}), path)


def test_columns_that_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", rows(2))
    with pytest.raises(GadDataError, match=r"no column 'teacher'.*gad.teachers.column"):
        check(config_of("all", {"small": 1}), path)
    with pytest.raises(GadDataError, match=r"no column 'level'.*gad.curriculum.column"):
        check(config_of("cycle", mode="pool", difficulty="column", column="level"), path)


def test_a_difficulty_that_is_no_number(tmp_path: Path) -> None:
    config = config_of("cycle", mode="pool", difficulty="column", column="level")
    assert check(config, write(tmp_path / "good.parquet", rows(3, level=lambda number: number / 2))) == 3
    path = write(tmp_path / "bad.parquet", rows(3, level=lambda number: [1.0, 2.0, None][number]))
    with pytest.raises(GadDataError, match=r"bad.parquet, row 2, column 'level'.*finite number"):
        check(config, path)
    assert check(config_of("cycle", difficulty="column", column="level"), path) == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [None, None]),
        ("x", ["x", "x"]),
        (["x", None], ["x", None]),
        (np.array(["x", "y"], dtype=object), ["x", "y"]),
    ],
)
def test_teacher_names(value: Any, expected: list[str | None]) -> None:
    assert teacher_names(value, 2, "here") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "expected a name"),
        (["x"], "1 names for 2"),
        (["x", 3], "got int"),
        (["x", " "], "empty"),
        ({"a": 1}, "dict"),
    ],
)
def test_teacher_names_that_cannot_be(value: Any, message: str) -> None:
    with pytest.raises(GadDataError, match=f"here.*{message}"):
        teacher_names(value, 2, "here")


def test_check_file_as_before(tmp_path: Path) -> None:
    # The optional column is nobody's business unless a setting asks for it.
    assert check_file(write(tmp_path / "x.parquet", rows(2, teacher=3)), "prompt", "teacher_response") == 2


# ------------------------------ settings ------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "some"}, "gad.curriculum.mode"),
        ({"mode": "weights"}, "gad.curriculum.mode"),
        ({"difficulty": "x"}, "gad.curriculum.difficulty"),
        ({"start": 0.0}, "gad.curriculum.start"),
        ({"start": 1.1}, "gad.curriculum.start"),
        ({"pacing_steps": -1}, "gad.curriculum.pacing_steps"),
        ({"pacing_epochs": -1.0}, "gad.curriculum.pacing_epochs"),
        ({"margin_decay": 1.0}, "gad.curriculum.margin_decay"),
        ({"seed": -1}, "gad.curriculum.seed"),
        ({"mode": "pool", "difficulty": "column"}, "needs gad.curriculum.column"),
    ],
)
def test_settings_of_a_curriculum_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GadConfigError, match=message):
        CurriculumConfig(**values).validate("auto")


def test_margins_need_a_discriminator() -> None:
    config = CurriculumConfig(mode="pool", difficulty="margin")
    config.validate("auto")
    with pytest.raises(GadConfigError, match="gad.stage=seqkd"):
        config.validate("seqkd")


def test_pacing_in_steps_or_epochs() -> None:
    assert CurriculumConfig(pacing_epochs=1.5).settings(10).pacing_steps == 15
    assert CurriculumConfig(pacing_epochs=1.5, pacing_steps=0).settings(10).pacing_steps == 0


def test_settings_of_teachers_that_cannot_work() -> None:
    with pytest.raises(GadConfigError, match="gad.teachers.mode"):
        TeacherMixConfig(mode="x").validate()
    with pytest.raises(GadConfigError, match="gad.teachers.column"):
        TeacherMixConfig(column="").validate()
    with pytest.raises(GadConfigError, match="gad.teachers.schedule"):
        TeacherMixConfig(mode="all", schedule={"a": "x"}).validate()


def test_a_schedule_from_the_command_line(compose_config: Any) -> None:
    from gad_verl.config import load_gad_config

    override = "gad.teachers.schedule={gpt-4o-mini: [[0, 1.0], [500, 0.0]], org/gpt-5.1: 0.5}"
    teachers = load_gad_config(compose_config("gad_cpu", "gad.teachers.mode=all", override)).teachers
    assert teachers.schedule == {"gpt-4o-mini": [[0, 1.0], [500, 0.0]], "org/gpt-5.1": 0.5}


# ------------------------------ stamps of files ------------------------------


def test_stamps_see_what_changed(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        Path(path).write_text(path)
    old = stamp_files(paths)
    assert changed_files(old, stamp_files(paths, old)) == []
    Path(paths[0]).write_text("longer than before, and something else")
    Path(paths[1]).touch()
    os.utime(paths[2], ns=(1, 1))
    new = stamp_files(paths, old)
    assert changed_files(old, new) == [paths[0]]
    assert new[2].modified_ns == 1 and new[2].digest == old[2].digest
    assert changed_files(old, old[:2]) == [paths[2]]
    Path(paths[0]).unlink()
    with pytest.raises(FileNotFoundError):
        stamp_files(paths, new)


def test_known_files_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    (old,) = stamp_files([str(path)])
    path.write_text("two")
    os.utime(path, ns=(old.modified_ns, old.modified_ns))
    # Same size, same time: taken for unchanged. A fresh look reads it.
    assert stamp_files([str(path)], [old]) == [old]
    assert stamp_files([str(path)])[0].digest != old.digest


def test_one_file_or_several() -> None:
    assert file_list("a") == ["a"]
    assert file_list(OmegaConf.create(["a", "b"])) == file_list(["a", "b"]) == ["a", "b"]
