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
"""``python -m gad_verl.tools.doctor.ray_ready``: wait until a Ray cluster has all its nodes.

A run that starts before the last node has joined fails, or takes fewer GPUs than it was told to.
"""

import argparse
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gad_verl.errors import USER_ERRORS, GadClusterError

logger = logging.getLogger(__name__)


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
        raise GadClusterError(f"--address {address}: HOST:PORT of the head is wanted")
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


def missing(nodes: Sequence[Node], wanted: int, gpus: int) -> str | None:
    """What the cluster lacks, in words; None if it is whole.

    Args:
        nodes: Its nodes.
        wanted: How many there should be.
        gpus: GPUs that each of them should offer.
    """
    names = ", ".join(f"{node.address} ({node.gpus} GPUs)" for node in nodes) or "none"
    if len(nodes) < wanted:
        return f"{len(nodes)} of {wanted} nodes have joined: {names}"
    poor = [node for node in nodes if node.gpus < gpus]
    if len(nodes) - len(poor) < wanted:
        return f"{len(poor)} of {len(nodes)} nodes have fewer than {gpus} GPUs: {names}"
    return None


def wait_until_ready(
    read: Callable[[], Sequence[Node]],
    wanted: int,
    gpus: int,
    timeout_s: float,
    poll_s: float = 3.0,
    sleep: Callable[[float], Any] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Sequence[Node]:
    """Look at the cluster until it is whole.

    Args:
        read: Reads the nodes; a ConnectionError means that the head is not up yet.
        wanted: Nodes that the run needs.
        gpus: GPUs of each of them.
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
            lack = missing(nodes, wanted, gpus)
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, or 2 for a cluster that did not get whole."""
    parser = argparse.ArgumentParser(
        prog="python -m gad_verl.tools.doctor.ray_ready", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="of the head")
    parser.add_argument("--nodes", type=int, required=True, help="nodes that the run needs")
    parser.add_argument("--gpus-per-node", type=int, default=0, help="GPUs of each (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds (default: %(default)s)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        nodes = wait_until_ready(
            lambda: read_nodes(arguments.address), arguments.nodes, arguments.gpus_per_node, arguments.timeout
        )
    except USER_ERRORS as error:
        sys.stderr.write(f"gad_verl: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(f"the Ray cluster has {len(nodes)} nodes and {sum(node.gpus for node in nodes)} GPUs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
