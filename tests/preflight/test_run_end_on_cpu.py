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
"""The last line and the exit code of a run that failed, with the errors that Ray really makes of them."""

from typing import Any

import pytest
import ray
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError, WorkerCrashedError

from gad_verl.errors import GadCheckpointError, GadDataError, GadStalledError
from gad_verl.preflight import PreflightCallback, run_end
from gad_verl.preflight.run_end import ended_by, reason_and_code
from gad_verl.trainer import deaths as deaths_module


def of_ray(cause: Exception) -> Exception:
    """As the starting process gets the error of the trainer's."""
    error = RayTaskError("run", f"Traceback ...\n{cause}", cause)
    return error.as_instanceof_cause()


def raised_from(error: Exception, behind: Exception) -> Exception:
    try:
        raise error from behind
    except Exception as found:
        return found


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (GadDataError("row 3 has no text"), 2, "GadDataError"),
        (of_ray(GadCheckpointError("no space")), 2, "GadCheckpointError"),
        (of_ray(GadStalledError("worker student 0 died")), 75, "GadStalledError"),
        (ActorDiedError(), 75, "ActorDiedError"),
        (WorkerCrashedError(), 75, "WorkerCrashedError"),
        (of_ray(raised_from(RuntimeError("in verl"), ConnectionResetError("peer"))), 75, "ConnectionResetError"),
        (raised_from(GadStalledError("worker 1 died"), RuntimeError("Enable ...")), 75, "GadStalledError"),
        (RuntimeError("a bug"), 1, "RuntimeError"),
        (of_ray(ZeroDivisionError("a bug")), 1, "ZeroDivisionError"),
    ],
)
def test_codes_and_the_last_line(error: Exception, code: int, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    reason, found = reason_and_code(error)
    assert found == code
    config = OmegaConf.create({"trainer": {"v1": {"trainer_mode": "gad_sync"}}})
    done: Any = JobReturn()
    done.status = JobStatus.FAILED
    done.return_value = error
    with pytest.raises(SystemExit) as ended:
        PreflightCallback().on_job_end(config, done)
    assert ended.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("gad_verl: ") and name in lines[-1] and f"(exit code {code}" in lines[-1]
    assert ("the same command goes on" in lines[-1]) == (code == 75)
    # What a developer needs stands above.
    assert any(line.startswith("Traceback") or type(error).__name__ in line for line in lines[:-1])


@pytest.mark.parametrize(("mode", "status"), [("gad_sync", JobStatus.COMPLETED), ("sync", JobStatus.FAILED)])
def test_other_ends_and_other_trainers_are_left_alone(mode: str, status: JobStatus) -> None:
    done: Any = JobReturn()
    done.status = status
    done.return_value = RuntimeError("of verl")
    PreflightCallback().on_job_end(OmegaConf.create({"trainer": {"v1": {"trainer_mode": mode}}}), done)


def test_errors_that_lead_to_one_another_end() -> None:
    first, second = RuntimeError("1"), RuntimeError("2")
    first.__cause__, second.__cause__ = second, first
    assert reason_and_code(first) == (first, 1)


RUNNER = "f5b4f55e22464ecd6f4fc1ef04000000"
PLACE = "TaskRunnerV1 (process 7 on 10.0.0.2)"


@pytest.mark.parametrize(
    ("known", "deaths", "said"),
    [
        (True, {}, f"{PLACE} was lost: "),
        (True, {RUNNER: PLACE, "2": "Other (process 9 on 10.0.0.3)"}, f"{PLACE} was lost: "),
        (
            True,
            {"1": "Queue (process 8 on 10.0.0.3)", RUNNER: PLACE},
            f"Queue (process 8 on 10.0.0.3), and then {PLACE} ",
        ),
        (False, {}, None),
    ],
)
def test_an_actor_that_ray_names_by_its_number_is_named(
    known: bool,
    deaths: dict[str, str],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = {"ActorClassName": "main_ppo.TaskRunnerV1", "Pid": 7, "Address": {"IPAddress": "10.0.0.2"}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray._private.state, "actors", lambda asked: info if known and asked == RUNNER else {})
    monkeypatch.setattr(deaths_module, "sudden_deaths", lambda: deaths)
    monkeypatch.setattr(run_end, "head_address", lambda: None)
    error = ActorUnavailableError("Socket closed", bytes.fromhex(RUNNER))
    assert ended_by(error).code == 75
    line = capsys.readouterr().err.splitlines()[-1]
    assert (said or "ActorUnavailableError: ") in line and ("was lost" in line) == known
    assert RUNNER in line and "exit code 75" in line


@pytest.mark.parametrize("is_there", [True, False])
def test_a_head_that_was_lost_is_named(
    is_there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_end, "head_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(run_end, "accepts", lambda address: is_there and address == "10.0.0.1:6379")
    assert ended_by(ActorUnavailableError("Socket closed", bytes.fromhex(RUNNER))).code == 75
    line = capsys.readouterr().err.splitlines()[-1]
    assert ("the head of the Ray cluster at 10.0.0.1:6379 was lost: " in line) != is_there


def test_a_ray_that_is_half_gone_takes_no_last_line_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> str:
        raise RuntimeError("no worker any more")

    monkeypatch.setattr(run_end, "head_address", gone)
    assert ended_by(WorkerCrashedError()).code == 75
    assert capsys.readouterr().err.splitlines()[-1].startswith("gad_verl: WorkerCrashedError: ")
