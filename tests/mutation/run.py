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
"""Do the tests notice when the code is wrong? Changes it in one place at a time, runs the tests and counts.

    python tests/mutation/run.py gad_verl/trainer --jobs 2         # every mutant; goes on where it was interrupted
    python tests/mutation/run.py gad_verl/core --tests tests/core --sample 60 --seed 1
    python tests/mutation/run.py --survivors                       # only those that survived the last time
    python tests/mutation/run.py --faults tests/mutation/faults.json

The first run of the tests, without a change, records which test runs which line; a mutant is tried with those tests
only, the quick ones first, up to the first failure. Libraries are imported once; each mutant has a forked process, in
which the changed text is loaded instead of the file. No file of the package is changed. What tests start as a program
of its own does not see the mutant. What is changed and what is not: ``mutation_kinds.py``.

Records and results lie in ``build/mutation``. Exit code: 1 if a fault of a list survives or is caught by time-out
only, 2 if the run makes no sense, else 0.
"""

import argparse
import fnmatch
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Before anything reads them: forked processes must have no threads beside them, and no hub to ask.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)

from mutation_coverage import Coverage, digest_of, prepare  # noqa: E402
from mutation_faults import FaultListError, read_faults  # noqa: E402
from mutation_kinds import Mutant, is_python, make_mutants  # noqa: E402
from mutation_loader import module_name  # noqa: E402
from mutation_process import Outcome, Task, run_tasks  # noqa: E402
from mutation_report import (  # noqa: E402
    CAUGHT,
    SURVIVED,
    TIMEOUT,
    UNREACHED,
    Result,
    Results,
    as_text,
    survivors_page,
    table,
)
from mutation_session import Selection, Suite, run_changed  # noqa: E402
from mutation_texts import Signatures, python_files  # noqa: E402

# A line of progress at least so often.
_PROGRESS_S = 15.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    root = options.root.resolve()
    # Whoever ends this process finds results, list and temporary folders as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.chdir(root)
    sys.path.insert(0, str(root))
    try:
        return _run_faults(options, root) if options.faults else _run_mutants(options, root)
    except (FileNotFoundError, FaultListError, RuntimeError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("gad_verl/trainer")], help="files or folders")
    parser.add_argument("--files", nargs="+", metavar="PATTERN", help="only files with such a name, as re*.py")
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the order; default 0")
    parser.add_argument("--survivors", action="store_true", help="try only what survived when it was last tried")
    parser.add_argument("--again", action="store_true", help="try what has a stored result too")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    parser.add_argument("--faults", type=Path, metavar="LIST", help="put in the faults of this list instead")
    parser.add_argument("--tests", nargs="+", type=Path, default=[Path("tests/trainer")], help="files or folders")
    parser.add_argument(
        "--without", nargs="*", default=["test_watchdog_ray_on_cpu.py"], metavar="PATTERN",
        help="test files to leave out; default: those that start Ray",
    )  # fmt: skip
    parser.add_argument("--marker", default="not e2e and not slow", help="pytest's -m")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time; default 2")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S",
        help="seconds a mutant may take beyond five times its tests, more on a busy machine; default 30",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("tests/mutation/survivors.md"), help="list of survivors")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="folder of package and tests")
    return parser


class _Bench:
    """Tries one changed file after the other."""

    def __init__(self, options: argparse.Namespace, root: Path, files: list[str]) -> None:
        self.targets = {module_name(root, root / file): root / file for file in files}
        self.folder = root / "build" / "mutation"
        self._options = options
        tests = [
            file for file in python_files(root, options.tests)
            if file.name.startswith("test_") and not any(fnmatch.fnmatch(file.name, name) for name in options.without)
        ]  # fmt: skip
        if not tests:
            raise FileNotFoundError(f"no test files in {', '.join(map(str, options.tests))}")
        self.suite = Suite(tuple(file.relative_to(root).as_posix() for file in tests), options.marker, root)
        # Helpers of the tests: whatever lies beside them and is no test.
        helpers = [
            file for file in python_files(root, [Path(Path(self.suite.files[0]).parts[0])])
            if not file.name.startswith("test_") and Path(__file__).parent not in file.parents
        ]  # fmt: skip
        packages = {Path(Path(file).parts[0]) for file in files}
        self.package_files = list(python_files(root, sorted(packages)))
        self.digest = digest_of([*tests, *helpers])
        self._shared = [*self.package_files, *helpers]
        self._all_files = [*self.package_files, *tests, *helpers]
        self._begin = digest_of(self._all_files)

    def prepare(self) -> Coverage:
        """Record what the tests run; say which fail as it is."""
        begin = time.monotonic()
        coverage = prepare(self.suite, self.targets, self._shared, self.folder, self._options.jobs, _say)
        for test in coverage.failed:
            _say(f"left out, for it fails without any change: {test}")
        if not coverage.tests:
            raise RuntimeError("no test passes without a change")
        _say(f"{len(coverage.tests)} tests, {sum(coverage.tests.values()):.0f} s; ready after {_span(begin)}")
        return coverage

    def check_unchanged(self) -> None:
        """Hold the files against those of the beginning: a test that fails for another reason catches no mutant.

        Raises:
            RuntimeError: If a file of the package or of the tests was changed or removed meanwhile.
        """
        try:
            is_same = digest_of(self._all_files) == self._begin
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise RuntimeError("the package or its tests were changed while they were tried; start the command again")

    def task(self, key: object, file: str, text: str, selection: Selection, first: list[str]) -> Task:
        """The call that runs the chosen tests with a changed text."""
        path = self.suite.root / file
        changed = (module_name(self.suite.root, path), path, text)
        limit_s = self._options.timeout + 5 * selection.seconds
        return Task(key, partial(run_changed, self.suite, changed, selection, first), limit_s)


def _run_mutants(options: argparse.Namespace, root: Path) -> int:
    files = [
        file for file in python_files(root, options.paths)
        if options.files is None or any(fnmatch.fnmatch(file.name, pattern) for pattern in options.files)
    ]  # fmt: skip
    if not files:
        raise FileNotFoundError(
            f"no file named {', '.join(options.files or [])} in {', '.join(map(str, options.paths))}"
        )
    texts = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
    bench = _Bench(options, root, list(texts))
    signatures = Signatures(bench.package_files)
    mutants = [mutant for file, text in texts.items() for mutant in make_mutants(file, text, signatures)]
    stored = Results(bench.folder / "results.jsonl")
    what = ["all mutants"]
    if options.survivors:
        mutants = [mutant for mutant in mutants if (known := stored.get(mutant, None)) and not known.is_caught]
        what = ["survivors of an earlier run"]
    total = len(mutants)
    random.Random(options.seed).shuffle(mutants)
    mutants = [mutant for mutant in mutants[: options.sample] if is_python(mutant.apply(texts[mutant.file]))]
    if options.sample is not None:
        what = [f"a sample of {len(mutants)} of {total}, seed {options.seed}"]
    if options.list:
        for mutant in sorted(mutants, key=lambda mutant: (mutant.file, mutant.start)):
            print(f"{mutant.file}:{mutant.line} {mutant.place} {mutant.kind} {mutant.id} -> {mutant.new!r}")
        return 0
    results = {} if options.again or options.survivors else _known(mutants, stored, bench.digest)
    open_mutants = [mutant for mutant in mutants if mutant not in results]
    _say(f"{total} mutants in {len(files)} files; to try: {len(open_mutants)}, stored: {len(results)}")
    tried = _try(bench, open_mutants, texts, options.jobs)
    try:
        for mutant, result in tried:
            bench.check_unchanged()
            results[mutant] = result
            stored.add(result)
    except KeyboardInterrupt:
        what.append(f"interrupted after {len(results)} of {len(mutants)}")
        raise
    finally:
        tried.close()
        print(as_text(table(results)))
        page = survivors_page(results, texts, ", ".join(what))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(page, encoding="utf-8")
        print(f"survivors: {options.output}")
    return 0


def _known(mutants: list[Mutant], stored: Results, tests: str) -> dict[Mutant, Result]:
    found = {mutant: stored.get(mutant, tests) for mutant in mutants}
    return {mutant: result for mutant, result in found.items() if result is not None}


def _try(bench: _Bench, mutants: list[Mutant], texts: dict[str, str], jobs: int) -> Iterator[tuple[Mutant, Result]]:
    """Try mutants, and yield each with its result as it comes."""
    if not mutants:
        return
    coverage = bench.prepare()
    selections = {mutant: coverage.selection(mutant.file, mutant.statements) for mutant in mutants}
    counts = dict.fromkeys((CAUGHT, TIMEOUT, SURVIVED, UNREACHED), 0)
    for mutant, selection in selections.items():
        if not selection.tests:
            counts[UNREACHED] += 1
            yield mutant, Result(mutant.id, bench.digest, UNREACHED)
    calls = (
        bench.task(mutant, mutant.file, mutant.apply(texts[mutant.file]), selection, coverage.first)
        for mutant, selection in selections.items() if selection.tests
    )  # fmt: skip
    number = len(mutants) - counts[UNREACHED]
    begin = said = time.monotonic()
    for done, (task, outcome) in enumerate(run_tasks(calls, jobs), start=1):
        result = _result(task.key.id, bench.digest, outcome)
        counts[result.status] += 1
        yield task.key, result
        now = time.monotonic()
        if now - said > _PROGRESS_S or done == number:
            said = now
            left_min = (now - begin) / done * (number - done) / 60
            words = ", ".join(f"{status} {count}" for status, count in counts.items())
            speed = f"{60 * done / (now - begin):.0f} a minute, about {left_min:.1f} min left"
            _say(f"{done}/{number} tried in {_span(begin)}: {words}; {speed}")


def _result(name: str, tests: str, outcome: Outcome) -> Result:
    seconds = round(outcome.seconds, 2)
    if outcome.timed_out:
        return Result(name, tests, TIMEOUT, seconds=seconds)
    if outcome.value is None:
        return Result(name, tests, CAUGHT, "pytest", "the process ended", seconds)
    if outcome.value["caught"]:
        return Result(name, tests, CAUGHT, outcome.value["test"], outcome.value["why"], seconds)
    return Result(name, tests, SURVIVED, seconds=seconds)


def _run_faults(options: argparse.Namespace, root: Path) -> int:
    faults = read_faults(root, options.faults)
    texts = {file: (root / file).read_text(encoding="utf-8") for file in sorted({fault.file for fault in faults})}
    bench = _Bench(options, root, list(texts))
    coverage = bench.prepare()
    selections = {f: coverage.selection(f.file, f.statements(texts[f.file])) for f in faults}
    calls = (
        bench.task(fault, fault.file, fault.apply(texts[fault.file]), selection, coverage.first)
        for fault, selection in selections.items() if selection.tests
    )  # fmt: skip
    results = {fault: Result(fault.name, bench.digest, UNREACHED) for fault in faults}
    for task, outcome in run_tasks(calls, options.jobs):
        bench.check_unchanged()
        results[task.key] = _result(task.key.name, bench.digest, outcome)
    for fault, result in results.items():
        by = f"by {result.test}: {result.why}" if result.status == CAUGHT else f"{fault.file}: {fault.meaning}"
        print(f"{result.status:9}  {result.seconds:5.1f} s  {fault.name}\n{'':20}{by}")
    missed = sum(result.status != CAUGHT for result in results.values())
    print(f"{len(faults) - missed} of {len(faults)} faults make a test fail")
    return 1 if missed else 0


def _span(begin: float) -> str:
    seconds = time.monotonic() - begin
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    _code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries loaded for the forked processes have nothing to end here.
    os._exit(_code)
