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
"""The record of a run: what a page or a person wants to know later and what is no metric.

It lies in ``record/`` below the folder of the run (``trainer.default_local_dir``):

- ``run.json``: versions, configuration without secrets, where the metrics are, when the run was started and finished.
- ``events.jsonl``: what the guardian, the schedule and the like noticed or did.
- ``scores.jsonl``: quantiles of the discriminator's scores of both sides.
- ``samples.jsonl``: texts of both sides.

One process writes; any number may read at any time. A line goes to the operating system in one piece as soon as it is
written, so a process that is killed loses at most the line it was writing. On a resume the lines of steps that will be
trained again are cut off. Nothing here imports torch, verl or Ray.
"""

from gad_verl.record.reading import (
    LINE_FILES,
    RECORD_FOLDER,
    read_events,
    read_run,
    read_samples,
    read_scores,
)
from gad_verl.record.writing import QUANTILE_LEVELS, RunRecord, Sample, Split

__all__ = [
    "LINE_FILES",
    "QUANTILE_LEVELS",
    "RECORD_FOLDER",
    "RunRecord",
    "Sample",
    "Split",
    "read_events",
    "read_run",
    "read_samples",
    "read_scores",
]
