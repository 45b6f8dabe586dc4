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
"""What processes on other nodes do not get from the shell of the launch by themselves."""

import os
import socket

import psutil
import ray

_INTERFACE = "GLOO_SOCKET_IFNAME"


def interface_of(address: str) -> str | None:
    """The network interface that has an IP address; None where none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return None


def resolved(host: str) -> set[str]:
    """IP addresses of a host name; none where it has none."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def choose_interface() -> None:
    """Let gloo use the interface by which Ray knows this node, where the node's own name means another address.

    gloo tells the other ranks the address of the host's name, which on Debian and Ubuntu is 127.0.1.1: no other node
    can connect to it. GPUs meet this too, since verl's groups have a part for the CPU.
    """
    if os.environ.get(_INTERFACE) or not ray.is_initialized():
        return
    address = ray.util.get_node_ip_address()
    if address.startswith("127.") or address in resolved(socket.gethostname()):
        return
    interface = interface_of(address)
    if interface is not None:
        os.environ[_INTERFACE] = interface
