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
"""The kit for a GPU machine without a network: bundles come out as they went in, and call 1 runs, on a CPU."""

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "tools" / "gpu_kit"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_kit_{name}", KIT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bundle = load("bundle")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


@pytest.fixture
def packed(tmp_path: Path) -> Any:
    """Two bundles of several parts each, dealt into two transfers."""
    sources = {}
    for name, size in (("one", 5000), ("two", 9000)):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / f"{name}.bin").write_bytes(os.urandom(size))
        (tmp_path / name / f"{name}.txt").write_text(name, encoding="utf-8")
        sources |= files_of(tmp_path / name)
    out = tmp_path / "bundles"
    manifest = {name: bundle.pack(out, name, tmp_path / name, part_bytes=2000) for name in ("one", "two")}
    transfers = []
    for number, names in enumerate(bundle.deal(manifest, [["one"], ["two"]], limit=10_000)):
        folder = tmp_path / f"kit{number}"
        folder.mkdir()
        for file in names:
            shutil.copy(out / file, folder)
        (folder / bundle.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        transfers.append(folder)
    return sources, transfers


def test_what_is_joined_is_what_was_packed(packed: Any, tmp_path: Path) -> None:
    """A bundle may come over two transfers; what came is not unpacked again."""
    sources, transfers = packed
    target = tmp_path / "site"
    first = bundle.join(target, transfers[:1])
    assert any("waits for two." in line for line in first) and (target / "one.txt").exists()
    # The first folder may be gone by now.
    shutil.rmtree(transfers[0])
    bundle.join(target, transfers[1:])
    assert files_of(target) == sources
    assert all(line.endswith("there already") for line in bundle.join(target, transfers[1:]))


def test_a_part_that_came_damaged_is_named(packed: Any, tmp_path: Path) -> None:
    _, transfers = packed
    part = transfers[0] / "one.00"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="one.00: wrong checksum"):
        bundle.join(tmp_path / "site", transfers)


@given(st.lists(st.lists(st.integers(1, 40), max_size=4), min_size=1, max_size=3), st.integers(30, 80))
def test_transfers_hold_what_their_calls_need(sizes: list[list[int]], limit: int) -> None:
    """Every part once, no transfer above its limit, nothing later than the call that needs it; or it is refused."""
    manifest = {
        str(call): {"parts": [{"file": f"{call}.{number}", "bytes": size} for number, size in enumerate(parts)]}
        for call, parts in enumerate(sizes)
    }
    weights = {part["file"]: part["bytes"] for entry in manifest.values() for part in entry["parts"]}
    try:
        dealt = bundle.deal(manifest, [[name] for name in manifest], limit)
    except ValueError:
        # A refused part of at most 40 finds every transfer up to its call fuller than that.
        needed = [sum(sum(parts) for parts in sizes[: call + 1]) for call in range(len(sizes))]
        assert any(bytes_ > (limit - 40) * (call + 1) for call, bytes_ in enumerate(needed))
        return
    assert sorted(file for files in dealt for file in files) == sorted(weights)
    for number, files in enumerate(dealt):
        assert sum(weights[file] for file in files) <= limit
        assert all(int(file.split(".")[0]) >= number for file in files)


def fat_binary(entries: list[tuple[int, int, bytes]]) -> bytes:
    """A container as nvcc writes it: kind (2 is machine code), architecture, code."""
    body = b""
    for kind, architecture, code in entries:
        header = struct.pack("<HHIQ", kind, 0, 64, len(code)).ljust(28, b"\0") + struct.pack("<I", architecture)
        body += header.ljust(64, b"\0") + code
    return b"\x50\xed\x55\xba" + struct.pack("<HHQ", 1, 16, len(body)) + body


def test_other_architectures_are_taken_out_of_a_library(tmp_path: Path) -> None:
    thinner = load("fatbin_thin")
    first = fat_binary([(2, 80, b"a" * 90), (2, 90, b"b" * 70), (1, 90, b"ptx")])
    second = fat_binary([(2, 80, b"c" * 50), (2, 86, b"d" * 30)])
    library = tmp_path / "library.so"
    library.write_bytes(b"before" + first + b"between" + second + b"after")
    size = library.stat().st_size
    thinner.thin(library, {90})
    data = library.read_bytes()
    # Same addresses: what stands around the containers has not moved.
    assert len(data) == size and data.startswith(b"before") and data.endswith(b"after")
    assert data.index(b"between") == len(b"before") + len(first)
    assert b"b" * 70 in data and b"a" * 90 not in data and b"ptx" not in data
    assert b"d" * 30 in data and b"c" * 50 not in data
    kept = [[entry[:2] for entry in entries] for _, _, entries in thinner.containers(data)]
    assert kept == [[(2, 90)], [(2, 86)]]


def test_scripts_pass_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck is not None, "shellcheck is missing: pip install -e '.[dev]'"
    scripts = sorted(KIT.glob("*.sh"))
    assert scripts
    done = subprocess.run([shellcheck, "-x", *map(str, scripts)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stdout


def test_pins_name_one_version_each_and_the_installed_verl() -> None:
    """What is tested here is what travels."""
    import verl

    prepare = load("prepare")
    for name in ("core", "vllm"):
        lines = prepare.pins(name)
        assert all(line.count("==") == 1 for line in lines)
        names = [line.split("==")[0].lower() for line in lines]
        assert len(names) == len(set(names))
    assert f"verl=={verl.__version__}" in prepare.pins("core")


def test_a_call_without_a_gpu_ends_at_once_unless_it_is_simulated(tmp_path: Path) -> None:
    """A python without CUDA would spend the minutes of a GPU machine on errors."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    environment = {**os.environ, "ROOT": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("SIMULATE", None)
    done = subprocess.run(
        ["bash", str(KIT / "call1.sh")], env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 1 and "SIMULATE=1" in done.stdout and "unpack" not in done.stdout


@pytest.mark.parametrize("asked", ["cuda", None])
def test_tests_for_a_gpu_are_an_error_where_one_is_asked_for_and_missing(asked: str | None) -> None:
    """All of them skipped would be a success."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    environment = {key: value for key, value in os.environ.items() if key != "GAD_TEST_DEVICE"}
    environment |= {} if asked is None else {"GAD_TEST_DEVICE": asked}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT)
    text = done.stdout + done.stderr
    if asked is None:
        assert done.returncode == 0 and " skipped" in text and " passed" not in text
    else:
        assert done.returncode != 0 and "sees no GPU" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.e2e
def test_call_1_runs_on_a_cpu(tmp_path: Path) -> None:
    """The project is packed, unpacked and run as on the day; only what it needs beside it is this environment's."""
    command = [sys.executable, str(KIT / "prepare.py"), "--product-only", "--output", str(tmp_path / "kit")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # From here, as docs/gpu.md has it.
    places = {"ROOT": "root", "OUT": "out"}
    # Torch's threads and the load of a CPU: six times the seconds of a GPU. The rollout's part shows that tests run.
    settings = {"SIMULATE": "1", "SLOW": "6", "TESTS": "rollout"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VERL_", "GAD_TEST"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(tmp_path / "kit" / "kit1" / "call1.sh")],
        env=kept | places | settings | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=1500,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    steps = {json.loads(line)["step"] for line in (tmp_path / "out" / "hf.jsonl").read_text("utf-8").splitlines()}
    assert set(range(1, 9)) <= steps
    assert "all as it should be" in done.stdout
