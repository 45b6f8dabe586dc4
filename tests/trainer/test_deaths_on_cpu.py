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
"""What Ray's memory monitor writes, in one line; the real monitor is in tests/e2e/test_hung_worker_on_cpu.py."""

import pytest

from gad_verl.trainer.deaths import memory_ran_out, memory_report

# Of Ray 2.60, shortened.
WORDS = """3 worker(s) were killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.2, ID: 33) was {used} / {limit} (0.93)
OOM kill reason: Memory usage 24074596352B exceeded threshold of 24012687360B (95.0% of 25276514304B limit)
Selected to kill: (Actor(2e): pid=8707, actual memory used=0.56GB, worker ID=7b)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
8501\t8.93\tray::WorkerDict.actor_rollout_ref_update_actor
8472\t4.99\tray::DiscriminatorWorker
8054\t1.57\tpython -m verl.trainer.main_ppo --config-name gad_cpu
8707\t0.56\tray::AgentLoopWorkerTQ
Refer to the documentation on how to address the out of memory issue."""


def test_how_full_and_by_what() -> None:
    report = memory_report(WORDS.format(used="21.93GB used", limit="23.54GB limit"))
    assert report.endswith(
        "ran out (21.93GB used / 23.54GB limit), most of it taken by "
        "ray::WorkerDict.actor_rollout_ref_update_actor 8.93 GB, ray::DiscriminatorWorker 4.99 GB, python 1.57 GB"
    )


@pytest.mark.parametrize("text", ["", "Task was killed due to the node running low on memory.", "a\tb\tc"])
def test_words_that_are_not_known_leave_out_figures_alone(text: str) -> None:
    assert memory_report(text) == "Ray killed workers because the memory of the node ran out"


def test_without_ray_nobody_died() -> None:
    assert memory_ran_out() is None
