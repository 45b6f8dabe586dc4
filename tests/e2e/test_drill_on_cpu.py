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
"""Faults on two hosts, and two hosts against one (drill.py prints the table of docs/clusters.md)."""

import logging
from pathlib import Path

import pytest
from drill import FAULTS, drill, equal_runs
from hosts import why_not

logger = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"no hosts from network namespaces: {why_not()}"),
]

# What starting the same command again cures; of the others the first signal saves, the second and SIGKILL do not.
CODES = {
    "Ctrl-C": {0},
    "SIGTERM to the driver": {0},
    "SIGTERM twice": {143},
    "SIGKILL of the driver": {137},
}


@pytest.mark.timeout(7200)
def test_every_fault_ends_its_run_and_the_next_start_goes_on(tmp_path: Path) -> None:
    rows = drill(list(FAULTS), tmp_path, say=logger.info)
    for row in rows:
        assert row.code in CODES.get(row.fault, {75}), row
        assert row.left == 0 and row.resumes.startswith("goes on from step"), row


@pytest.mark.timeout(1800)
def test_two_hosts_equal_one_host(tmp_path: Path) -> None:
    one, two = equal_runs(tmp_path)
    assert len(one) >= 4 and one == two
