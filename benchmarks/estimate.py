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
"""Peak memory and time of updates and scoring passes on small models, against gad_verl.tools.estimate.

python benchmarks/estimate.py                      # writes benchmarks/results/estimate.json and prints the table
python benchmarks/estimate.py --recompute          # keeps what was measured, estimates anew

verl's own workers on one rank in float32, two micro-batches a call. Memory: bytes that torch's allocator held above the
start of the call. Time: CPU seconds of this process, so that other work beside it counts little, over the seconds that
the same multiply-adds take in one large product of matrices, measured in turn with the calls.
"""

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Ratio, arguments, machine, one_rank, peak_bytes, table, write
from device import measure_the_cpu
from schemes import Schemes, Shape, build_worker, random_groups, worker_config
from tqdm import tqdm

from gad_verl.tools.estimate import memory, timing
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.shape import find_shape, shape_of_config

SHAPE = Shape(prompts=4, rollouts=3, prompt=32, rollout=96, teacher=96)
QUICK_SHAPE = Shape(prompts=2, rollouts=1, prompt=4, rollout=8, teacher=8)
PRODUCT = 1024

COLUMNS = {
    "model": "model",
    "parameters": "parameters, millions",
    "hidden": "hidden",
    "layers": "layers",
    "vocabulary": "vocabulary",
    "checkpointing": "checkpointing",
    "states": "held / estimate",
    "update_memory": "peak of an update / estimate",
    "score_memory": "peak of a scoring pass / estimate",
    "update_time": "update / product of matrices",
    "score_time": "scoring pass / product of matrices",
}


def cases(quick: bool) -> Iterator[tuple[str, int, int, int, bool]]:
    """Role, hidden, layers, vocabulary (0: the tokenizer's), checkpointing."""
    if quick:
        yield from [("discriminator", 64, 2, 0, False), ("student", 64, 2, 0, True)]
        return
    for checkpointing in (False, True):
        for hidden, layers in ((128, 4), (256, 4), (256, 12), (512, 6)):
            yield "discriminator", hidden, layers, 0, checkpointing
        for hidden, layers, vocabulary in ((256, 4, 0), (256, 4, 8192), (512, 6, 8192)):
            yield "student", hidden, layers, vocabulary, checkpointing


class Student:
    """verl's language model worker: cross-entropy on responses, and log-probabilities."""

    def __init__(self, folder: Path, shape: Shape, checkpointing: bool, max_tokens: int) -> None:
        import functools

        from verl.workers.engine_workers import TrainingWorker
        from verl.workers.utils.losses import sft_loss

        self.worker = TrainingWorker(worker_config(folder, "language_model", checkpointing, False, max_tokens))
        self.worker.reset()
        self.worker.set_loss_fn(functools.partial(sft_loss, config=None))
        self.rows = [
            (ids[: shape.prompt], ids[shape.prompt :])
            for group in random_groups(shape)
            for ids in [*group.teacher_ids, *group.student_ids]
        ]

    def _batch(self) -> Any:
        from verl.utils import tensordict_utils as tu

        from gad_verl.trainer.supervised import build_supervised_batch

        data = build_supervised_batch(self.rows, 1, 1, 0)
        for name in ("num_mini_batch", "epochs", "dataloader_kwargs"):
            tu.pop(data, key=name)
        tokens = [len(prompt) + len(response) for prompt, response in self.rows]
        tu.assign_non_tensor(data, global_token_num=tokens, compute_loss=False, use_remove_padding=False)
        tu.assign_non_tensor(data, batch_num_tokens=sum(len(response) for _, response in self.rows), dp_size=1)
        return data

    def update(self) -> None:
        self.worker.train_batch(self._batch())

    def score(self) -> None:
        self.worker.infer_batch(self._batch())


class Discriminator:
    """gad_verl's worker: the pair loss on whole groups, and scores of the same rows."""

    def __init__(self, folder: Path, shape: Shape, checkpointing: bool, max_tokens: int) -> None:
        self.worker = build_worker(folder, checkpointing, max_tokens=max_tokens)
        self._schemes = Schemes(self.worker, random_groups(shape))
        self._rows = [row for group in self._schemes.groups for row in group.rows()]

    def update(self) -> None:
        self._schemes.c()

    def score(self) -> None:
        from gad_verl.discriminator.groups import build_row_batch

        self.worker.score(build_row_batch(self._rows))


def held_bytes(worker: Any) -> int:
    """Parameters and optimizer of a worker."""
    engine = worker.engine
    tensors = [parameter.detach() for parameter in engine.module.parameters()]
    moments = [state[name] for state in engine.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*tensors, *moments])


def product_seconds() -> float:
    """CPU seconds of one multiply-add in a large product of matrices."""
    left, right = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    begin = time.process_time()
    for _ in range(3):
        left @ right
    return (time.process_time() - begin) / (3 * PRODUCT**3)


def cpu_seconds(call: Callable[[], None]) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def role_of(row: dict[str, Any], tokens: int) -> Role:
    """The model of a row: one key-value head of 32, a feed-forward of twice the width, a head of its own."""
    figures = {
        "model_type": "qwen2",
        "hidden_size": row["hidden"],
        "num_hidden_layers": row["layers"],
        "num_attention_heads": row["hidden"] // 32,
        "num_key_value_heads": 1,
        "intermediate_size": 2 * row["hidden"],
        "vocab_size": row["vocabulary"],
    }
    return Role(
        row["model"],
        shape_of_config(figures, row["model"]),
        Layout("fsdp", 1),
        scalar_head=row["model"] == "discriminator",
        computed_bytes=4,
        checkpointing=row["checkpointing"] == "yes",
        remove_padding=False,
        flash_attention=False,
        micro_tokens=tokens,
    )


def batch_of(shape: Shape) -> tuple[int, int]:
    """Rows of a batch, and tokens of one of its two micro-batches."""
    rows = shape.prompts * (shape.rollouts + 1)
    return rows, rows * shape.student_row // 2


def measure(row: dict[str, Any], folder: Path, shape: Shape, repeats: int) -> dict[str, Any]:
    """What is measured of one row."""
    rows, tokens = batch_of(shape)
    role = role_of(row, tokens)
    kind = Student if row["model"] == "student" else Discriminator
    worker = kind(folder, shape, role.checkpointing, tokens)
    # The moments of Adam exist after the first step.
    worker.update()
    worker.score()
    measured = {
        "held_bytes": held_bytes(worker.worker),
        "update_bytes": peak_bytes(worker.update),
        "score_bytes": peak_bytes(worker.score),
    }
    forward = rows * timing.row_work(role, shape.student_row)
    ratios: dict[str, tuple[list[float], list[float]]] = {"update": ([], []), "score": ([], [])}
    for _ in tqdm(range(repeats), desc=f"{row['model']} {folder.name}", leave=False, file=sys.stderr):
        one = statistics.median(product_seconds() for _ in range(3))
        for name, passes in (("update", timing.update_passes(role)), ("score", 1)):
            ratios[name][0].append(cpu_seconds(getattr(worker, name)))
            ratios[name][1].append(passes * forward * one)
    return measured | {f"{name}_time": Ratio.of(*seconds) for name, seconds in ratios.items()}


def compare(row: dict[str, Any], tokens: int) -> dict[str, Any]:
    """What was measured of one row, over the estimate."""
    role = role_of(row, tokens)
    states, update, score = memory.states(role), memory.training_bytes(role), memory.scoring_bytes(role)
    return {
        "parameters": role.parameters / 1e6,
        "states": row["held_bytes"] / (states.parameters + states.optimizer),
        "update_memory": row["update_bytes"] / update.middle,
        "score_memory": row["score_bytes"] / score.middle,
        "update_estimate": [round(update.low), round(update.high)],
        "score_estimate": [round(score.low), round(score.high)],
    }


def recompute(path: Path) -> None:
    """Estimate anew beside what a file holds."""
    document = json.loads(path.read_text(encoding="utf-8"))
    tokens = batch_of(SHAPE)[1]
    rows = [row | compare(row, tokens) for row in document["rows"]]
    write(path, rows, document["settings"])
    sys.stdout.write(table(rows, COLUMNS))


def main() -> None:
    parser = arguments(__doc__, "estimate.json")
    parser.add_argument("--recompute", action="store_true", help="measure nothing, estimate anew for the output file")
    measure_the_cpu()
    options = parser.parse_args()
    if options.recompute:
        recompute(options.output)
        return
    shape = QUICK_SHAPE if options.quick else SHAPE
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_rank(options.threads):
        from tiny_model import build_model

        for name, hidden, layers, vocabulary, checkpointing in cases(options.quick):
            path = Path(folder) / f"{hidden}-{layers}-{vocabulary}"
            if not path.exists():
                more = {"vocab_size": vocabulary} if vocabulary else {}
                build_model(path, layers=layers, hidden=hidden, **more)
            row: dict[str, Any] = {
                "model": name,
                "hidden": hidden,
                "layers": layers,
                "vocabulary": find_shape(str(path), "model").vocab,
                "checkpointing": "yes" if checkpointing else "no",
            }
            row |= measure(row, path, shape, options.repeats)
            rows.append(row | compare(row, batch_of(shape)[1]))
            gc.collect()
    settings = {"shape": str(shape), "repeats": options.repeats, "micro_batches": 2, "product": PRODUCT}
    write(options.output, rows, settings | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
