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
"""Shards of a checkpoint that may come from elsewhere."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.shards import load_state


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def checkpoint(folder: Path, shard: Any) -> Path:
    (folder / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    file = folder / "model_world_size_1_rank_0.pt"
    if isinstance(shard, bytes):
        file.write_bytes(shard)
    else:
        torch.save(shard, file)
    return folder


def test_tensors_are_read(tmp_path: Path) -> None:
    state = {"one": torch.randn(3, 2), "two": torch.randn(4).bfloat16()}
    found = load_state(checkpoint(tmp_path, state))
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_shards_stay_in_their_files_until_they_are_needed(tmp_path: Path) -> None:
    """All ranks at once would not fit the memory of many machines, nor the replicas of hybrid sharding."""
    folder = checkpoint(tmp_path, {"one": torch.randn(300, 200)})
    (mapped,) = load_state(folder).values()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".pt")]
    (span,) = (words[0] for words in maps if words[-1] == str(folder / "model_world_size_1_rank_0.pt"))
    first, last = (int(address, 16) for address in span.split("-"))
    assert first <= mapped.data_ptr() < last
    # A merge of LoRA writes into such a tensor: the checkpoint stays as it is.
    before = (folder / "model_world_size_1_rank_0.pt").read_bytes()
    mapped.add_(1.0)
    assert (folder / "model_world_size_1_rank_0.pt").read_bytes() == before


def test_files_that_cannot_be_mapped_are_read(tmp_path: Path) -> None:
    """An old format of torch, and some file systems."""
    state = {"one": torch.randn(3, 2)}
    folder = checkpoint(tmp_path, state)
    torch.save(state, folder / "model_world_size_1_rank_0.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_state(folder)["one"], state["one"])


def test_code_in_a_shard_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(GadCheckpointError, match=r"rank_0\.pt is damaged, or holds more than tensors"):
        load_state(checkpoint(tmp_path, {"one": torch.zeros(1), "two": Runs(ran)}))
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_shard_is_one_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(GadCheckpointError, match=r"rank_0\.pt is damaged"):
        load_state(checkpoint(tmp_path, content))


ROOT = Path(__file__).parents[2]
SHIPPED = [path for folder in ("gad_verl", "examples", "recipes") for path in sorted((ROOT / folder).rglob("*.py"))]
# Calls that run what a file says.
UNSAFE = ("pickle.load", "pickle.loads", "joblib.load", "dill.load", "yaml.load", "yaml.unsafe_load", "eval", "exec")


def unsafe_reads(source: str) -> list[str]:
    """Calls of a module that may run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
        is_open = name == "torch.load" and options.get("weights_only") != "True"
        if is_open or name in UNSAFE or options.get("allow_pickle", "False") != "False":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_shipped_runs_code_out_of_a_file(path: Path) -> None:
    assert unsafe_reads(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "pickle.loads(b)",
        "np.load(p, allow_pickle=True)",
        "eval(t)",
    ],
)
def test_such_calls_are_seen(source: str) -> None:
    assert len(unsafe_reads(source)) == 1
