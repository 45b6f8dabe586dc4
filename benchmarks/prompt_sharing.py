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
"""A group's prompt encoded once against once per response, by the length of the prompt (shared_prompt.py).

python benchmarks/prompt_sharing.py                # writes benchmarks/results/prompt_sharing.json and prints the table
"""

import sys
import tempfile
from pathlib import Path

from common import Ratio, alternate, arguments, machine, one_rank, peak_bytes, table, write
from schemes import Schemes, Shape, build_model_folder, build_worker, random_groups

from gad_verl.discriminator.shared_prompt import build_cost_model

HIDDEN, LAYERS, ROLLOUTS, RESPONSE = 256, 4, 8, 64
PROMPTS = (32, 128, 512, 2048)

COLUMNS = {
    "prompt": "prompt tokens",
    "time_shared_over_separate": "time shared / separate",
    "predicted": "predicted",
    "auto_shares": "auto shares",
    "memory_shared_over_separate": "peak memory shared / separate",
}


def main() -> None:
    options = arguments(__doc__, "prompt_sharing.json").parse_args()
    prompts, hidden, layers = ((8, 32), 64, 2) if options.quick else (PROMPTS, HIDDEN, LAYERS)
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_rank(options.threads):
        model = build_model_folder(Path(folder) / "model", hidden, layers)
        for prompt in prompts:
            groups = random_groups(Shape(1, ROLLOUTS, prompt, RESPONSE, RESPONSE))
            # A shared prompt needs torch's attention; rows apart take the device's.
            attention = {"always": "sdpa", "never": None}
            workers = {name: build_worker(model, share_prompt=name, attention=own) for name, own in attention.items()}
            calls = {choice: Schemes(worker, groups).c for choice, worker in workers.items()}
            seconds = alternate(calls, options.repeats, f"prompt of {prompt}")
            memory = {choice: peak_bytes(call) for choice, call in calls.items()}
            cost = build_cost_model(workers["always"].engine.module)
            lengths = [len(row) for row in groups[0].rows()]
            rows.append(
                {
                    "prompt": prompt,
                    "time_shared_over_separate": Ratio.of(seconds["always"], seconds["never"]),
                    "predicted": cost.shared([lengths], [prompt]) / cost.separate([lengths], padded=True),
                    "auto_shares": "yes" if cost.sharing_pays([lengths], [prompt], padded=True) else "no",
                    "memory_shared_over_separate": memory["always"] / memory["never"],
                }
            )
    settings = {"hidden": hidden, "layers": layers, "rollouts": ROLLOUTS, "response": RESPONSE}
    write(options.output, rows, settings | {"repeats": options.repeats} | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
