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
"""Is a run as it should be? python look.py NAME METRICS.jsonl: a line for each step, and what is not finite."""

import json
import math
import sys

SHOWN = (
    *("gad/stage", "disc/accuracy", "disc/loss", "disc/grad_norm", "actor/grad_norm", "actor/ppo_kl"),
    *("rollout_corr/log_ppl_diff", "training/rollout_probs_diff_mean", "gad/length_ratio", "timing_s/step"),
    *("timing_s/gen", "timing_s/reward", "timing_s/update_actor", "disc/memory_peak_gb", "disc/passes"),
)


def main(name: str, path: str) -> int:
    """1 where a metric is not finite, an update was left out, or there is no step."""
    steps: dict[int, dict[str, float]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            steps.setdefault(record["step"], {}).update(record["data"])
    bad = []
    for step, data in sorted(steps.items()):
        shown = {key.split("/")[-1]: round(data[key], 4) for key in SHOWN if key in data}
        sys.stdout.write(f"{name} {step} {shown}\n")
        bad += [f"{step}:{key}" for key, value in data.items() if isinstance(value, float) and not math.isfinite(value)]
        bad += [f"{step}:skipped update"] * (data.get("disc/skipped_steps", 0) > 0)
    sys.stdout.write(f"{name}: {len(steps)} steps, not as they should be: {bad[:8] or 'none'}\n")
    return int(bool(bad) or not steps)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
