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
"""Hosts on one machine: network namespaces on a bridge, each with a name, an address and a Ray node of its own.

As on Debian and Ubuntu, a host's own name resolves to 127.0.1.1. Needs the right to make namespaces (root).
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_BRIDGE = "gadbr0"
_PORT = 6379
_TOKEN = secrets.token_hex(32)
# In the mount namespace of one process: a name, a file of hosts and a temporary folder of Ray's of its own.
_ENTER = 'hostname "$1" && mount --bind "$2/hosts" /etc/hosts && mount --bind "$2/ray" /tmp/ray && shift 2 && exec "$@"'


def why_not() -> str | None:
    """Why there can be no hosts here; None where there can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    tried = subprocess.run(
        ["sh", "-c", "ip netns add gadtry && ip netns del gadtry && unshare --uts --mount true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"no right to make network namespaces ({tried.stderr.strip()[:120]})"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """One of them.

    Args:
        number: From 1.
        folder: Of what it keeps.
        processes: That were started on it.
    """

    number: int
    folder: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"gadhost{self.number}"

    @property
    def address(self) -> str:
        return f"10.213.77.{self.number}"

    def start(self, command: Sequence[str], log: Path, env: dict[str, str], cwd: Path) -> subprocess.Popen:
        """Start a program on the host."""
        enter = ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount", "sh", "-c", _ENTER, "sh"]
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*enter, self.name, str(self.folder), *command],
                cwd=cwd,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def running(self) -> list[psutil.Process]:
        """All processes of the host."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout
        found = []
        for pid in listed.split():
            with suppress(psutil.Error):
                process = psutil.Process(int(pid))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, *parts: str) -> list[psutil.Process]:
        """Those whose command line holds one of some words."""
        found = []
        for process in self.running():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if any(part in line for part in parts):
                    found.append(process)
        return found

    def unplug(self) -> None:
        """Take the host off the network."""
        _ip("link", "set", f"gadveth{self.number}", "down")

    def plug(self) -> None:
        """Bring it back."""
        _ip("link", "set", f"gadveth{self.number}", "up")

    def end(self) -> None:
        """End all that runs on it."""
        for process in self.running():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        self.processes.clear()


class Hosts:
    """Some hosts and a Ray cluster on them, while the context lasts.

    Args:
        folder: Of what they keep; all hosts see it, as a shared file system.
        count: How many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.hosts = [Host(number, folder / f"host{number}") for number in range(1, count + 1)]
        self._folder = folder

    def __enter__(self) -> "Hosts":
        self._remove()
        Path("/tmp/ray").mkdir(exist_ok=True)
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("link", "set", _BRIDGE, "up")
        for host in self.hosts:
            (host.folder / "ray").mkdir(parents=True, exist_ok=True)
            others = "".join(f"{other.address} {other.name}\n" for other in self.hosts if other is not host)
            own = f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n"
            (host.folder / "hosts").write_text(own + others, encoding="utf-8")
            _ip("netns", "add", host.name)
            _ip("link", "add", f"gadveth{host.number}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", f"gadveth{host.number}", "master", _BRIDGE, "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "lo", "up")
            _ip("-n", host.name, "link", "set", "eth0", "up")
            _ip("-n", host.name, "route", "add", "default", "dev", "eth0")
        return self

    def __exit__(self, *_: Any) -> None:
        for host in self.hosts:
            host.end()
        self._remove()

    def _remove(self) -> None:
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
            subprocess.run(["ip", "link", "del", f"gadveth{host.number}"], capture_output=True)
        subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True)

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def ray_address(self) -> str:
        return f"{self.head.address}:{_PORT}"

    def start_ray(self, env: dict[str, str], gpus: int) -> None:
        """A node of Ray on each host, with so many logical GPUs; what ran before is ended."""
        for host in self.hosts:
            host.end()
            host.plug()
            shutil.rmtree(host.folder / "ray", ignore_errors=True)
            (host.folder / "ray").mkdir()
        for host in self.hosts:
            where = ["--head", f"--port={_PORT}"] if host is self.head else [f"--address={self.ray_address}"]
            options = ["--num-cpus=16", f"--num-gpus={gpus}", "--object-store-memory=200000000", "--block"]
            more = ["--include-dashboard=false"] if host is self.head else []
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *options, *more]
            command += [f"--node-ip-address={host.address}", "--disable-usage-stats"]
            host.start(command, self._folder / f"ray{host.number}.log", env, self._folder)
            self._await_raylet(host)

    def _await_raylet(self, host: Host) -> None:
        end = time.monotonic() + 60
        while not host.named("raylet/raylet"):
            if time.monotonic() > end:
                log = (self._folder / f"ray{host.number}.log").read_text(errors="replace")[-2000:]
                raise OSError(f"Ray did not start on {host.name}:\n{log}")
            time.sleep(0.5)


def environment(**more: str) -> dict[str, str]:
    """Of all programs on the hosts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "VERL_FILE_LOGGER"))}
    # Newer versions of Ray ask for a token, which all nodes have to share.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    return kept | {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"} | token | more
