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
"""The wait for a Ray cluster: it ends with the last node, or says what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.cli import main
from gad_verl.errors import GadClusterError
from gad_verl.tools.doctor.cluster import Need, Node, missing, need_of, wait_until_ready


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def waited(reads: list, need: Need, timeout_s: float = 30.0) -> tuple:
    clock, states = Clock(), list(reads)

    def read():
        state = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(state, Exception):
            raise state
        return state

    return wait_until_ready(read, need, timeout_s, 3.0, clock.sleep, clock.now), clock.time


def test_the_wait_ends_with_the_last_node():
    a, b, poor = Node("a", 8), Node("b", 8), Node("b", 0)
    nodes, seconds = waited([ConnectionError("no head"), [], [a], [a, poor], [a, b]], Need(2, 8))
    assert nodes == [a, b] and seconds == 12.0
    # A node more does no harm, and GPUs are counted where they are asked for only.
    assert waited([[a, b, poor]], Need(2, 8))[1] == 0 and waited([[poor]], Need(1, 0))[1] == 0


@given(
    st.lists(st.integers(0, 8), max_size=5), st.integers(1, 4), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)
)
def test_a_cluster_is_whole_where_all_pools_fit_by_number(gpus, nodes, each, more, rollout):
    found = [Node(f"n{number}", count) for number, count in enumerate(gpus)]
    whole = sum(count >= each for count in gpus) >= nodes and sum(gpus) >= nodes * each + more + rollout
    assert (missing(found, Need(nodes, each, more, rollout)) is None) == whole


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ([ConnectionError("refused")], "the head does not answer (refused)"),
        ([[("a", 8)]], "1 of 2 nodes have joined: a (8 GPUs)"),
        ([[("a", 8), ("b", 4)]], "1 of 2 nodes have fewer than 8 GPUs"),
        ([[("a", 8), ("b", 8)]], "16 of 20 GPUs have joined, 4 of them for the discriminator"),
    ],
)
def test_a_wait_in_vain_says_what_is_missing(reads, expected):
    states = [state if isinstance(state, Exception) else [Node(*node) for node in state] for state in reads]
    with pytest.raises(GadClusterError) as error:
        waited(states, Need(2, 8, 4), timeout_s=10.0)
    assert expected in str(error.value) and "after 10 s" in str(error.value)


def test_the_configuration_says_what_is_needed(compose_config):
    keys = ("trainer.nnodes=2", "trainer.n_gpus_per_node=6")
    assert need_of(compose_config("gad_trainer", *keys)) == Need(2, 6)
    pool = ("gad.discriminator_nnodes=2", "gad.discriminator_n_gpus_per_node=1")
    assert need_of(compose_config("gad_trainer", *keys, *pool)) == Need(2, 6, 2)
    assert need_of(compose_config("gad_cpu", "trainer.nnodes=3")) == Need(3, 0)
    rollout = ("actor_rollout_ref.rollout.nnodes=3", "actor_rollout_ref.rollout.n_gpus_per_node=5")
    assert need_of(compose_config("gad_async", *keys, *rollout)) == Need(2, 6)
    separate = ("trainer.v1.trainer_mode=gad_separate_async", *rollout)
    assert need_of(compose_config("gad_async", *keys, *pool, *separate)) == Need(2, 6, 2, 15)


def test_what_is_missing_says_for_whom():
    nodes = [Node("a", 8)]
    assert "8 of 16 GPUs have joined, 8 of them for the rollout: a" in str(missing(nodes, Need(1, 8, 0, 8)))
    both = str(missing(nodes, Need(1, 8, 2, 8)))
    assert "8 of 18 GPUs have joined, 2 of them for the discriminator and 8 of them for the rollout" in both


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1:1", "the head does not answer"), ("node1", "HOST:PORT")])
def test_no_head_is_one_line(address, expected, capsys):
    assert main(["doctor", "--cluster", address, "--timeout", "0.01", "trainer.nnodes=1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("gad-verl: ") and expected in line
