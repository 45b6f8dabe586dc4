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
"""Runs cases of the probes, several in one process per world size, and hands out what each computed.

A probe is a module with ``run_case(rank, world_size, variant, model_folder, folder)``; it returns what rank 0 saves.
A test module lists its cases in ``PROBE_CASES`` and takes the fixture ``probes``: the cases of all modules of the
session that have the same world size run in the same processes, because starting torch and verl costs more than a case.

As a script: ``python probe_cases.py ROOT MODEL_FOLDER WORLD_SIZE MODULE:VARIANT...``
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

TESTS = Path(__file__).resolve().parents[1]
CASE_TIMEOUT_S = 300


@dataclass(frozen=True)
class Case:
    """A case of a probe: number of ranks, the probe's module, and which of its variants."""

    world_size: int
    module: str
    variant: str

    @property
    def name(self) -> str:
        return f"{self.module}:{self.variant}"

    def folder(self, root: Path) -> Path:
        """What the case may write to."""
        return root / f"{self.module}_{self.variant}_{self.world_size}"

    def output(self, root: Path) -> Path:
        """What the case computed; there once it is done."""
        return self.folder(root).with_suffix(".pt")


class Probes:
    """Results of cases; the processes of a world size start when the first of its results is asked for.

    Test processes beside each other may share a root: who asks first runs the cases of a world size for all.

    Args:
        root: Of everything that is written.
        model_folder: The tiny model.
        cases: All that are to run in this session.
    """

    def __init__(self, root: Path, model_folder: Path, cases: Iterable[Case]) -> None:
        self.root, self.model_folder = root, model_folder
        self._cases = list(dict.fromkeys(cases))
        self._errors: dict[Case, str] = {}
        self._results: dict[Case, Any] = {}

    def of(self, module: str) -> "Results":
        """Results of a probe by (world size, variant)."""
        return Results(lambda world_size, variant: self.result(Case(world_size, module, variant)))

    def result(self, case: Case) -> Any:
        """What the case computed.

        Raises:
            AssertionError: If it failed, with its error; other cases are not touched by that.
        """
        if case not in self._results and case not in self._errors:
            with FileLock(self.root / f"{case.world_size}.lock"):
                self._run([other for other in self._cases if other.world_size == case.world_size])
        assert case not in self._errors, f"{case}:\n{self._errors[case]}"
        return self._results[case]

    def _run(self, cases: list[Case]) -> None:
        """Run all; after one that fails, that hangs or takes its process along, the rest run in new processes."""
        self._collect(cases)
        while cases:
            first = cases[0]
            command = [sys.executable, str(Path(__file__)), str(self.root), str(self.model_folder)]
            command += [str(first.world_size), *(case.name for case in cases)]
            log = first.output(self.root).with_suffix(".log")
            with log.open("wb") as output:
                # A session of its own: ranks go with the process that started them.
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
                try:
                    process.wait(timeout=CASE_TIMEOUT_S * len(cases))
                    end = f"exit code {process.returncode}"
                except subprocess.TimeoutExpired:
                    end = f"not done within {CASE_TIMEOUT_S} s a case"
                finally:
                    if process.poll() is None:
                        os.killpg(process.pid, 9)
                        process.wait()
            self._collect(cases)
            if cases:
                self._errors[cases.pop(0)] = f"{end}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"

    def _collect(self, cases: list[Case]) -> None:
        while cases and cases[0].output(self.root).exists():
            case = cases.pop(0)
            self._results[case] = torch.load(case.output(self.root), weights_only=False)


@dataclass(frozen=True)
class Results:
    """Looks results up when they are asked for, so that a failed case fails its own tests alone."""

    find: Callable[[int, str], Any]

    def __getitem__(self, layout: tuple[int, str]) -> Any:
        return self.find(*layout)


def _run_on_rank(rank: int, root: str, model_folder: str, world_size: int, names: list[str]) -> None:
    import importlib

    for name in names:
        case = Case(world_size, *name.split(":"))
        folder = case.folder(Path(root))
        folder.mkdir(exist_ok=True)
        found = importlib.import_module(case.module).run_case(rank, world_size, case.variant, model_folder, folder)
        if rank == 0:
            # Under its name only when it is whole.
            part = case.output(Path(root)).with_suffix(".part")
            torch.save(found, part)
            part.rename(case.output(Path(root)))


def main() -> None:
    """Start the ranks."""
    from gloo_ranks import run_ranks

    root, model_folder, world_size, *names = sys.argv[1:]
    run_ranks(_run_on_rank, int(world_size), root, model_folder, int(world_size), names)


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS / folder) for folder in ("tools", "discriminator", "megatron", "student")]
    os.environ["VERL_PLATFORM"] = "cpu"
    main()
