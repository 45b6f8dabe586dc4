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
"""A launch whose Ray head is gone ends with a line and a code; one whose head is busy, or not there yet, goes on."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.preflight.head_watch import HeadWatch
from gad_verl.preflight.ray_head import accepts, head_address


class Clock:
    def __init__(self) -> None:
        self.time = 0.0


@given(st.lists(st.tuples(st.sampled_from(["unknown", "there", "gone"]), st.integers(1, 30)), max_size=25))
def test_it_ends_after_forty_seconds_of_silence_alone(looks: list[tuple[str, int]]) -> None:
    clock, codes, state = Clock(), [], ["unknown"]
    watch = HeadWatch(
        lambda: None if state[0] == "unknown" else "10.0.0.1:6379",
        lambda address: state[0] == "there",
        codes.append,
        lambda: clock.time,
    )
    heard: float | None = None
    for what, seconds in looks:
        clock.time += seconds
        state[0] = what
        goes_on = watch.look()
        if what != "gone" or heard is None:
            heard = clock.time
        assert goes_on == (clock.time - heard < 40)
        if not goes_on:
            assert codes == [75]
            return
    assert codes == []


def test_its_last_line_names_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    clock, codes = Clock(), []
    watch = HeadWatch(lambda: "10.0.0.1:6379", lambda address: False, codes.append, lambda: clock.time)
    assert watch.look()
    clock.time = 41.0
    assert not watch.look() and codes == [75]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gad_verl: the head of the Ray cluster at 10.0.0.1:6379") and "exit code 75" in line


def test_a_busy_listener_is_there_and_a_closed_one_is_not() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Never accepts: the system takes the connection.
        listener.listen(4)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert accepts(address) and accepts(address)
    assert not accepts(address)


def test_without_a_cluster_there_is_no_head() -> None:
    assert head_address() is None
