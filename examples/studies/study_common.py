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
"""What all studies share: rows of finished runs, intervals over seeds, tables.

A study is one module in this folder. Its runs go to ``results/NAME.jsonl``, one line a run, so that an interrupted
study goes on where it stopped. For its tables in docs/studies.md it needs ``tables(rows)``, and for a figure
``figure(rows)`` (see make_docs.py).
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.record.files import replaced, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDIES = Path(__file__).resolve().parent
RESULTS = STUDIES / "results"
Row = dict[str, Any]

# The examples beside this folder are imported by name.
sys.path.insert(0, str(STUDIES.parent))


class Rows:
    """Rows of finished runs in a JSONL file, by their ``key``.

    A last line that a kill cut off is removed when the file is opened.

    Raises:
        ValueError: If another line is damaged or has no key.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._rows: dict[str, Row] = {}
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self.path}, line {number}: no row with a key; mend it or remove the line") from None
        if len(whole) < len(content):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def all(self) -> list[Row]:
        """Rows in the order in which they were written."""
        return list(self._rows.values())

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write the row of a finished run; it is on the disk when this returns.

        Raises:
            ValueError: If there is a row with this key, or a number is not finite.
        """
        if key in self._rows:
            raise ValueError(f"{self.path} has a row {key!r} already")
        whole = {"key": key, **row}
        line = json.dumps(rounded(whole), ensure_ascii=False, allow_nan=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._rows[key] = json.loads(line)


def rounded(value: Any, digits: int = 5) -> Any:
    """The same with its floats rounded to so many significant digits: rows stay small."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {name: rounded(part, digits) for name, part in value.items()}
    return [rounded(part, digits) for part in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Run:
    """A run that is to be done.

    Args:
        key: Unique in the study, such as ``GAD/seed=3``.
        work: Does it and returns its row.
    """

    key: str
    work: Callable[[], Mapping[str, Any]]


def run_all(rows: Rows, runs: Iterable[Run], budget_s: float | None = None) -> bool:
    """Do the runs that have no row yet; Ctrl-C loses the current one only.

    Args:
        rows: Where finished runs are.
        runs: The study.
        budget_s: Begin no run after so many seconds; None for no limit.

    Returns:
        Whether the study is complete.
    """
    begin = time.monotonic()
    missing = [run for run in runs if run.key not in rows]
    with tqdm(missing, unit="run", file=sys.stderr) as bar:
        for run in bar:
            if budget_s is not None and time.monotonic() - begin > budget_s:
                return False
            bar.set_postfix_str(run.key)
            start = time.process_time()
            row = run.work()
            rows.add(run.key, {**row, "cpu_s": round(time.process_time() - start, 1)})
    return True


def keep_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write what a work folder is of, or hold it against what stands there: what lies there would be gone on with.

    Raises:
        GadConfigError: If the folder is of other settings.
    """
    text = json.dumps(settings, indent=2) + "\n"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    if path.read_text(encoding="utf-8") != text:
        raise GadConfigError(f"{path} is of a study with other settings: name another --work, or remove this one")


def save_tensors(content: Any, path: Path) -> None:
    """Write a file of tensors that is whole or not there; a state that was there stays until then.

    Raises:
        GadCheckpointError: If it cannot be written. torch does not say so of a full disk.
    """
    import torch

    with replaced(path) as fresh:
        try:
            torch.save(content, fresh)
        except (OSError, RuntimeError) as error:
            free = shutil.disk_usage(path.parent).free / 2**20
            raise GadCheckpointError(
                f"{path} cannot be written; its disk has {free:.0f} MB left. What was saved before is whole: free some "
                f"space, and the same command goes on ({error})"
            ) from error


def arguments(description: str | None, name: str, seeds: int) -> argparse.ArgumentParser:
    """The options that every study has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds (default: {seeds})")
    parser.add_argument("--rows", type=Path, default=RESULTS / f"{name}.jsonl", help="rows of finished runs (JSONL)")
    parser.add_argument("--budget-s", type=float, help="begin no run after so many seconds; run again to go on")
    return parser


def run_study(
    description: str | None, name: str, seeds: int, first_seed: int, runs: Callable[[Sequence[int]], Iterable[Run]]
) -> int:
    """The command of a study that needs no other options; its exit code.

    Args:
        description, name, seeds: See :func:`arguments`.
        first_seed: From which on they are counted.
        runs: All runs of some seeds.
    """
    import torch

    options = arguments(description, name, seeds).parse_args()
    torch.set_num_threads(1)
    some = range(first_seed, first_seed + options.seeds)
    return 0 if run_all(Rows(options.rows), runs(some), options.budget_s) else 1


# ------------------------------------------------- over the seeds -------------------------------------------------


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half width of Student's t interval over runs; half width nan for less than two.

    Seeds are few (5 to 20): percentiles of a bootstrap would be too narrow there.
    """
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        return float(numbers.mean()), float("nan")
    half = stats.t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean()), float(half)


def show(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """``mean ± half width`` of the 95 % interval; a dash without values."""
    numbers = [scale * value for value in values if value is not None]
    if not numbers:
        return "–"
    mean, half = mean_interval(numbers)
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if np.isfinite(half) else " (one run)")


def paired_difference(rows: Sequence[Row], first: str, second: str, column: str) -> list[float]:
    """Second arm minus first arm, seed by seed; seeds that one of them lacks are left out."""
    by_seed = {(row["arm"], row["seed"]): row[column] for row in rows}
    seeds = sorted(seed for arm, seed in by_seed if arm == first and (second, seed) in by_seed)
    return [by_seed[second, seed] - by_seed[first, seed] for seed in seeds]


# ---------------------------------------------------- tables ----------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of :func:`arm_table`.

    Args:
        title: Its head.
        key: Which number of a row.
        digits: Digits behind the point.
        scale: 100 shows shares as per cent.
    """

    title: str
    key: str
    digits: int = 2
    scale: float = 1.0


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, first column left, others right."""
    out = ["| " + " | ".join(heads) + " |", "|" + "|".join(["---"] + ["---:"] * (len(heads) - 1)) + "|"]
    out += ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(out) + "\n"


def arm_table(rows: Sequence[Row], arms: Sequence[str], columns: Sequence[Column], head: str = "arm") -> str:
    """One line for each arm: mean and 95 % interval over its rows, and their number."""
    lines = []
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm]
        cells = [show([row.get(c.key) for row in mine], c.digits, c.scale) for c in columns]
        lines.append([arm, *cells, str(len(mine))])
    return table([head, *(column.title for column in columns), "runs"], lines)


# --------------------------------------------------- figures ---------------------------------------------------


def rows_digest(rows: Sequence[Row]) -> str:
    """Fingerprint of rows, which a figure carries to show what it was made from."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def save_figure(figure: "Figure", path: Path, rows: Sequence[Row]) -> None:
    """Write an SVG of the rows; the same rows give the same file with the same matplotlib."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "gad_verl", "svg.fonttype": "none"}):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(
            path, format="svg", bbox_inches="tight", metadata={"Date": None, "Description": rows_digest(rows)}
        )
