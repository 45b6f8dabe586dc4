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
"""Which checkpoint is whole, which one is resumed from, which may go."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import Qwen2Config

from gad_verl.core.schedule import StageSchedule
from gad_verl.core.trust import HeldOut
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer import checkpoints
from gad_verl.trainer.checkpoints import GadState, find_resumable, folders_to_remove, missing_parts, read_state
from gad_verl.trainer.whole import write_list

STATE = GadState(
    step=3, stage="warmup", has_discriminator=True, kl_reference=None, discriminator_shape={"hidden_size": 4}
)


def save(root: Path, step: int, complete: bool = True, state: GadState = STATE) -> Path:
    """A checkpoint of empty files."""
    folder = root / f"global_step_{step}"
    state.write(folder)
    for name in ("actor", "discriminator"):
        (folder / name).mkdir()
    for name in ("data.pt", "gad_parts.pt"):
        (folder / name).write_text("", encoding="utf-8")
    if complete:
        write_list(folder)
    return folder


def test_a_checkpoint_without_its_critic_is_incomplete(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, state=replace(STATE, has_critic=True))
    assert missing_parts(folder) == ["critic is missing"]
    (folder / "critic").mkdir()
    assert missing_parts(folder) == []


def test_states_of_before_the_critic_are_read(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    path = folder / checkpoints.STATE_FILE
    old = {name: value for name, value in json.loads(path.read_text()).items() if name != "has_critic"}
    path.write_text(json.dumps(old))
    assert read_state(folder) == STATE


def test_what_is_held_out_is_kept_and_not_known_of_older_states(tmp_path: Path) -> None:
    kept = replace(STATE, held_out=HeldOut(0.25, 3))
    folder = save(tmp_path, 3, state=kept)
    assert read_state(folder) == kept
    path = folder / checkpoints.STATE_FILE
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "held_out"}))
    assert read_state(folder).held_out is None


def test_rank_and_scale_of_lora_belong_to_the_discriminators_shape() -> None:
    hf_config = Qwen2Config(hidden_size=4, num_hidden_layers=2, vocab_size=8)
    plain = checkpoints.discriminator_shape(hf_config, None)
    assert checkpoints.discriminator_shape(hf_config, None, OmegaConf.create({"lora_rank": 0})) == plain
    low = OmegaConf.create({"lora_rank": 4, "lora_alpha": 8})
    assert checkpoints.discriminator_shape(hf_config, None, low) == plain | {"lora_rank": 4, "lora_alpha": 8}


@given(
    step=st.integers(0, 10**9),
    stage=st.text(max_size=8),
    has=st.booleans(),
    reference=st.none() | st.text(max_size=8),
    shape=st.none() | st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_state_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    step: int,
    stage: str,
    has: bool,
    reference: str | None,
    shape: dict | None,
) -> None:
    folder = tmp_path_factory.mktemp("state") / "new"
    state = GadState(step, stage, has, reference, shape)
    state.write(folder)
    assert read_state(folder) == state
    assert [path.name for path in folder.iterdir()] == [checkpoints.STATE_FILE]


def test_the_borders_of_the_stages_are_read_back(tmp_path: Path) -> None:
    state = replace(STATE, schedule=StageSchedule("auto", 9, 4, 2))
    state.write(tmp_path)
    assert read_state(tmp_path) == state


def test_state_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GadCheckpointError, match="not written by gad_verl.*trainer.resume_mode=disable"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"3", b"{}", b'{"step": 1, "other": 2}', b"\xff\x00", b'{"schedule": 3}']
)
def test_state_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / checkpoints.STATE_FILE).write_bytes(content)
    with pytest.raises(GadCheckpointError, match="damaged"):
        read_state(tmp_path)
    assert missing_parts(tmp_path) == ["gad_state.json is missing or damaged"]


@pytest.mark.parametrize("missing", ["actor", "discriminator", "data.pt", "gad_parts.pt"])
def test_missing_parts(tmp_path: Path, missing: str) -> None:
    folder = save(tmp_path, 3)
    assert missing_parts(folder) == []
    (folder / missing).rename(tmp_path / "away")
    assert missing_parts(folder) == [f"{missing} is missing"]


def test_parts_that_a_checkpoint_needs_only_sometimes(tmp_path: Path) -> None:
    seqkd = save(tmp_path, 1, state=GadState(1, "seqkd", False, None, None))
    (seqkd / "discriminator").rmdir()
    assert missing_parts(seqkd) == []
    folder = save(tmp_path, 2, state=GadState(2, "adversarial", True, "kl_reference_step_1", None))
    assert missing_parts(folder) == ["../kl_reference_step_1 is missing"]
    (tmp_path / "kl_reference_step_1").mkdir()
    assert missing_parts(folder) == []


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / "nowhere") is None


def test_the_tracked_one_wins(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        save(tmp_path, step)
    for step in (2, 4, 10):
        checkpoints.write_tracker(tmp_path, step)
        assert find_resumable(tmp_path) == tmp_path / f"global_step_{step}"
    assert not list(tmp_path.glob("*.tmp"))


def test_killed_between_the_tracker_and_the_mark(tmp_path: Path) -> None:
    save(tmp_path, 2)
    save(tmp_path, 4, complete=False)
    checkpoints.write_tracker(tmp_path, 4)
    assert find_resumable(tmp_path) == tmp_path / "global_step_4"


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"12 13"])
def test_damaged_tracker_takes_the_newest_complete(tmp_path: Path, content: bytes) -> None:
    for step in (2, 10, 9):
        save(tmp_path, step)
    save(tmp_path, 11, complete=False)
    (tmp_path / checkpoints.TRACKER_FILE).write_bytes(content)
    # By number, not by name: 10 is newer than 9.
    assert find_resumable(tmp_path) == tmp_path / "global_step_10"


@pytest.mark.parametrize("missing", ["actor", "discriminator", "data.pt", checkpoints.STATE_FILE])
def test_incomplete_folder_falls_back(tmp_path: Path, missing: str) -> None:
    for step in (2, 4, 6):
        save(tmp_path, step)
    checkpoints.write_tracker(tmp_path, 6)
    (tmp_path / "global_step_6" / missing).rename(tmp_path / "away")
    assert find_resumable(tmp_path) == tmp_path / "global_step_4"
    # One that lacks a part itself does not serve, whatever its mark says.
    (tmp_path / "global_step_4" / "actor").rmdir()
    assert find_resumable(tmp_path) == tmp_path / "global_step_2"
    (tmp_path / "global_step_2" / "actor").rmdir()
    with pytest.raises(GadCheckpointError, match=f"global_step_6.*{missing}.*trainer.resume_mode=disable"):
        find_resumable(tmp_path)


def test_tracked_folder_that_is_gone(tmp_path: Path) -> None:
    checkpoints.write_tracker(tmp_path, 6)
    with pytest.raises(GadCheckpointError, match="global_step_6"):
        find_resumable(tmp_path)
    save(tmp_path, 2)
    assert find_resumable(tmp_path) == tmp_path / "global_step_2"


def test_folders_in_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        save(tmp_path, step)
    for name in ("global_step_x", "global_step_", "kl_reference_step_5", "global_step_7.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "global_step_50").write_text("a file", encoding="utf-8")
    assert [path.name for path in checkpoints.step_folders(tmp_path)] == [f"global_step_{n}" for n in (3, 20, 100)]
    assert checkpoints.step_folders(tmp_path / "nowhere") == []


def test_a_copy_that_the_user_keeps_is_left_alone(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "global_step_1").rename(tmp_path / "best_global_step_1")
    assert folders_to_remove(tmp_path, 1, 3) == [tmp_path / "global_step_2"]
    assert tmp_path / "best_global_step_1" not in checkpoints.step_folders(tmp_path)


@given(
    steps=st.sets(st.integers(1, 30), min_size=1, max_size=8),
    incomplete=st.sets(st.integers(1, 30), max_size=4),
    keep=st.none() | st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_rotation(
    tmp_path_factory: pytest.TempPathFactory,
    steps: set[int],
    incomplete: set[int],
    keep: int | None,
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("rotation")
    for step in steps:
        save(root, step, complete=step not in incomplete)
    current = data.draw(st.sampled_from(sorted(steps)))
    removed = [int(path.name.rsplit("_", 1)[1]) for path in folders_to_remove(root, keep, current)]
    if keep is None:
        assert removed == []
        return
    complete = sorted(step for step in steps - incomplete if step <= current)
    # The oldest go, the newest `keep` complete ones stay; never the current one, a newer or an unfinished one.
    assert removed == complete[: max(0, len(complete) - keep)]
    assert current not in removed and not set(removed) & incomplete


def test_state_file_is_readable_json(tmp_path: Path) -> None:
    STATE.write(tmp_path)
    assert json.loads((tmp_path / "gad_state.json").read_text(encoding="utf-8"))["stage"] == "warmup"
