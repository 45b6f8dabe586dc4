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
"""``gad-verl doctor --cluster``, once all nodes have joined: what they see, asked on each of them."""

import importlib.metadata
import os
import platform
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadClusterError
from gad_verl.tools.doctor.finding import Finding, error, ok, warning
from gad_verl.tools.doctor.storage import existing_parent
from gad_verl.workers.surroundings import interface_of, resolved

# That differ between nodes at no run's good.
_PACKAGES = ("gad-verl", "verl", "ray", "torch", "transformers", "tensordict", "vllm", "TransferQueue")
_VARIABLES = ("GLOO_SOCKET_IFNAME", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "WANDB_API_KEY")
_NODE_S = 120.0
_LATE_S = 5.0


@dataclass(frozen=True)
class Seen:
    """What a process on a node sees.

    Args:
        address: Of the node in Ray.
        host: Its name.
        own_addresses: What that name resolves to.
        interface: Of the address; None where no interface has it.
        versions: Of packages; "none" where one is not installed.
        paths: Whether each path is there.
        has_probe: Whether the file that the asking process has just written is there.
        variables: Which of some variables of the environment are set; values of no key.
    """

    address: str
    host: str
    own_addresses: tuple[str, ...]
    interface: str | None
    versions: Mapping[str, str]
    paths: Mapping[str, bool]
    has_probe: bool
    variables: Mapping[str, bool]


def look_around(paths: Sequence[str], probe: str | None) -> dict[str, Any]:
    """What this process sees; runs on a node."""
    import ray

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    until = time.monotonic() + _LATE_S
    # Shared file systems show a new file late.
    while probe is not None and not Path(probe).exists() and time.monotonic() < until:
        time.sleep(0.2)
    address, host = ray.util.get_node_ip_address(), socket.gethostname()
    seen = Seen(
        address,
        host,
        tuple(sorted(resolved(host))),
        interface_of(address),
        {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        {path: Path(path).exists() for path in paths},
        probe is None or Path(probe).exists(),
        {name: bool(os.environ.get(name)) for name in _VARIABLES},
    )
    return asdict(seen)


def ask_nodes(paths: Sequence[str], folder: Path | None) -> list[Seen]:
    """Ask all living nodes of the cluster that this process has joined.

    Args:
        paths: That a run reads.
        folder: That it writes to; a file is put there and taken away again. None for a run that saves nothing.

    Raises:
        GadClusterError: If a node cannot be asked; names it. Or the folder cannot be written to.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = None
    if folder is not None:
        probe = existing_parent(folder) / f".gad_verl_doctor_{uuid.uuid4().hex}"
        try:
            probe.touch()
        except OSError as reason:
            raise GadClusterError(
                f"trainer.default_local_dir={folder}: nothing can be written to {probe.parent} ({reason.strerror}). "
                "Name a folder that this user may write to, on every node"
            ) from None
    try:
        ask = ray.remote(num_cpus=0)(look_around)
        futures = {
            node["NodeManagerAddress"]: ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(list(paths), None if probe is None else str(probe))
            for node in ray.nodes()
            if node["Alive"]
        }
        return [_answer(address, future) for address, future in futures.items()]
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)


def _answer(address: str, future: Any) -> Seen:
    import ray

    try:
        return Seen(**ray.get(future, timeout=_NODE_S))
    except ray.exceptions.RayError as reason:
        text = " ".join(str(reason).split())
        if "No module named" in text:
            text = text[text.index("No module named") :]
            remedy = "install the same environment there as here, and start Ray with its Python"
        else:
            remedy = "look at the log of its `ray start`"
        raise GadClusterError(f"the node {address} cannot be asked: {text[:200]}. {remedy.capitalize()}") from None


def judge(nodes: Sequence[Seen], folder: Path | None) -> list[Finding]:
    """What is wrong with nodes.

    Args:
        nodes: All of the cluster.
        folder: ``trainer.default_local_dir``; None where nothing is saved.
    """
    return [*_names(nodes), *_versions(nodes), *_files(nodes, folder), *_environment(nodes)]


def _names(nodes: Sequence[Seen]) -> list[Finding]:
    strange = [node for node in nodes if len(nodes) > 1 and node.address not in node.own_addresses]
    lost = [node for node in strange if node.interface is None and not node.variables.get("GLOO_SOCKET_IFNAME")]
    if lost:
        found = ", ".join(f"{node.host} ({node.address})" for node in lost)
        return [
            error(
                "names",
                f"no interface of {found} has the address by which Ray knows the node",
                "Start Ray there with --node-ip-address of an interface, or set GLOO_SOCKET_IFNAME before `ray start`",
            )
        ]
    if strange:
        found = ", ".join(f"{node.host} is {', '.join(node.own_addresses) or 'unknown'} to itself" for node in strange)
        return [ok("names", f"{found}; gloo takes the interface of Ray's address ({strange[0].interface})")]
    return [ok("names", f"{len(nodes)} nodes know themselves by the address by which Ray knows them")]


def _versions(nodes: Sequence[Seen]) -> list[Finding]:
    found = []
    for package in nodes[0].versions:
        of_nodes = {node.host: node.versions[package] for node in nodes}
        if len(set(of_nodes.values())) > 1:
            words = ", ".join(f"{version} on {host}" for host, version in of_nodes.items())
            found.append(error("versions", f"{package}: {words}", "Install the same environment on every node"))
        elif package in ("gad-verl", "verl") and "none" in of_nodes.values():
            remedy = "Install it in the environment of `ray start`: each process loads it by its entry point"
            found.append(error("versions", f"{package} is not installed on the nodes", remedy))
    return found or [ok("versions", f"the same on {len(nodes)} nodes: gad-verl {nodes[0].versions['gad-verl']}")]


def _files(nodes: Sequence[Seen], folder: Path | None) -> list[Finding]:
    found = []
    blind = [node.host for node in nodes if not node.has_probe]
    if blind:
        found.append(
            error(
                "shared folder",
                f"a file written to {folder} here is not seen on {', '.join(blind)}",
                "Set trainer.default_local_dir to a folder on a file system that all nodes mount under one path",
            )
        )
    for path in nodes[0].paths:
        lacking = [node.host for node in nodes if not node.paths[path]]
        if lacking:
            remedy = "Put it where all nodes see it under the same path"
            found.append(error("shared files", f"{path} is not there on {', '.join(lacking)}", remedy))
    return found or [ok("shared files", f"data, models and checkpoints are seen by {len(nodes)} nodes")]


def _environment(nodes: Sequence[Seen]) -> list[Finding]:
    found = []
    for name in _VARIABLES[1:]:
        lacking = [node.host for node in nodes if not node.variables[name]]
        if lacking and len(lacking) < len(nodes):
            text = f"{name} is set on some nodes, and not on {', '.join(lacking)}"
            found.append(
                warning("environment", text, "Set it before `ray start` on every node: the trainer may run there")
            )
    return found or [ok("environment", "the same keys and settings are there on every node")]
