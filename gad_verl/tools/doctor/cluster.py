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
"""``gad-verl doctor --cluster``: wait until a Ray cluster has all nodes and GPUs of a run, and ask each node.

A run that starts before the last node has joined fails, or takes fewer GPUs than it was told to.
"""

import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gad_verl.config.modes import rollout_gpus
from gad_verl.data.file_stamps import file_list
from gad_verl.errors import GadClusterError
from gad_verl.tools.doctor.finding import Finding, ok
from gad_verl.tools.doctor.nodes import ask_nodes, judge

logger = logging.getLogger(__name__)

_PARTS = ("actor_rollout_ref", "discriminator")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Args:
        address: Its IP address.
        gpus: GPUs that it offers.
    """

    address: str
    gpus: int


def read_nodes(address: str) -> list[Node]:
    """The nodes that are alive now.

    Args:
        address: HOST:PORT of the head.

    Raises:
        ConnectionError: If the head does not answer, or does not let us in.
        GadClusterError: If the address is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise GadClusterError(f"--cluster {address}: HOST:PORT of the head is wanted")
    try:
        # ray.init tries for minutes where nobody listens.
        with socket.create_connection((host, int(port)), timeout=5.0):
            pass
    except OSError as error:
        raise ConnectionError(f"{address}: {error}") from None
    import ray

    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        nodes = ray.nodes()
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise ConnectionError(f"{address}: {error}") from error
    return [
        Node(str(node["NodeManagerAddress"]), int(node["Resources"].get("GPU", 0))) for node in nodes if node["Alive"]
    ]


@dataclass(frozen=True)
class Need:
    """What a run takes of a cluster.

    Args:
        nodes: Nodes of the student's pool.
        gpus: GPUs of each of them.
        more_gpus: GPUs of a pool of the discriminator's, wherever they are.
        rollout_gpus: GPUs of a rollout with machines of its own, wherever they are.
    """

    nodes: int
    gpus: int
    more_gpus: int = 0
    rollout_gpus: int = 0


def need_of(config: Any) -> Need:
    """What a composed configuration asks for."""
    trainer, gad = config.trainer, config.get("gad", None) or {}
    if str(trainer.get("device", "cuda")) == "cpu":
        return Need(trainer.nnodes, 0)
    more = gad.get("discriminator_nnodes", 0) * gad.get("discriminator_n_gpus_per_node", 0)
    return Need(trainer.nnodes, trainer.n_gpus_per_node, more, rollout_gpus(config))


def missing(nodes: Sequence[Node], need: Need) -> str | None:
    """What the cluster lacks, in words; None if it is whole.

    Args:
        nodes: Its nodes.
        need: What there should be.
    """
    names = ", ".join(f"{node.address} ({node.gpus} GPUs)" for node in nodes) or "none"
    if len(nodes) < need.nodes:
        return f"{len(nodes)} of {need.nodes} nodes have joined: {names}"
    poor = [node for node in nodes if node.gpus < need.gpus]
    if len(nodes) - len(poor) < need.nodes:
        return f"{len(poor)} of {len(nodes)} nodes have fewer than {need.gpus} GPUs: {names}"
    others = {"the discriminator": need.more_gpus, "the rollout": need.rollout_gpus}
    found, total = sum(node.gpus for node in nodes), need.nodes * need.gpus + sum(others.values())
    if found < total:
        those = " and ".join(f"{gpus} of them for {whom}" for whom, gpus in others.items() if gpus)
        return f"{found} of {total} GPUs have joined, {those}: {names}"
    return None


def wait_until_ready(
    read: Callable[[], Sequence[Node]],
    need: Need,
    timeout_s: float,
    poll_s: float = 3.0,
    sleep: Callable[[float], Any] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Sequence[Node]:
    """Look at the cluster until it is whole.

    Args:
        read: Reads the nodes; a ConnectionError means that the head is not up yet.
        need: What the run takes.
        timeout_s: Seconds after which to give up.
        poll_s: Seconds between two looks.
        sleep: Waits.
        now: A clock in seconds.

    Raises:
        GadClusterError: If it is not whole in time; says what is missing.
    """
    end, said = now() + timeout_s, ""
    while True:
        nodes: Sequence[Node] = ()
        try:
            nodes = read()
            lack = missing(nodes, need)
        except ConnectionError as error:
            lack = f"the head does not answer ({' '.join(str(error).split())[:200]})"
        if lack is None:
            return nodes
        if lack != said:
            logger.info("waiting: %s", lack)
            said = lack
        if now() >= end:
            raise GadClusterError(
                f"after {timeout_s:.0f} s the Ray cluster is not whole: {lack}. Look at the output of `ray start` on "
                "the missing nodes: all of them must reach the head's address, run the same version of Ray and share "
                "its token (RAY_AUTH_TOKEN or ~/.ray/auth_token)"
            )
        sleep(min(poll_s, max(0.0, end - now())))


def check_cluster(config: Any, address: str, timeout_s: float) -> list[Finding]:
    """Wait for the cluster of a run.

    Args:
        config: The run's configuration.
        address: HOST:PORT of the head.
        timeout_s: Seconds after which to give up.

    Raises:
        GadClusterError: If it is not whole in time; says what is missing.
    """
    nodes = wait_until_ready(lambda: read_nodes(address), need_of(config), timeout_s)
    found = ok("Ray cluster", f"{len(nodes)} nodes and {sum(node.gpus for node in nodes)} GPUs at {address}")
    paths, folder = paths_of(config)
    return [found, *judge(ask_nodes(paths, folder), folder)]


def paths_of(config: Any) -> tuple[list[str], Path | None]:
    """What a run reads, as far as it is there on this node, and the folder that it writes to.

    A path that this node lacks too is no question of the cluster: the check before a run names it.
    """
    models = [OmegaConf.select(config, f"{part}.model.path", default=None) for part in _PARTS]
    data = [path for key in ("train_files", "val_files") for path in file_list(config.data.get(key, None) or [])]
    paths = [str(path) for path in dict.fromkeys([*data, *models]) if path and Path(str(path)).exists()]
    saves = config.trainer.get("save_freq", -1) > 0
    return paths, Path(config.trainer.default_local_dir).absolute() if saves else None
