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
"""How the time of the discriminator's update grows with prompts, with length and with ranks.

python benchmarks/growth.py                        # writes benchmarks/results/growth.json and prints the table
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import Ratio, alternate, arguments, machine, one_rank, table, write
from cost_model import of_qwen2
from device import this_device
from schemes import Schemes, Shape, build_model_folder, build_worker, random_groups

HIDDEN, LAYERS = 256, 4
BASE = Shape(prompts=2, rollouts=4, prompt=32, rollout=96, teacher=96)
QUICK = Shape(prompts=2, rollouts=2, prompt=4, rollout=8, teacher=8)

COLUMNS = {"what": "what grows", "times": "times", "time_over_base": "time over base", "predicted": "predicted"}


def grown(base: Shape, what: str, times: int) -> Shape:
    """``base`` with more prompts or longer sequences."""
    if what == "prompts":
        return Shape(base.prompts * times, base.rollouts, base.prompt, base.rollout, base.teacher)
    return Shape(base.prompts, base.rollouts, base.prompt * times, base.rollout * times, base.teacher * times)


def update_work(shape: Shape, hidden: int, layers: int) -> float:
    return of_qwen2(hidden, layers, checkpointing=False).schemes(shape, remove_padding=False)["c"]


def measure_sizes(model: Path, base: Shape, hidden: int, layers: int, repeats: int) -> list[dict]:
    """Prompts and lengths, twice and four times."""
    worker = build_worker(model)
    rows = []
    for what in ("prompts", "length"):
        shapes = {times: grown(base, what, times) for times in (1, 2, 4)}
        calls = {str(times): Schemes(worker, random_groups(shape)).c for times, shape in shapes.items()}
        seconds = alternate(calls, repeats, what)
        for times in (2, 4):
            rows.append(
                {
                    "what": what,
                    "times": times,
                    "time_over_base": Ratio.of(seconds[str(times)], seconds["1"]),
                    "predicted": update_work(shapes[times], hidden, layers) / update_work(base, hidden, layers),
                }
            )
    return rows


def run_rank(rank: int, world_size: int, model: str, shape: Shape, threads: int, port: int, output: str) -> None:
    """Seconds of an update on this rank's share of the groups: the median of three, after one that does not count."""
    import time

    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank), MASTER_PORT=str(port))
    torch.set_num_threads(threads)
    from gad_verl.discriminator.groups import build_group_batch

    worker = build_worker(Path(model))
    seconds = []
    for _ in range(4):
        batch = build_group_batch(random_groups(shape), shape.rollouts)
        dist.barrier()
        begin = time.perf_counter()
        worker.update(tu.chunk_tensordict(batch, world_size)[rank])
        dist.barrier()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        Path(output).write_text(str(statistics.median(seconds[1:])), encoding="utf-8")
    dist.destroy_process_group()


def run_independent(
    number: int, model: str, shape: Shape, threads: int, repeats: int, together: Any, finished: Any, seconds: Any
) -> None:
    """The same update in two processes that share nothing, in turns: the first alone, then both at once."""
    import time

    from gad_verl.discriminator.groups import build_group_batch

    with one_rank(threads):
        worker = build_worker(Path(model))
        batch = build_group_batch(random_groups(shape), shape.rollouts)
        for repeat in range(repeats + 1):
            for both in (False, True):
                together.wait()
                begin = time.perf_counter()
                if both or number == 0:
                    worker.update(batch.clone())
                own = time.perf_counter() - begin
                finished.wait()
                if number == 0 and repeat > 0:
                    seconds.put((both, own))


def measure_independent(model: Path, shape: Shape, threads: int, repeats: int) -> dict:
    """How much two processes slow each other down on this machine, without a word between them."""
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    together, finished, seconds = context.Barrier(2), context.Barrier(2), context.Queue()
    processes = [
        context.Process(
            target=run_independent,
            args=(number, str(model), shape, threads, repeats, together, finished, seconds),
        )
        for number in range(2)
    ]
    for process in processes:
        process.start()
    found = [seconds.get(timeout=300) for _ in range(2 * repeats)]
    for process in processes:
        process.join()
    alone, both = ([own for is_both, own in found if is_both is wanted] for wanted in (False, True))
    return {
        "what": "a process that shares nothing beside it",
        "times": 2,
        "time_over_base": Ratio.of(both, alone),
        "predicted": 1.0,
    }


def seconds_on_ranks(model: Path, world_size: int, threads: int, quick: bool) -> float:
    """Run :func:`run_rank` in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seconds"
        arguments_of_ranks = [str(model), str(output), str(world_size), str(threads), str(int(quick))]
        subprocess.run(
            [sys.executable, __file__, "--ranks", *arguments_of_ranks], check=True, capture_output=True, timeout=300
        )
        return float(output.read_text(encoding="utf-8"))


def main_of_ranks(model: str, output: str, world_size: str, threads: str, quick: str) -> None:
    """Start the ranks of one measurement."""
    import socket

    import torch.multiprocessing as multiprocessing

    os.environ.update(MASTER_ADDR="127.0.0.1", VERL_PLATFORM=this_device().verl_platform)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shape = grown(QUICK if quick == "1" else BASE, "prompts", 2)
    arguments_of_rank = (int(world_size), model, shape, int(threads), port, output)
    multiprocessing.spawn(run_rank, args=arguments_of_rank, nprocs=int(world_size), join=True)


def main() -> None:
    options = arguments(__doc__, "growth.json").parse_args()
    base, hidden, layers = (QUICK, 64, 2) if options.quick else (BASE, HIDDEN, LAYERS)
    with tempfile.TemporaryDirectory() as folder:
        with one_rank(options.threads):
            model = build_model_folder(Path(folder) / "model", hidden, layers)
            rows = measure_sizes(model, base, hidden, layers, options.repeats)
        # Two ranks want two GPUs.
        if not this_device().is_gpu or torch.cuda.device_count() > 1:
            one, two = [], []
            for _ in range(options.repeats):
                one.append(seconds_on_ranks(model, 1, options.threads, options.quick))
                two.append(seconds_on_ranks(model, 2, options.threads, options.quick))
            rows.append({"what": "ranks", "times": 2, "time_over_base": Ratio.of(two, one), "predicted": 0.5})
        if not this_device().is_gpu:
            rows.append(measure_independent(model, grown(base, "prompts", 2), options.threads, options.repeats))
    settings = {"hidden": hidden, "layers": layers, "base": str(base), "repeats": options.repeats}
    write(options.output, rows, settings | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ranks"]:
        main_of_ranks(*sys.argv[2:])
    else:
        main()
