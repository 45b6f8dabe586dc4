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
"""docs/architecture.md says what is so: its picture, its tables, and the way of one row through a real step."""

import ast
import importlib.util
import re
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
from fake_run import FakeRun
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict

from gad_verl.discriminator import worker_group
from gad_verl.trainer.gad_trainer import GadTrainer

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def script(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


room_picture, house = script("room_picture"), script("house")


def table(name: str) -> list[list[str]]:
    """Rows of the table between two marks of the page, without its header."""
    part = PAGE.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def code(cell: str) -> list[str]:
    """What a cell sets as code."""
    return re.findall(r"`([^`]+)`", cell)


def files(name: str, column: int) -> set[str]:
    """Files of the package that a column of a table names."""
    return {word for row in table(name) for word in code(row[column]) if re.fullmatch(r"gad_verl/.+\.py", word)}


# ------------------------------ the picture ------------------------------


def test_the_picture_is_that_of_the_imports() -> None:
    drawn = (ROOT / house.PICTURE).read_text(encoding="utf-8")
    assert drawn == house.picture(ROOT), "run python docs/house.py picture"
    assert f"]({house.PICTURE.removeprefix('docs/')})" in PAGE


def test_the_table_of_rooms_has_every_room() -> None:
    part = PAGE.split("## The rooms")[1].split("\n## ")[0]
    cells = [line.split(" | ") for line in part.splitlines() if line.startswith("| `")]
    rows = [(code(row[0])[0], code(row[-1])[0]) for row in cells]
    rooms = house.House(ROOT, lambda file: file.room.partition("/")[0]).rooms
    assert sorted(row[0] for row in rows) == rooms
    for room, first in rows:
        assert (ROOT / first).is_file() and first.removeprefix("gad_verl/").startswith((f"{room}/", f"{room}.py"))


@st.composite
def arrows(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Arrows between rooms without a circle: from a letter to a later one."""
    letters = "abcdefgh"
    return sorted(draw(st.sets(st.sampled_from(list(combinations(letters, 2))), min_size=1)))


@given(arrows())
def test_the_arrows_that_are_left_imply_the_others_and_no_less_would(every: list[tuple[str, str]]) -> None:
    left = room_picture.without_implied(every)
    whole = room_picture.reach(every)

    def reach(some: list[tuple[str, str]]) -> dict[str, set[str]]:
        return {room: room_picture.reach(some).get(room, set()) for room in whole}

    assert set(left) <= set(every) and reach(left) == whole
    assert all(reach([other for other in left if other != one]) != whole for one in left)


@given(arrows())
def test_boxes_do_not_overlap_and_arrows_lead_down(every: list[tuple[str, str]]) -> None:
    names = dict(zip("abcdefgh", sorted(room_picture.WORDS), strict=False))
    named = [(names[upper], names[lower]) for upper, lower in every]
    rooms = {room for pair in named for room in pair}
    floors = {room: 1 for room in rooms}
    for _ in rooms:
        for upper, lower in named:
            floors[upper] = max(floors[upper], floors[lower] + 1)
    root = ElementTree.fromstring(room_picture.RoomPicture(floors, named, []).svg())
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        if "id" in group.attrib:
            corner = group.find(f"{SVG}rect").attrib
            boxes[group.attrib["id"]] = [float(corner[name]) for name in ("x", "y", "width", "height")]
    assert set(boxes) == rooms
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for x, y, wide, high in boxes.values():
        assert x >= 0 and y >= 0 and x + wide <= width + 1 and y + high <= height + 1
    for (x, y, wide, high), (other, below, _, _) in combinations(boxes.values(), 2):
        assert abs(x - other) >= wide or abs(y - below) >= high
    titles = [title.text.split(" imports ") for title in root.iter(f"{SVG}title")][1:]
    assert sorted(map(tuple, titles)) == room_picture.without_implied(named)
    assert all(boxes[upper][1] < boxes[lower][1] for upper, lower in titles)


def test_a_room_without_words_is_named() -> None:
    with pytest.raises(ValueError, match="WORDS .* says nothing of attic"):
        room_picture.RoomPicture({"attic": 2, "core": 1}, [("attic", "core")], [])


# ------------------------------ the tables ------------------------------


def verl_names() -> set[str]:
    """Methods and attributes of verl's trainer, from its sources."""
    folder = Path(importlib.util.find_spec("verl").submodule_search_locations[0]) / "trainer" / "ppo" / "v1"
    found: set[str] = set()
    for name in ("trainer_base", "trainer_sync"):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def test_the_table_of_overrides_is_complete() -> None:
    source = (ROOT / "gad_verl" / "trainer" / "gad_trainer.py").read_text(encoding="utf-8")
    [trainer] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    ours = {node.name for node in trainer.body if isinstance(node, ast.FunctionDef)}
    said = [name for row in table("overrides") for name in code(row[0])]
    assert sorted(said) == sorted(ours & verl_names())
    assert len(said) > 30


def definitions() -> set[str]:
    """Classes, functions and methods of the package, as ``name`` and ``Class.method``; modules' constants too."""
    found: set[str] = set()
    for path in (ROOT / "gad_verl").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_what_the_tables_name_is_defined() -> None:
    known = definitions() | verl_names() | {"rm_scores", "latest_checkpointed_iteration.txt", "soda_pairs.jsonl"}
    cells = [cell for name in ("walk", "beside", "where", "saved", "add") for row in table(name) for cell in row]
    named = {word for cell in cells for word in code(cell) if re.fullmatch(r"(?:[A-Z]\w*|[a-z]+_\w+)(?:\.\w+)?", word)}
    assert len(named) > 50
    assert sorted(named - known) == []


def test_files_that_the_tables_name_are_there() -> None:
    part = PAGE.split("## The walk of one row")[1]
    named = {word for word in code(part) if re.match(r"(gad_verl|tests|docs)/", word)}
    assert len(named) > 60
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_who_imports_verl() -> None:
    [said] = [code(row[1]) for row in table("where") if row[0] == "Who imports verl?"]
    found = {file.room for file in house.House(ROOT).files if _imports(file.tree, "verl")}
    assert sorted(said) == sorted(found)


def _imports(tree: ast.AST, package: str) -> bool:
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return any(name.partition(".")[0] == package for name in names)


@pytest.mark.parametrize("row", table("walk"), ids=lambda row: row[0] or row[1])
def test_a_function_of_the_walk_is_in_its_file(row: list[str]) -> None:
    number, [file, *_], functions = row[0], code(row[1]) or ["verl"], code(row[2])
    if number:
        source = (ROOT / file).read_text(encoding="utf-8")
        for function in functions:
            assert re.search(rf"^ *def {function.rpartition('.')[2]}\(", source, re.MULTILINE), f"{file}: {function}"
            assert "." not in function or f"class {function.partition('.')[0]}" in source, f"{file}: {function}"


# ------------------------------ the walk ------------------------------


class Workers:
    """The discriminator's ranks: a score for each row."""

    def __init__(self, **_: Any) -> None:
        self._dispatch_info = {"train": [0]}

    def reset(self) -> None:
        """The model would be built."""

    def begin_stage(self, *_: Any) -> None:
        """The learning rate would change."""

    def update(self, data: TensorDict) -> SimpleNamespace:
        rows = len(data)
        said = {"scores": torch.arange(rows, dtype=torch.float32)}
        said |= {name: torch.zeros(rows) for name in ("loss", "grad_norm", "lr", "busy_s", "skipped_steps")}
        return SimpleNamespace(get=lambda: TensorDict(said, batch_size=[rows]))

    score = update


def entered(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, real_group: bool = True, **options: Any
) -> tuple[set[str], set[str]]:
    """Files of the package that one adversarial step enters: all of them, and those of its reward stage.

    Args:
        real_group: The discriminator's side of the driver is the real one, with ranks that are stand-ins.
        options: Keys of the configuration.
    """
    config.trainer.total_training_steps, config.trainer.total_epochs = 1, 1
    config.trainer.val_before_train, config.trainer.test_freq, config.trainer.save_freq = False, -1, -1
    config.gad.stage = "gad"
    for name, value in options.items():
        OmegaConf.update(config, name, value)
    run = FakeRun(config, monkeypatch)
    run.rollouts.encodes = True
    if real_group:
        monkeypatch.setattr("gad_verl.trainer.gad_trainer.DiscriminatorGroup", worker_group.DiscriminatorGroup)
        monkeypatch.setattr(worker_group, "RayWorkerGroup", Workers)
        monkeypatch.setattr(worker_group, "RayClassWithInitArgs", lambda **_: None)
        monkeypatch.setattr(worker_group.ray, "remote", lambda cls: cls)
    package = str(ROOT / "gad_verl")
    whole: set[str] = set()
    stage: set[str] = set()
    into = [whole]

    def note(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package):
            for found in into:
                found.add(str(Path(name).relative_to(ROOT)))

    step, reward = GadTrainer.step, GadTrainer._compute_reward_colocate

    def traced_step(trainer: GadTrainer, *args: Any) -> Any:
        sys.setprofile(note)
        try:
            return step(trainer, *args)
        finally:
            sys.setprofile(None)

    def traced_reward(trainer: GadTrainer, *args: Any, **kwargs: Any) -> Any:
        into[:] = [whole, stage]
        try:
            return reward(trainer, *args, **kwargs)
        finally:
            into[:] = [whole]

    monkeypatch.setattr(GadTrainer, "step", traced_step)
    monkeypatch.setattr(GadTrainer, "_compute_reward_colocate", traced_reward)
    run.fit()
    return whole, stage


# Files of the table that belong to the data loader, to the agent loops and to the discriminator's processes.
OF_THE_LOADER = {"gad_verl/data/dataset.py"}
OF_THE_LOOPS = {"gad_verl/rollout/encoding_agent.py"}
OF_THE_RANKS = {
    f"gad_verl/discriminator/{name}.py" for name in ("worker", "engine", "model", "loss", "embedding_noise")
}


def test_the_walk_names_every_file_that_a_row_enters(tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stage = entered(tiny_config, monkeypatch)
    said = files("walk", 1) | files("beside", 0)
    assert sorted(stage) == sorted(said - OF_THE_LOADER - OF_THE_LOOPS - OF_THE_RANKS)
    assert whole >= OF_THE_LOADER


def test_the_walk_counts_its_files() -> None:
    rows = [row for row in table("walk") if row[0]]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert f"**{len(rows)} files**" in PAGE and len(files("walk", 1)) == len(rows)


OPTIONS: dict[str, dict[str, Any]] = {
    "gad.curriculum.mode": {"gad.curriculum.mode": "order"},
    "gad.trust.held_out_fraction": {"gad.trust.held_out_fraction": 0.25},
    "gad.reward.score_clip": {"gad.reward.score_clip": 0.1},
    "gad.reward.task_weight": {"gad.reward.task_weight": 1.0},
    "gad.reward.token_weight": {"gad.reward.token_weight": 0.5, "algorithm.adv_estimator": "gad_process"},
    "gad.thinking.mode=hidden": {"gad.thinking.mode": "hidden", "gad.supervised_weight": 0.1},
    "algorithm.adv_estimator=gad_process": {"algorithm.adv_estimator": "gad_process"},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_with_an_option_the_row_also_enters(
    option: str, tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [row] = [row for row in table("options") if code(row[0])[:1] == [option]]
    side_rooms = {word for word in code(row[1])} - files("walk", 1) - files("beside", 0)
    assert side_rooms
    rows = pd.read_parquet(tiny_config.data.train_files)
    # verl's reward function reads it.
    rows["reward_model"] = [{"ground_truth": "x", "style": "rule"}] * len(rows)
    tiny_config.data.train_files = str(tmp_path / "train.parquet")
    rows.to_parquet(tiny_config.data.train_files)
    whole, _ = entered(tiny_config, monkeypatch, real_group=False, **OPTIONS[option])
    assert side_rooms <= whole
