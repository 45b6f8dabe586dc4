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
"""A checkpoint that is as it was written; space for the next one; one writer to a folder."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gad_verl.errors import GadCheckpointError
from gad_verl.trainer.checkpoints import CheckpointFolders
from gad_verl.trainer.lease import Lease
from gad_verl.trainer.whole import COMPLETE_FILE, check_space, damages, size_bytes, write_list

NAMES = st.sampled_from(["actor/model_0.pt", "actor/model_1.pt", "discriminator/a.pt", "data.pt", "gad_data.json"])
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=20), min_size=1)


def written(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_list(folder)
    return folder


@given(contents=CONTENTS, data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_file_that_is_gone_or_of_another_size_is_named(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], data: st.DataObject
) -> None:
    folder = written(tmp_path_factory.mktemp("whole"), contents)
    assert damages(folder) == [] and size_bytes(folder) == sum(map(len, contents.values()))
    # What comes later is no damage; nor is a validation that writes the parts anew, or an upload's marker.
    (folder / "notes.txt").write_text("of the user")
    (folder / "gad_parts.pt").write_text("anew")
    assert damages(folder) == []
    hurt = data.draw(st.sampled_from(sorted(contents)))
    size = len(contents[hurt])
    if data.draw(st.booleans()):
        (folder / hurt).unlink()
        assert damages(folder) == [f"{hurt} is missing"]
    else:
        other = data.draw(st.integers(0, 30).filter(lambda length: length != size))
        (folder / hurt).write_bytes(bytes(other))
        assert damages(folder) == [f"{hurt} has {other} bytes instead of {size}"]


def test_many_damages_are_counted(tmp_path: Path) -> None:
    folder = written(tmp_path, {f"actor/{number}.pt": b"x" for number in range(9)})
    for number in range(7):
        (folder / f"actor/{number}.pt").unlink()
    assert damages(folder) == ["actor/0.pt is missing", "actor/1.pt is missing", "actor/2.pt is missing", "4 more"]


@pytest.mark.parametrize("mark", [None, b"", b"{", b"[]", b'{"files": 3}', b"\xff"])
def test_without_a_list_there_is_nothing_to_compare_with(tmp_path: Path, mark: bytes | None) -> None:
    (tmp_path / "data.pt").write_text("x")
    if mark is not None:
        (tmp_path / COMPLETE_FILE).write_bytes(mark)
    assert damages(tmp_path) == [] and size_bytes(tmp_path) == 0


def test_all_files_are_on_the_disk_before_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, bool]] = []
    opened: dict[int, str] = {}
    real = os.open

    def open_and_note(path: Path, flags: int) -> int:
        handle = real(path, flags)
        opened[handle] = Path(path).name
        return handle

    monkeypatch.setattr("gad_verl.trainer.whole.os.open", open_and_note)
    monkeypatch.setattr(
        "gad_verl.trainer.whole.os.fsync",
        lambda handle: order.append((opened[handle], (tmp_path / COMPLETE_FILE).exists())),
    )
    written(tmp_path, {"actor/a.pt": b"1", "data.pt": b"22"})
    assert order == [("a.pt", False), ("data.pt", False), (COMPLETE_FILE, True)]


@pytest.mark.parametrize(("free", "fits"), [(9, False), (10, True), (10**9, True)])
def test_a_checkpoint_that_would_not_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    last = written(tmp_path / "global_step_1", {"actor/a.pt": bytes(10)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    # Of the first one nothing is known.
    check_space(tmp_path, None, 1)
    if fits:
        check_space(tmp_path, last, 2)
    else:
        with pytest.raises(GadCheckpointError, match=f"step 2 was not begun: {tmp_path} has .*gad.keep_checkpoints"):
            check_space(tmp_path, last, 2)


def folders(root: Path, **settings: float) -> CheckpointFolders:
    return CheckpointFolders(
        OmegaConf.create({"default_local_dir": str(root), "resume_mode": "auto"}), None, **settings
    )


def test_the_run_that_was_started_last_writes(tmp_path: Path) -> None:
    first, second = folders(tmp_path), folders(tmp_path)
    first.begin()
    assert first.begin_save(3) == tmp_path / "global_step_3"
    second.begin()
    with pytest.raises(GadCheckpointError, match=f"{tmp_path} belongs to another run now .process {os.getpid()} on "):
        first.begin_save(4)
    assert second.begin_save(4) == tmp_path / "global_step_4"


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}"])
def test_a_lease_that_cannot_be_read_stops_nobody(tmp_path: Path, content: bytes | None) -> None:
    lease = Lease(tmp_path / "checkpoints")
    lease.take()
    path = tmp_path / "checkpoints" / "writer.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    lease.check()


def test_minutes_since_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("gad_verl.trainer.checkpoints.time", SimpleNamespace(monotonic=lambda: clock.now))
    timed, never = folders(tmp_path, save_minutes=2.0), folders(tmp_path)
    timed.begin()
    for now, due in ((119.0, False), (120.0, True), (500.0, True)):
        clock.now = now
        assert timed.is_time == due and not never.is_time
    (tmp_path / "global_step_7").mkdir()
    timed.finish(7)
    assert not timed.is_time
    clock.now = 620.0
    assert timed.is_time
