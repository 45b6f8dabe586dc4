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
"""What a check found, and how checks are run so that one that fails does not stop the others."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gad_verl.errors import USER_ERRORS

OK, WARNING, ERROR = "ok", "warning", "error"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: What was looked at.
        level: ``ok``, ``warning`` or ``error``.
        found: What was found.
        remedy: What to do; empty where there is nothing to do.
    """

    check: str
    level: str
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """A run may go wrong or be slow."""
    return Finding(check, WARNING, found, remedy)


def error(check: str, found: str, remedy: str) -> Finding:
    """A run will not work."""
    return Finding(check, ERROR, found, remedy)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def collected_warnings(name: str = "gad_verl") -> Iterator[list[str]]:
    """Takes the warnings of a logger and its children instead of letting them be printed."""
    target, collector = logging.getLogger(name), _Collector()
    propagated = target.propagate
    target.addHandler(collector)
    target.propagate = False
    try:
        yield collector.texts
    finally:
        target.removeHandler(collector)
        target.propagate = propagated


def run_check(name: str, check: Callable[[], Sequence[Finding]]) -> list[Finding]:
    """Run one check; whatever it raises becomes a finding, and so do the warnings that it logs."""
    with collected_warnings() as logged:
        try:
            found = list(check())
        except USER_ERRORS as reason:
            found = [Finding(name, ERROR, str(reason))]
        except KeyboardInterrupt:
            raise
        except (Exception, SystemExit) as reason:
            text = " ".join(f"{type(reason).__name__}: {reason}".split())[:500]
            remedy = "Mend what it names; the other checks went on. If it is a fault of gad_verl, report it"
            found = [error(name, f"the check itself failed: {text}", remedy)]
    return found + [Finding(name, WARNING, text) for text in logged]


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """0 if a run may be started, 1 if not; ``strict`` lets warnings count as errors."""
    bad = (ERROR, WARNING) if strict else (ERROR,)
    return int(any(finding.level in bad for finding in findings))


def render(findings: Sequence[Finding]) -> str:
    """All findings as text."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        first, *more = finding.found.splitlines() or [""]
        indent = " " * (9 + width + 2)
        lines.append(f"{finding.level:<9}{finding.check:<{width}}  {first}")
        lines += [indent + line for line in more]
        if finding.remedy:
            lines.append(f"{indent}-> {finding.remedy}")
    counts = [sum(finding.level == level for finding in findings) for level in (OK, WARNING, ERROR)]
    lines.append(f"{counts[0]} ok, {counts[1]} warnings, {counts[2]} errors")
    return "\n".join(lines) + "\n"
