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
"""What the nodes of a cluster see, judged; and this process as a node."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from gad_verl.errors import GadClusterError
from gad_verl.tools.doctor.cluster import paths_of
from gad_verl.tools.doctor.finding import ERROR, OK, WARNING, Finding
from gad_verl.tools.doctor.nodes import Seen, ask_nodes, judge, look_around

VERSIONS = {"python": "3.11.7", "gad-verl": "0.2.0", "verl": "0.9.1", "ray": "2.50", "vllm": "none"}
VARIABLES = {name: False for name in ("GLOO_SOCKET_IFNAME", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "WANDB_API_KEY")}
A = Seen("10.0.0.1", "a", ("10.0.0.1",), "eth0", VERSIONS, {"/data/train": True}, True, VARIABLES)
B = replace(A, address="10.0.0.2", host="b", own_addresses=("10.0.0.2",))


def bad(*nodes: Seen) -> list[Finding]:
    found = judge(nodes, Path("/shared/run"))
    assert {one.check for one in found} >= {"names", "versions", "environment"}
    return [one for one in found if one.level != OK]


def test_nodes_that_agree() -> None:
    assert bad(A, B) == [] and bad(A) == []


def test_a_name_that_is_a_loopback_is_cured_by_the_interface() -> None:
    debian = replace(B, own_addresses=("127.0.1.1",))
    assert bad(A, debian) == []
    (names, *_) = judge([A, debian], None)
    assert "b is 127.0.1.1 to itself" in names.found and "eth0" in names.found
    (lost,) = bad(A, replace(debian, interface=None))
    assert lost.level == ERROR and "b (10.0.0.2)" in lost.found and "--node-ip-address" in lost.remedy
    chosen = replace(debian, interface=None, variables=VARIABLES | {"GLOO_SOCKET_IFNAME": True})
    assert bad(A, chosen) == []


def test_other_versions_are_named_with_their_nodes() -> None:
    (found,) = bad(A, replace(B, versions=VERSIONS | {"ray": "2.49"}))
    assert found.level == ERROR and found.found == "ray: 2.50 on a, 2.49 on b"
    without = VERSIONS | {"gad-verl": "none"}
    (found,) = bad(replace(A, versions=without), replace(B, versions=without))
    assert "gad-verl is not installed on the nodes" in found.found


def test_a_folder_that_is_not_shared() -> None:
    (found,) = bad(A, replace(B, has_probe=False))
    assert found.level == ERROR and "/shared/run" in found.found and "not seen on b" in found.found
    (found,) = bad(A, replace(B, paths={"/data/train": False}))
    assert found.found == "/data/train is not there on b"


def test_a_folder_that_cannot_be_written_to() -> None:
    with pytest.raises(GadClusterError, match=r"default_local_dir=/proc/run/1: nothing can be written to /proc \("):
        ask_nodes([], Path("/proc/run/1"))


def test_a_key_that_some_nodes_lack() -> None:
    (found,) = bad(A, replace(B, variables=VARIABLES | {"HF_TOKEN": True}))
    assert found.level == WARNING and found.found == "HF_TOKEN is set on some nodes, and not on a"


def test_this_process_as_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr("gad_verl.tools.doctor.nodes._LATE_S", 0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_secret_text")
    there = tmp_path / "there"
    there.touch()
    found = look_around([str(there), str(tmp_path / "not")], str(there))
    seen = Seen(**found)
    assert seen.interface is not None and seen.has_probe and seen.versions["verl"] == "0.9.1"
    assert seen.paths == {str(there): True, str(tmp_path / "not"): False}
    assert seen.variables["HF_TOKEN"] is True and "hf_secret_text" not in repr(found)
    assert not Seen(**look_around([], str(tmp_path / "not"))).has_probe
    assert Seen(**look_around([], None)).has_probe


def test_what_a_run_reads_and_writes(compose_config: Any, tmp_path: Path) -> None:
    train = tmp_path / "train.parquet"
    train.touch()
    keys = (f"data.train_files={train}", "data.val_files=/no/such.parquet", "actor_rollout_ref.model.path=Qwen/Some")
    config = compose_config("gad_cpu", *keys, f"trainer.default_local_dir={tmp_path / 'run'}", "trainer.save_freq=5")
    assert paths_of(config) == ([str(train)], tmp_path / "run")
    assert paths_of(compose_config("gad_cpu", *keys, "trainer.save_freq=-1"))[1] is None
