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
"""Time and peak memory of the discriminator's update, schemes A, B and C side by side (schemes.py).

python benchmarks/discriminator.py                 # writes benchmarks/results/discriminator.json and prints the table
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import Ratio, alternate, arguments, machine, one_rank, peak_bytes, table, write
from cost_model import of_qwen2, update_tokens
from device import this_device
from schemes import Schemes, Shape, build_model_folder, build_worker, random_groups, worker_config

HIDDEN, LAYERS = 256, 4
PROMPT, ROLLOUT = 32, 64

COLUMNS = {
    "rollouts": "n",
    "teacher": "teacher / rollout",
    "checkpointing": "checkpointing",
    "remove_padding": "padding removed",
    "time_c_over_a": "time C / A",
    "predicted_c_over_a": "predicted",
    "time_b_over_a": "time B / A",
    "predicted_b_over_a": "predicted ",
    "memory_c_over_a": "peak memory C / A",
    "predicted_memory": "predicted  ",
    "memory_c_over_value_model": "peak memory C / value model",
}


def cases(quick: bool) -> Iterator[tuple[int, float, bool, bool]]:
    """Rollouts, teacher length over rollout length, gradient checkpointing, remove padding."""
    if quick:
        yield from [(2, 1.0, False, False), (2, 4.0, True, True)]
        return
    for checkpointing in (False, True):
        for rollouts in (4, 8, 16):
            for teacher in (0.25, 1.0, 4.0):
                yield rollouts, teacher, checkpointing, False
    for checkpointing in (False, True):
        for teacher in (0.25, 1.0):
            yield 8, teacher, checkpointing, True


def build_value_model(model_folder: Path, checkpointing: bool, remove_padding: bool) -> Any:
    """verl's own value-model worker, with a squared error on all values as its loss."""
    from verl.workers.engine_workers import TrainingWorker

    def squared_error(model_output: dict, data: Any, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
        values = model_output["values"].values()
        return (values.float() ** 2).mean(), {}

    worker = TrainingWorker(worker_config(model_folder, "value_model", checkpointing, remove_padding))
    worker.reset()
    worker.set_loss_fn(squared_error)
    return worker


def measure(model_folder: Path, shape: Shape, checkpointing: bool, remove_padding: bool, repeats: int) -> dict:
    """One row of the table."""
    from verl.utils import tensordict_utils as tu

    from gad_verl.discriminator.groups import build_row_batch, complete_rows

    worker = build_worker(model_folder, checkpointing, remove_padding)
    schemes = Schemes(worker, random_groups(shape))
    calls = {"a": schemes.a, "b": schemes.b, "c": schemes.c}
    name = f"n={shape.rollouts} teacher={shape.teacher} checkpointing={checkpointing} packed={remove_padding}"
    seconds = alternate(calls, repeats, name)
    memory = {scheme: peak_bytes(call) for scheme, call in calls.items()}
    value_model = build_value_model(model_folder, checkpointing, remove_padding)

    def value_update() -> None:
        rows = complete_rows(build_row_batch([row for group in schemes.groups for row in group.rows()]))
        tu.assign_non_tensor(rows, global_token_num=rows["input_ids"].offsets().diff().tolist())
        value_model.train_batch(rows)

    value_update()
    memory["value_model"] = peak_bytes(value_update)
    # Without flash attention packed rows are one sequence under a mask.
    masked = remove_padding and not this_device().packs_rows
    work = of_qwen2(HIDDEN, LAYERS, checkpointing).schemes(shape, masked)
    tokens = update_tokens(shape, remove_padding)
    return {
        "time_c_over_a": Ratio.of(seconds["c"], seconds["a"]),
        "predicted_c_over_a": work["c"] / work["a"],
        "time_b_over_a": Ratio.of(seconds["b"], seconds["a"]),
        "predicted_b_over_a": work["b"] / work["a"],
        "memory_c_over_a": memory["c"] / memory["a"],
        "predicted_memory": tokens["c"] / tokens["a"],
        "memory_c_over_value_model": memory["c"] / memory["value_model"],
        "seconds_c": sorted(seconds["c"])[len(seconds["c"]) // 2],
    }


def main() -> None:
    options = arguments(__doc__, "discriminator.json").parse_args()
    prompts, prompt, rollout = (1, 4, 8) if options.quick else (2, PROMPT, ROLLOUT)
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_rank(options.threads):
        model = build_model_folder(Path(folder) / "model", *((64, 2) if options.quick else (HIDDEN, LAYERS)))
        for rollouts, teacher, checkpointing, remove_padding in cases(options.quick):
            shape = Shape(prompts, rollouts, prompt, rollout, round(teacher * rollout))
            row = {
                "rollouts": rollouts,
                "teacher": teacher,
                "checkpointing": "yes" if checkpointing else "no",
                "remove_padding": "yes" if remove_padding else "no",
            }
            rows.append(row | measure(model, shape, checkpointing, remove_padding, options.repeats))
    settings = {"hidden": HIDDEN, "layers": LAYERS, "prompts": prompts, "prompt_tokens": prompt, "rollout": rollout}
    write(options.output, rows, settings | {"repeats": options.repeats} | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
