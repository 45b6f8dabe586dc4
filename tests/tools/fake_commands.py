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
"""Stand-ins for commands on PATH that write down how they were called."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Notes name, arguments and chosen variables of a call, then runs the rest of the stand-in.
_NOTE = """#!{python} -S
import json, os, sys
call = dict(name={name!r}, arguments=sys.argv[1:])
call["variables"] = dict((key, os.environ[key]) for key in {variables!r} if key in os.environ)
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
{body}
"""


class FakeCommands:
    """A folder of commands, to be put in front of PATH.

    Args:
        folder: Is made; holds the commands and the notes of their calls.
        variables: Environment variables that are noted with each call.
    """

    def __init__(self, folder: Path, variables: tuple[str, ...] = ()) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir(parents=True)
        self.log = folder / "calls.jsonl"
        self._variables = variables

    def add(self, name: str, body: str = "") -> Path:
        """Add a command; ``body`` is Python that runs after the call was noted (``os``, ``sys`` are imported)."""
        path = self.folder / name
        text = _NOTE.format(python=sys.executable, name=name, variables=self._variables, log=str(self.log), body=body)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def calls(self, name: str | None = None) -> list[dict]:
        """Calls so far, in order: ``name``, ``arguments``, ``variables``."""
        if not self.log.exists():
            return []
        calls = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [call for call in calls if name in (None, call["name"])]

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment in which the commands are found first, with nothing of the caller's but PATH."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": "/home/user", **(variables or {})}
