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
"""What Ray's control store knows of the actors of this job that died: who, where, and whether for lack of memory."""

import re
from typing import Any

import ray

# Of Ray's reasons, those that nobody asked for.
_SUDDEN = ("WORKER_DIED", "NODE_DIED", "OWNER_DIED")
_LARGEST = 3  # processes that a report on memory names
_USED = re.compile(r"[\d.]+ ?GB used / [\d.]+ ?GB limit")
_PROCESS = re.compile(r"^\d+\t([\d.]+)\t(.+)$", re.MULTILINE)


def actor_id(actor: Any) -> str:
    """The id by which Ray's control store knows an actor."""
    return str(actor._actor_id.hex())


def actor_is_dead(actor: Any) -> bool:
    """Whether Ray's control store knows the actor as dead. Works without Ray's dashboard and beside a busy actor."""
    info = ray._private.state.actors(actor_id(actor))
    return bool(info) and info.get("State") == "DEAD"


def _dead() -> dict[str, Any]:
    """What Ray knows of each dead actor of this job, by its id; nothing without Ray."""
    if not ray.is_initialized():
        return {}
    return ray._private.state.actors(job_id=ray.get_runtime_context().job_id, actor_state_name="DEAD")


def sudden_deaths() -> dict[str, str]:
    """Actors of this job that died unasked, in words, by their id; who died first stands first.

    All of them, whoever made them: verl's load balancer and TransferQueue's controller and storage are attributes of
    nobody, and a run that has lost one waits in silence.
    """
    found = {}
    for identity, info in sorted(_dead().items(), key=lambda one: one[1]["EndTime"]):
        cause = info["DeathCause"]
        context = cause.actor_died_error_context
        # A worker that leaves by itself has died too, to Ray: its text tells the kind of the exit.
        sudden = context.Reason.Name(context.reason) in _SUDDEN and "INTENDED_" not in context.error_message
        if sudden or cause.HasField("oom_context"):
            place = f"process {info['Pid']} on {info['Address']['IPAddress']}"
            found[identity] = f"{info['ActorClassName'].rpartition('.')[2]} ({place})"
    return found


def memory_ran_out() -> str | None:
    """Why Ray killed workers of this job, if it did so for lack of memory: how full the node was, and by what.

    Ray ends what it can spare, not what took the memory, so that the names of the dead say nothing. Its figures are
    left out where its text has none that we know.
    """
    for info in _dead().values():
        if info["DeathCause"].HasField("oom_context"):
            return memory_report(info["DeathCause"].oom_context.error_message)
    return None


def memory_report(text: str) -> str:
    """One line of what Ray's memory monitor has written about a kill.

    Args:
        text: Ray's ``OomContext.error_message``.
    """
    used = _USED.search(text)
    # Of a command the program is enough; Ray's own processes have one word.
    largest = [f"{command.split()[0]} {gigabytes} GB" for gigabytes, command in _PROCESS.findall(text)[:_LARGEST]]
    report = "Ray killed workers because the memory of the node ran out"
    report += f" ({used[0]})" if used else ""
    return report + (f", most of it taken by {', '.join(largest)}" if largest else "")
