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
"""A drill: faults put into runs on two hosts, and how the runs end.

    python tests/e2e/drill.py                          # all faults, one run each, and the table of docs/clusters.md
    python tests/e2e/drill.py student discriminator    # some of them
    python tests/e2e/drill.py equal                    # two hosts against one: the same digits

The hosts are network namespaces of this machine (tests/tools/hosts.py), the model is tiny, student and discriminator
have a rank on each host. Each run goes on from what the fault before it left: the last column of a row is written by
the next one.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

from hosts import Host, Hosts, environment, why_not  # noqa: E402
from main_ppo import TINY, read_metrics  # noqa: E402

# A fault ends a run within this; what takes longer is ended by hand and says so in the table.
LIMIT_S = 180.0
# Of a run until its second step.
START_S = 420.0
# After the end: what is still there then is left over. Ray ends what has lost its head after 60 s.
LEAVE_S, LEAVE_WITHOUT_HEAD_S = 15.0, 90.0
ADVERSARIAL = ("gad.discriminator_only_steps=1", "gad.warmup_steps=2")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Args:
        what: In words.
        put: Does it, to the hosts and the process that started the run.
        keeps_cluster: Whether Ray's nodes are as before afterwards.
        leave_s: How long its processes may take to leave.
    """

    what: str
    put: Callable[[Hosts, subprocess.Popen], None]
    keeps_cluster: bool = True
    leave_s: float = LEAVE_S


def killed(*names: str, on: int | None = None, number: signal.Signals = signal.SIGKILL) -> Any:
    """Sends a signal to the first process whose command line holds one of some names."""

    def put(hosts: Hosts, _: subprocess.Popen) -> None:
        where = hosts.hosts if on is None else [hosts.hosts[on - 1]]
        found = [process for host in where for process in host.named(*names)]
        if not found:
            titles = sorted({" ".join(one.cmdline())[:60] for host in where for one in host.running()})
            raise RuntimeError(f"no process of {names}; there are {titles}")
        found[0].send_signal(number)

    return put


def told(number: signal.Signals, times: int = 1) -> Any:
    """Sends a signal to the process that started the run."""

    def put(hosts: Hosts, _: subprocess.Popen) -> None:
        (starter, *_) = [one for host in hosts.hosts for one in host.named("verl.trainer.main_ppo")]
        for time_of in range(times):
            if time_of:
                time.sleep(1.0)
            starter.send_signal(number)

    return put


def unplugged(number: int) -> Any:
    """Takes a host off the network."""
    return lambda hosts, _: hosts.hosts[number - 1].unplug()


FAULTS = {
    "student": Fault("student's worker killed", killed("ray::WorkerDict", "ray::StudentWorker", on=2)),
    "discriminator": Fault("discriminator's worker killed", killed("ray::DiscriminatorWorker", on=2)),
    "rollout": Fault("rollout server killed", killed("ray::HFServer")),
    "agent_loop": Fault("agent loop killed", killed("ray::AgentLoopWorker")),
    "balancer": Fault("load balancer killed", killed("ray::GlobalRequestLoadBalancer")),
    "queue_controller": Fault("TransferQueue's controller killed", killed("ray::TransferQueueController")),
    "queue_storage": Fault("TransferQueue's storage killed", killed("ray::SimpleStorageUnit")),
    "reward": Fault("reward worker killed", killed("ray::RewardLoopWorker")),
    "task_runner": Fault("task runner killed", killed("ray::TaskRunner")),
    "ctrl_c": Fault("Ctrl-C", told(signal.SIGINT)),
    "sigterm": Fault("SIGTERM to the driver", told(signal.SIGTERM)),
    "sigterm_twice": Fault("SIGTERM twice", told(signal.SIGTERM, times=2)),
    "sigkill": Fault("SIGKILL of the driver", told(signal.SIGKILL)),
    "node": Fault("Ray's node killed on the second host", killed("raylet/raylet", on=2), keeps_cluster=False),
    "head": Fault("Ray's head killed", killed("gcs_server", on=1), False, LEAVE_WITHOUT_HEAD_S),
    "link": Fault("second host off the network", unplugged(2), False, LEAVE_WITHOUT_HEAD_S),
}


@dataclass
class Row:
    """How a run ended.

    Args:
        fault: What was put in.
        seconds: From then to the end of the command.
        code: Its exit code; None where it was ended by hand.
        message: Its last line.
        left: Processes of the run that were still there after a while.
        resumes: Step from which the next start went on, or why it did not.
    """

    fault: str
    seconds: float
    code: int | None
    message: str
    left: int
    resumes: str = "not tried"

    def text(self) -> str:
        """A row of the table."""
        code = "-" if self.code is None else str(self.code)
        return f"| {self.fault} | {self.seconds:.0f} | `{self.message}` | {code} | {self.left} | {self.resumes} |"


HEAD = "| fault | seconds to the end | last line | code | left over | the next start |\n|---|---|---|---|---|---|"


class Drill:
    """Runs on hosts.

    Args:
        hosts: With or without Ray on them.
        folder: All hosts see it; holds model and data (``tiny_model.build_all``).
        gpus: Logical GPUs of a host.
    """

    def __init__(self, hosts: Hosts, folder: Path, gpus: int = 1) -> None:
        self.hosts, self.folder, self._gpus = hosts, folder, gpus
        self._number, self._cluster = 0, False

    def start(self, name: str, *overrides: str) -> tuple[subprocess.Popen, Path]:
        """Start a run on the first host; Ray first, where there is none."""
        if not self._cluster:
            self.hosts.start_ray(environment(), self._gpus)
            self._cluster = True
        self._number += 1
        log = self.folder / f"{name}_{self._number}.log"
        command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu"]
        command += [f"~ray_kwargs.ray_init.{key}" for key in ("num_cpus", "num_gpus", "object_store_memory")]
        command += [
            "gad=paper",
            f"actor_rollout_ref.model.path={self.folder / 'model'}",
            f"data.train_files={self.folder / 'train.parquet'}",
            f"data.val_files={self.folder / 'val.parquet'}",
            f"trainer.default_local_dir={self.folder / name}",
            f"trainer.nnodes={len(self.hosts.hosts)}",
            f"trainer.n_gpus_per_node={self._gpus}",
            *TINY,
            *ADVERSARIAL,
            *overrides,
        ]
        env = environment(RAY_ADDRESS=self.hosts.ray_address, VERL_FILE_LOGGER_PATH=str(self.metrics(name)))
        return self.hosts.head.start(command, log, env, self.folder), log

    def metrics(self, name: str) -> Path:
        """File of a run's metrics."""
        return self.folder / f"{name}.jsonl"

    def lose_cluster(self) -> None:
        """The next run gets a new cluster."""
        self._cluster = False

    def await_steps(self, process: subprocess.Popen, log: Path, count: int) -> list[int]:
        """Wait for some steps of a start; their numbers."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            text = log.read_text(encoding="utf-8", errors="replace")
            steps = [int(number) for number in re.findall(r"\bstep:(\d+) - ", text)]
            if len(steps) >= count:
                return steps
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with code {process.returncode}: {last_line(log)}")
            time.sleep(0.25)
        raise RuntimeError(f"no {count} steps in {START_S:.0f} s: {last_line(log)}")

    def put(self, fault: Fault, rows: list[Row]) -> Row:
        """Start a run that goes on from the one before, put a fault in after two steps, and see how it ends."""
        process, log = self.start("run", "trainer.save_freq=1", "trainer.total_epochs=100000")
        try:
            steps = self.await_steps(process, log, 2)
        except RuntimeError as error:
            if rows:
                rows[-1].resumes = f"no: {error}"
            self._end_all()
            raise
        if rows and rows[-1].resumes == "not tried":
            rows[-1].resumes = f"goes on from step {steps[0] - 1}"
        begin = time.monotonic()
        fault.put(self.hosts, process)
        code: int | None
        try:
            code = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - begin
        message = last_line(log)
        if code is None:
            self._end_all()
        left = self._left_after(fault.leave_s) if code is not None else 0
        if not fault.keeps_cluster or code is None:
            self._end_all()
        # A shell's count of a signal.
        return Row(fault.what, seconds, None if code is None else code if code >= 0 else 128 - code, message, left)

    def _left_after(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        while True:
            left = sum(len(of_the_run(host)) for host in self.hosts.hosts)
            if not left or time.monotonic() > end:
                return left
            time.sleep(1.0)

    def _end_all(self) -> None:
        for host in self.hosts.hosts:
            host.end()
        self.lose_cluster()


def of_the_run(host: Host) -> list[psutil.Process]:
    """Processes of a run; those of Ray itself are none, nor those that it keeps for the next one."""
    idle = {process.pid for process in host.named("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")}
    return [process for process in host.named("ray::", "verl.trainer.main_ppo") if process.pid not in idle]


def last_line(log: Path) -> str:
    """What a run said last, without what Ray and Python say while they end."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("gad_verl:") or "the run saves after" in line]
    return (ours or lines or [""])[-1][:300].replace("|", "/").replace("`", "'")


def drill(names: Sequence[str], folder: Path, say: Callable[[str], Any] = print) -> list[Row]:
    """Put faults in, one after another, and say how each run ended.

    Args:
        names: Of :data:`FAULTS`, in order.
        folder: An empty folder.
        say: Gets the table, row by row.
    """
    from tiny_model import build_all

    build_all(folder)
    # In the background of a shell Ctrl-C is ignored, and the runs would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[Row] = []
    say(HEAD)
    with Hosts(folder, 2) as hosts:
        runs = Drill(hosts, folder)
        for name in names:
            try:
                rows.append(runs.put(FAULTS[name], rows))
            except RuntimeError as error:
                rows.append(Row(FAULTS[name].what, 0.0, None, str(error), 0, "not put in"))
            if len(rows) > 1:
                say(rows[-2].text())
        # That what the last fault left can be gone on from.
        if rows:
            try:
                process, log = runs.start("run", "trainer.save_freq=1", "trainer.total_epochs=100000")
                rows[-1].resumes = f"goes on from step {runs.await_steps(process, log, 1)[0] - 1}"
            except RuntimeError as error:
                rows[-1].resumes = f"no: {error}"
            say(rows[-1].text())
    return rows


def equal_runs(folder: Path, steps: int = 4) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """The numbers of a run of two ranks on one host, and on two."""
    from tiny_model import build_all

    build_all(folder)
    found = []
    for count in (1, 2):
        with Hosts(folder, count) as hosts:
            runs, name = Drill(hosts, folder, gpus=2 // count), f"hosts{count}"
            process, log = runs.start(
                name, f"trainer.total_training_steps={steps}", "actor_rollout_ref.rollout.top_k=1"
            )
            if process.wait(timeout=START_S) != 0:
                raise RuntimeError(f"the run on {count} hosts: {last_line(log)}")
            found.append(numbers(read_metrics(runs.metrics(name))))
            if len(found[-1]) < steps:
                raise RuntimeError(f"the run on {count} hosts wrote the metrics of {len(found[-1])} of {steps} steps")
    return found[0], found[1]


def numbers(metrics: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """What is computed and not measured."""
    return {
        step: {
            name: value
            for name, value in of_step.items()
            if name.startswith(("actor/", "disc/", "gad/", "critic/")) and not re.search(r"_s$|memory|perf|mfu", name)
        }
        for step, of_step in metrics.items()
    }


def main() -> int:
    reason = why_not()
    if reason is not None:
        print(f"no drill: {reason}")
        return 0
    # The hosts go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = sys.argv[1:] or list(FAULTS)
    with tempfile.TemporaryDirectory(prefix="gad_drill_") as place:
        if names == ["equal"]:
            one, two = equal_runs(Path(place))
            print(json.dumps({"one host": one, "two hosts": two, "equal": one == two}, indent=1))
            return int(one != two)
        drill(names, Path(place), lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
