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
"""The job for KubeRay: fields of the published schema, parts that fit each other, a script that does as it says."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "gad"
SCRIPT = RECIPE / "on_kuberay.sh"

# Names of ray.io/v1 RayJob, read from helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of ray-project/kuberay at
# feeaf72fa (2026-08-19), as far as a job for us could use them.
JOB = {
    *(
        "activeDeadlineSeconds",
        "backoffLimit",
        "clusterSelector",
        "deletionStrategy",
        "entrypoint",
        "entrypointNumCpus",
    ),
    *("entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "preRunningDeadlineSeconds"),
    *("rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"),
    *("submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}
CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
    *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs"),
}
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"),
    *("replicas", "resources", "scaleStrategy", "suspend", "template"),
}
POD = {
    *(
        "affinity",
        "containers",
        "hostNetwork",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
        "priorityClassName",
    ),
    *(
        "restartPolicy",
        "schedulerName",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
        "tolerations",
        "volumes",
    ),
}
CONTAINER = {
    *("args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "name", "ports", "resources"),
    *("securityContext", "volumeMounts", "workingDir"),
}


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((RECIPE / "rayjob.yaml").read_text(encoding="utf-8"))


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for group in groups(job) for one in group["template"]["spec"]["containers"]]


def environment(job: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in containers(job)[0]["env"]}


def test_all_fields_are_in_the_schema(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= JOB and set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS and {"groupName", "maxReplicas", "minReplicas", "template"} <= set(group)
    for group in groups(job):
        assert set(group["template"]["spec"]) <= POD
        # The schema takes text alone.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for container in containers(job):
        assert set(container) <= CONTAINER and set(container["lifecycle"]) <= {"postStart", "preStop"}
        assert all(set(one) == {"name", "value"} and isinstance(one["value"], str) for one in container["env"])


def test_kuberay_accepts_what_goes_together(job: dict[str, Any]) -> None:
    spec = job["spec"]
    # ray-operator/controllers/ray/utils/validation.go
    assert spec["backoffLimit"] > 0 and "clusterSelector" not in spec and spec["submissionMode"] == "K8sJobMode"
    assert spec["shutdownAfterJobFinishes"] or "ttlSecondsAfterFinished" not in spec


def test_sizes_agree(job: dict[str, Any]) -> None:
    variables = environment(job)
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert int(variables["NNODES"]) == 1 + sum(group["replicas"] for group in workers)
    assert all(group["minReplicas"] == group["replicas"] == group["maxReplicas"] for group in workers)
    for group, container in zip(groups(job), containers(job), strict=True):
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert gpus == variables["NGPUS_PER_NODE"] == group["rayStartParams"]["num-gpus"]


def test_what_all_nodes_need_lies_on_the_shared_volume(job: dict[str, Any]) -> None:
    for group, container in zip(groups(job), containers(job), strict=True):
        volumes = {one["name"] for one in group["template"]["spec"]["volumes"]}
        mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert set(mounts) == volumes and mounts["shared"] == "/shared"
    paths = [value for name, value in environment(job).items() if name.endswith(("_PATH", "_FILE", "_DIR"))]
    named = [*paths, *job["spec"]["entrypoint"].split()[1:]]
    assert len(named) >= 7 and all(path.startswith("/shared/") for path in named)
    scripts = [path for path in named if path.endswith(".sh")]
    assert scripts and all((RECIPE / Path(path).name).is_file() for path in scripts)


def test_the_hook_ends_before_the_pod_does(job: dict[str, Any]) -> None:
    wait = int(
        next(line for line in SCRIPT.read_text().splitlines() if line.startswith("SAVE_TIMEOUT_S")).split(":-")[1][:-1]
    )
    for group, container in zip(groups(job), containers(job), strict=True):
        assert wait < group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "--stop"


# ------------------------------ the script ------------------------------


# What a run does that is asked to end: it saves, and answers.
ANSWER = 'mv "$GAD_STOP_FILE" "$GAD_STOP_FILE.done"'


def run(
    tmp_path: Path, *arguments: str, code: int = 0, doctor: int = 0, lines: str = "", ready: str = "", **variables: str
) -> tuple[int, list[str], str]:
    """The script with stand-ins for Python and the run script; its code, their calls, and what it said.

    ``ready`` happens while the nodes join, ``lines`` while the run trains.
    """
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "python $*" >> {calls}\n{ready}\nexit {doctor}\n')
    python.chmod(0o755)
    script = tmp_path / "run.sh"
    script.write_text(
        f'echo "run ${{DRY_RUN:-0}} $NNODES of $CLUSTER_NNODES $RAY_ADDRESS $*" >> {calls}\n'
        f'[ "${{DRY_RUN:-0}}" = 1 ] && exit 0\n{lines}\nexit {code}\n'
    )
    env = {**os.environ, "PYTHON": str(python), "GAD_STOP_FILE": str(tmp_path / "stop"), **variables}
    given = [str(script) if one == "RUN" else one for one in arguments]
    done = subprocess.run(["bash", str(SCRIPT), *given], env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stdout + done.stderr


def test_nodes_first_then_a_dry_run_then_the_run(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    found = run(tmp_path, "RUN", "a=1", code=75, RAY_ADDRESS="10.0.0.1:6379", NNODES="2")
    code, (doctor, *runs), text = found
    assert code == 75 and "ended with code 75" in text
    assert "doctor --cluster 10.0.0.1:6379" in doctor and "trainer.nnodes=2" in doctor
    assert runs == ["run 1 2 of 2 10.0.0.1:6379 a=1", "run 0 2 of 2 10.0.0.1:6379 a=1"]
    # What asked the try before to end does not end this one.
    assert not (tmp_path / "stop").exists()


def test_a_cluster_that_is_not_whole_starts_nothing(tmp_path: Path) -> None:
    code, calls, _ = run(tmp_path, "RUN", doctor=2, RAY_ADDRESS="10.0.0.1:6379")
    assert code == 2 and len(calls) == 1


@pytest.mark.parametrize("arguments", [(), ("/no/such.sh",)])
def test_without_a_script_or_an_address(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, calls, text = run(tmp_path, *arguments, RAY_ADDRESS="10.0.0.1:6379")
    assert code == 2 and not calls and "usage" in text
    code, calls, text = run(tmp_path, "RUN", RAY_ADDRESS="")
    assert code != 0 and not calls and "RAY_ADDRESS" in text


def test_the_hook_asks_and_waits_for_the_answer(tmp_path: Path) -> None:
    code, calls, _ = run(tmp_path, "--stop", SAVE_TIMEOUT_S="1")
    assert code == 0 and not calls and (tmp_path / "stop").exists()
    (tmp_path / "stop.done").touch()
    assert run(tmp_path, "--stop", SAVE_TIMEOUT_S="50")[0] == 0
    # Another pod's hook, once the run has answered, asks nobody.
    (tmp_path / "stop").unlink()
    assert run(tmp_path, "--stop", SAVE_TIMEOUT_S="50")[0] == 0 and not (tmp_path / "stop").exists()


HOOK = f"bash {SCRIPT} --stop & until [ -e $GAD_STOP_FILE ]; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"{HOOK}\n{ANSWER}", 75),
        # A person asks; and asked first, before a pod was taken away.
        (f"touch $GAD_STOP_FILE\n{ANSWER}", 0),
        (f"touch $GAD_STOP_FILE\n{HOOK}\nsleep 0.5\n{ANSWER}", 0),
        # The last step was made in these minutes.
        (HOOK, 0),
        ("", 0),
    ],
)
def test_a_preempted_run_is_tried_again_and_one_that_a_person_ended_is_not(
    tmp_path: Path, lines: str, expected: int
) -> None:
    code, _, text = run(tmp_path, "RUN", lines=lines, RAY_ADDRESS="10.0.0.1:6379", SAVE_TIMEOUT_S="20")
    assert code == expected, text
    # The next try begins without any of the marks.
    assert run(tmp_path, "RUN", RAY_ADDRESS="10.0.0.1:6379")[0] == 0
    assert sorted(path.name for path in tmp_path.glob("stop*")) == ["stop.ended"]


def test_a_pod_that_is_taken_away_before_the_run_begins(tmp_path: Path) -> None:
    code, calls, text = run(tmp_path, "RUN", ready=HOOK, RAY_ADDRESS="10.0.0.1:6379", SAVE_TIMEOUT_S="20")
    assert code == 75 and "taken away" in text
    assert [call for call in calls if call.startswith("run 0")] == []


@pytest.mark.parametrize(("code", "doctor"), [(0, 0), (1, 0), (0, 2)])
def test_the_hook_of_a_cluster_that_is_deleted_asks_nobody(tmp_path: Path, code: int, doctor: int) -> None:
    run(tmp_path, "RUN", code=code, doctor=doctor, RAY_ADDRESS="10.0.0.1:6379")
    # It would wait longer than this test does.
    assert run(tmp_path, "--stop", SAVE_TIMEOUT_S="1000")[0] == 0
    assert not (tmp_path / "stop").exists() and not (tmp_path / "stop.preempted").exists()


def test_the_hook_ends_with_the_script_that_it_waits_for(tmp_path: Path) -> None:
    code, _, _ = run(tmp_path, "RUN", lines=HOOK, code=1, RAY_ADDRESS="10.0.0.1:6379", SAVE_TIMEOUT_S="1000")
    # subprocess.run has waited for the hook too: it holds the pipe of the output.
    assert code == 1
