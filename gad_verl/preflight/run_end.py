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
"""How a launch ends that did not come to its end: one last line, and an exit code that a script can read.

| code | meaning |
|---|---|
| 1 | an error that is neither: its traceback is above |
| 2 | something of the user's: configuration, data, checkpoint; starting again changes nothing |
| 75 | a worker, node or connection was lost: the same command goes on from the last checkpoint |
| 128 + n | the second signal n |
"""

import re
import sys
import threading
import traceback
from collections.abc import Iterator

from gad_verl.errors import USER_ERRORS, GadStalledError
from gad_verl.preflight.ray_head import accepts, head_address

FAILED, USERS_ERROR, WORTH_A_RESTART = 1, 2, 75
_ASK_S = 5.0
# By name, since the check before a run is not to import Ray.
_LOST = frozenset(
    {
        "ActorDiedError",
        "ActorUnavailableError",
        "ActorUnschedulableError",
        "LocalRayletDiedError",
        "NodeDiedError",
        "ObjectLostError",
        "OutOfMemoryError",
        "OwnerDiedError",
        "RaySystemError",
        "WorkerCrashedError",
    }
)


def reason_and_code(error: BaseException) -> tuple[BaseException, int]:
    """The error that says most of those behind one, and the code of a run that it ended."""
    for one in _chain(error):
        code = _code_of(one)
        if code is not None:
            return one, code
    return next(_chain(error)), FAILED


def refuse(text: str, code: int = USERS_ERROR) -> SystemExit:
    """What to raise where a run is not begun; ``text`` goes to stderr."""
    sys.stderr.write(f"{text}\n")
    return SystemExit(code)


def ended_by(error: BaseException) -> SystemExit:
    """What to raise after a run that failed: its traceback, the last line, and the code."""
    reason, code = reason_and_code(error)
    goes_on = "; the same command goes on from the last checkpoint" if code == WORTH_A_RESTART else ""
    lines = str(reason).strip().splitlines() or [""]
    lost = _lost_head() or _named_actor(str(reason)) if code == WORTH_A_RESTART else None
    text = lines[0] if lost is None else f"{lost} was lost: {lines[0]}"
    sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(f"gad_verl: {type(reason).__name__}: {text} (exit code {code}{goes_on})\n")
    return SystemExit(code)


def _lost_head() -> str | None:
    """The head, where it is what was lost: nobody can be asked for names then."""
    try:
        address = head_address()
    except Exception:
        # Ray may be half gone, and the last line is to be written all the same.
        return None
    return None if address is None or accepts(address) else f"the head of the Ray cluster at {address}"


def _named_actor(text: str) -> str | None:
    """The actor of an error of Ray, which says its number alone, with its process and node; None if it is not known.

    Another one that died before it stands before it: it may have taken this one along.
    """
    ray, found = sys.modules.get("ray"), re.search(r"\b[0-9a-f]{32}\b", text)
    if ray is None or found is None or not ray.is_initialized():
        return None
    names: list[str] = []

    def ask(identity: str) -> None:
        # Imports Ray, which is there.
        from gad_verl.trainer.deaths import sudden_deaths

        info = ray._private.state.actors(identity)
        if not info:
            return
        kind = info["ActorClassName"].rpartition(".")[2]
        name = f"{kind} (process {info['Pid']} on {info['Address']['IPAddress']})"
        first = next(iter(sudden_deaths().items()), (identity, name))
        names.append(name if first[0] == identity else f"{first[1]}, and then {name}")

    # Of a head that may be gone too: its silence is not waited for.
    asked = threading.Thread(target=ask, args=(found[0],), daemon=True)
    asked.start()
    asked.join(_ASK_S)
    return names[0] if names else None


def _code_of(error: BaseException) -> int | None:
    """By its own kind; None where that says nothing."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, GadStalledError | ConnectionError) or kinds & _LOST:
        return WORTH_A_RESTART
    return USERS_ERROR if isinstance(error, USER_ERRORS) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it; of one of Ray's, first that in the other process."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Ray's error of a task is also of the class of what it carries, with a whole traceback as its text.
        inner = getattr(error, "cause", None)
        if isinstance(inner, BaseException):
            yield from _chain(inner)
        yield error
        error = error.__cause__
