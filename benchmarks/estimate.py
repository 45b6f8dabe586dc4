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
"""Peak memory and time of updates and scoring passes on small models, against gad_verl.estimate.

python benchmarks/estimate.py                      # writes benchmarks/results/estimate.json and prints the table

verl's own workers on one rank in float32, two micro-batches a call. Memory: bytes that torch's allocator held above the
start of the call. Time: CPU seconds of this process, so that other work beside it counts little, over the seconds that
the same multiply-adds take in one large product of matrices, measured in turn with the calls.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Ratio, arguments, machine, one_rank, peak_bytes, table, write
from schemes import Schemes, Shape, build_worker, random_groups, worker_config
from tqdm import tqdm

from gad_verl.estimate import memory, timing
from gad_verl.estimate.roles import Layout, Role
from gad_verl.estimate.shape import find_shape

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
            for ids in [group.teacher_ids, *group.student_ids]
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


def measure(name: str, folder: Path, shape: Shape, checkpointing: bool, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    rows = shape.prompts * (shape.rollouts + 1)
    tokens = rows * shape.student_row // 2
    worker = (Student if name == "student" else Discriminator)(folder, shape, checkpointing, tokens)
    role = Role(
        name,
        find_shape(str(folder), "model"),
        Layout("fsdp", 1),
        scalar_head=name == "discriminator",
        computed_bytes=4,
        checkpointing=checkpointing,
        remove_padding=False,
        flash_attention=False,
        micro_tokens=tokens,
    )
    # The moments of Adam exist after the first step.
    worker.update()
    worker.score()
    states = memory.states(role)
    update, score = peak_bytes(worker.update), peak_bytes(worker.score)
    forward = rows * timing.row_work(role, shape.student_row)
    ratios: dict[str, tuple[list[float], list[float]]] = {"update": ([], []), "score": ([], [])}
    for _ in tqdm(range(repeats), desc=f"{name} {folder.name}", leave=False, file=sys.stderr):
        one = statistics.median(product_seconds() for _ in range(3))
        for kind, passes in (("update", timing.update_passes(role)), ("score", 1)):
            ratios[kind][0].append(cpu_seconds(getattr(worker, kind)))
            ratios[kind][1].append(passes * forward * one)
    training, scoring = memory.training_bytes(role), memory.scoring_bytes(role)
    return {
        "parameters": role.parameters / 1e6,
        "states": held_bytes(worker.worker) / (states.parameters + states.optimizer),
        "update_memory": update / training.middle,
        "update_memory_in_range": training.low <= update <= training.high,
        "score_memory": score / scoring.middle,
        "update_bytes": update,
        "update_estimate": [training.low, training.high],
        "score_bytes": score,
        "score_estimate": [scoring.low, scoring.high],
        "update_time": Ratio.of(*ratios["update"]),
        "score_time": Ratio.of(*ratios["score"]),
    }


def main() -> None:
    options = arguments(__doc__, "estimate.json").parse_args()
    shape = QUICK_SHAPE if options.quick else SHAPE
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_rank(options.threads):
        from tiny_model import build_model

        for name, hidden, layers, vocabulary, checkpointing in cases(options.quick):
            path = Path(folder) / f"{hidden}-{layers}-{vocabulary}"
            if not path.exists():
                more = {"vocab_size": vocabulary} if vocabulary else {}
                build_model(path, layers=layers, hidden=hidden, **more)
            row = {
                "model": name,
                "hidden": hidden,
                "layers": layers,
                "vocabulary": find_shape(str(path), "model").vocab,
                "checkpointing": "yes" if checkpointing else "no",
            }
            rows.append(row | measure(name, path, shape, checkpointing, options.repeats))
            gc.collect()
    settings = {"shape": str(shape), "repeats": options.repeats, "micro_batches": 2, "product": PRODUCT}
    write(options.output, rows, settings | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
