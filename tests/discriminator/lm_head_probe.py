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
"""The worker with a scalar head in the place of an LM head, on gloo ranks (run by tools/probe_cases.py)."""

from pathlib import Path
from typing import Any

FAMILY = "granite"


def run_case(rank: int, world_size: int, strategy: str, model_folder: str, folder: Path) -> dict[str, Any]:
    """One update, and a checkpoint that a worker with another head loads."""
    from tiny_families import FAMILIES, build_family
    from worker_probe import build_worker, prompted_groups, run_scenario, score_rows

    # The same numbers on every rank: nothing opens a process group before the worker does.
    own = build_family(FAMILIES[FAMILY], folder / f"rank_{rank}")
    groups = [group for group in prompted_groups() if None not in group.student_ids]
    rows = [row for group in groups for row in group.rows()]
    worker = build_worker(str(own), strategy)
    found = run_scenario(worker, groups, world_size)
    saved = folder / "global_step_1" / "discriminator"
    worker.save_checkpoint(str(saved), None, 1, None)
    found["saved_scores"] = score_rows(worker, rows, world_size)
    other = build_worker(str(own), strategy, seed=99)
    other.load_checkpoint(str(saved), None, False)
    found["loaded_scores"] = score_rows(other, rows, world_size)
    packed = build_worker(str(own), strategy, use_remove_padding=True)
    found["packed_scores"] = run_scenario(packed, groups, world_size)["scores"]
    found |= {"source": folder / "rank_0", "checkpoint": saved.parent, "rows": rows}
    return found
