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
"""Where the time of schemes A and C goes: the profile behind gaps between cost model and measurement.

python benchmarks/profile_update.py                # writes benchmarks/results/profile_update.json and prints the table
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import arguments, machine, one_rank, table, write
from device import this_device
from discriminator import HIDDEN, LAYERS, PROMPT, ROLLOUT
from schemes import Schemes, Shape, build_model_folder, build_worker, random_groups
from torch.profiler import ProfilerActivity, profile

KINDS = ("matrices", "attention", "optimizer", "rest")

COLUMNS = {
    "case": "batch",
    **{f"share_{kind}": f"{kind}, % of C" for kind in KINDS},
    **{f"ratio_{kind}": f"{kind} C / A" for kind in KINDS},
    "rest_of": "largest of the rest in A",
}


def kind_of(name: str) -> str:
    """What an operator of torch belongs to."""
    if name in ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"):
        return "matrices"
    if "scaled_dot_product" in name or "flash_attention" in name:
        return "attention"
    if name.startswith(("Optimizer", "aten::_foreach", "aten::_fused_adam")):
        return "optimizer"
    return "rest"


def seconds_by_kind(call: Callable[[], Any], repeats: int) -> tuple[Counter[str], Counter[str]]:
    """Self time of all operators by kind, and of each operator of the rest."""
    device = this_device()
    call()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * device.is_gpu]) as profiler:
        for _ in range(repeats):
            call()
        device.synchronize()
    kinds: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for event in profiler.key_averages():
        microseconds = event.self_device_time_total if device.is_gpu else event.self_cpu_time_total
        seconds = microseconds / 1e6 / repeats
        kinds[kind_of(event.key)] += seconds
        if kind_of(event.key) == "rest":
            rest[event.key] += seconds
    return kinds, rest


def main() -> None:
    options = arguments(__doc__, "profile_update.json").parse_args()
    hidden, layers = (64, 2) if options.quick else (HIDDEN, LAYERS)
    prompt, rollout = (4, 8) if options.quick else (PROMPT, ROLLOUT)
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_rank(options.threads):
        model = build_model_folder(Path(folder) / "model", hidden, layers)
        for teacher, remove_padding in ((1, False), (4, False), (1, True)):
            worker = build_worker(model, remove_padding=remove_padding)
            schemes = Schemes(worker, random_groups(Shape(2, 8, prompt, rollout, teacher * rollout)))
            ours, _ = seconds_by_kind(schemes.c, options.repeats)
            theirs, rest = seconds_by_kind(schemes.a, options.repeats)
            total = sum(ours.values())
            rows.append(
                {
                    "case": f"n = 8, teacher / rollout {teacher}, padding {'removed' if remove_padding else 'kept'}",
                    **{f"share_{kind}": 100 * ours[kind] / total for kind in KINDS},
                    **{f"ratio_{kind}": ours[kind] / theirs[kind] if theirs[kind] else 1.0 for kind in KINDS},
                    "rest_of": ", ".join(
                        f"{name} {100 * seconds / sum(theirs.values()):.0f} %" for name, seconds in rest.most_common(3)
                    ),
                }
            )
    settings = {"hidden": hidden, "layers": layers, "repeats": options.repeats}
    write(options.output, rows, settings | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
