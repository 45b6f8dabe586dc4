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

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.weights import load_state


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


def test_code_in_a_shard_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(GadCheckpointError, match=r"rank_0\.pt is damaged, or holds more than tensors"):
        load_state(checkpoint(tmp_path, {"one": torch.zeros(1), "two": Runs(ran)}))
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_shard_is_one_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(GadCheckpointError, match=r"rank_0\.pt is damaged"):
        load_state(checkpoint(tmp_path, content))
