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
"""The studies' common parts, the agreement of docs/studies.md with the rows, and the toy in its short form."""

import json
import math
from pathlib import Path

import make_docs
import pytest
import study_common
import torch
import toy_gaussian
from study_common import (
    Column,
    Rows,
    Run,
    arm_table,
    mean_interval,
    paired_difference,
    run_all,
    save_tensors,
    show,
    table,
)

from gad_verl.errors import GadCheckpointError

SHORT = {"warmup": 120, "adversarial": 250}


# ---- rows and runs


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 64 vs 0"), OSError(28, "No space left on device")])
def test_a_state_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "state.pt"
    save_tensors({"step": torch.tensor(1)}, path)

    def full(content: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(GadCheckpointError, match=r"state\.pt cannot be written; its disk has \d+ MB left"):
        save_tensors({"step": torch.tensor(2)}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"] and torch.load(path)["step"] == 1


def test_an_interrupted_study_goes_on_and_loses_one_run(tmp_path: Path) -> None:
    path, done = tmp_path / "rows.jsonl", []

    def work(number: int, fails: bool) -> dict[str, float]:
        if fails:
            raise KeyboardInterrupt
        done.append(number)
        return {"arm": "a", "seed": number, "value": number / 3}

    with pytest.raises(KeyboardInterrupt):
        run_all(Rows(path), [Run(str(n), lambda n=n: work(n, fails=n == 2)) for n in range(4)])
    assert done == [0, 1]
    assert run_all(Rows(path), [Run(str(n), lambda n=n: work(n, fails=False)) for n in range(4)])
    assert done == [0, 1, 2, 3]
    rows = Rows(path).all()
    assert [row["key"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["value"] == 0.33333 and rows[1]["cpu_s"] >= 0


def test_no_run_begins_after_the_budget(tmp_path: Path) -> None:
    assert not run_all(Rows(tmp_path / "rows.jsonl"), [Run("a", lambda: {"arm": "x"})], budget_s=-1.0)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_line_that_a_kill_cut_off_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Rows(path).add("a", {"value": "ü"})
    with open(path, "ab") as file:
        file.write(b'{"key": "b", "val')
    rows = Rows(path)
    assert "a" in rows and "b" not in rows
    rows.add("b", {"value": 1})
    assert [json.loads(line)["key"] for line in path.read_text(encoding="utf-8").splitlines()] == ["a", "b"]


def test_damaged_double_and_infinite_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = Rows(path)
    rows.add("a", {"value": 1.0})
    with pytest.raises(ValueError, match="already"):
        rows.add("a", {"value": 2.0})
    with pytest.raises(ValueError):
        rows.add("b", {"value": math.inf})
    assert len(Rows(path)) == 1
    path.write_text("nonsense\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        Rows(path)


# ---- intervals and tables


def test_interval_is_students_t() -> None:
    # 12.706 is the 97.5 % point of t with one degree of freedom; the standard error of (0, 2) is 1.
    assert mean_interval([0.0, 2.0]) == pytest.approx((1.0, 12.706), abs=1e-3)
    assert math.isnan(mean_interval([3.0])[1])


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2000, 5, generator=generator).tolist()
    covered = sum(abs(mean) <= half for mean, half in map(mean_interval, samples))
    # 95 % of 2000, four standard deviations.
    assert abs(covered - 1900) < 4 * (2000 * 0.95 * 0.05) ** 0.5


def test_tables_show_means_intervals_and_missing_values() -> None:
    rows = [{"arm": "a", "seed": seed, "x": value, "y": None} for seed, value in ((1, 0.1), (2, 0.3))]
    rows.append({"arm": "b", "seed": 2, "x": 0.7, "y": 0.5})
    text = arm_table(rows, ["a", "b"], [Column("X, %", "x", 1, 100), Column("Y", "y")])
    assert text.splitlines() == [
        "| arm | X, % | Y | runs |",
        "|---|---:|---:|---:|",
        "| a | 20.0 ± 127.1 | – | 2 |",
        "| b | 70.0 (one run) | 0.50 (one run) | 1 |",
    ]
    assert table(["h"], [["c"]]) == "| h |\n|---|\n| c |\n"
    assert show([]) == "–"
    assert paired_difference(rows, "a", "b", "x") == pytest.approx([0.4])


# ---- the page


def test_page_and_figures_agree_with_the_rows() -> None:
    text = make_docs.PAGE.read_text(encoding="utf-8")
    assert make_docs.page(text) == text, "docs/studies.md is out of date: python examples/studies/make_docs.py"
    assert make_docs.stale_figures() == []
    for path in make_docs.FIGURES.glob("*.svg"):
        assert path.name in text and path.stat().st_size < 200_000


def test_page_follows_the_rows_and_wants_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    text = make_docs.PAGE.read_text(encoding="utf-8")
    module, rows = make_docs.studies()["toy_gaussian"]
    changed = [{**row, "near": 0.123} if row["arm"] == "GAD" else row for row in rows]
    monkeypatch.setattr(make_docs, "studies", lambda: {"toy_gaussian": (module, changed)})
    only = "".join(f"<!-- BEGIN toy_gaussian {n} -->\n<!-- END toy_gaussian {n} -->\n" for n in (1, 2))
    assert "12.3 ± 0.0" in make_docs.page(only)
    with pytest.raises(ValueError, match="toy_gaussian 2"):
        make_docs.page(only.replace("toy_gaussian 2", "toy_gaussian 1"))
    assert make_docs.stale_figures() == ["toy_gaussian"]
    assert text  # the page itself was not touched


def test_figure_is_drawn_from_rows(tmp_path: Path) -> None:
    _, rows = make_docs.studies()["toy_gaussian"]
    study_common.save_figure(toy_gaussian.figure(rows), tmp_path / "a.svg", rows)
    assert study_common.rows_digest(rows) in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert study_common.rows_digest(rows) != study_common.rows_digest(rows[1:])


# ---- the toy


def test_divergences_against_their_definition() -> None:
    teacher = toy_gaussian.teacher_distribution()
    assert teacher.sum() == pytest.approx(1.0)
    equal = toy_gaussian.exact_metrics(teacher)
    assert equal["kl_teacher_student"] == pytest.approx(0.0, abs=1e-12)
    assert equal["kl_student_teacher"] == pytest.approx(0.0, abs=1e-12)
    student = torch.rand(7, 10, dtype=torch.float64) + 0.01
    student = student / student.sum(-1, keepdim=True)
    exact = toy_gaussian.exact_metrics(student)
    kl = torch.distributions.kl_divergence
    p, q = torch.distributions.Categorical(teacher.expand(7, 10)), torch.distributions.Categorical(student)
    torch.testing.assert_close(exact["kl_teacher_student"], kl(p, q))
    torch.testing.assert_close(exact["kl_student_teacher"], kl(q, p))
    assert (exact["near"] >= student[:, 1:4].sum(-1) - 1e-12).all()
    assert set(torch.nonzero(teacher < toy_gaussian.VALLEY_BELOW).flatten().tolist()) == {0, 4, 5, 9}


def test_no_student_is_better_than_the_best_possible() -> None:
    best = toy_gaussian.best_possible(toy_gaussian.WIDEST)
    mean, width = 9 * torch.rand(200), 0.4 + 0.85 * torch.rand(200)
    exact = toy_gaussian.exact_metrics(toy_gaussian.gaussian_logits(mean, width).softmax(-1))
    for name, value in best.items():
        assert (exact[name] >= value - 1e-3).all()


@pytest.fixture(scope="module")
def short_rows() -> dict[str, list[dict]]:
    return {arm: [toy_gaussian.run(arm, seed, **SHORT) for seed in range(3)] for arm in ("SeqKD", "GAD")}


def test_seqkd_covers_and_gad_seeks_a_mode(short_rows: dict[str, list[dict]]) -> None:
    """Thresholds hold with margin: in trials GAD had valley < .06, near > .94, KL < .96; SeqKD > .54, < .36, > 2.1."""
    for row in short_rows["SeqKD"]:
        assert row["valley"] > 0.45 and row["near"] < 0.5 and row["kl_student_teacher"] > 1.7
    for row in short_rows["GAD"]:
        assert row["valley"] < 0.15 and row["near"] > 0.85 and row["kl_student_teacher"] < 1.2
        # The discriminator still knows both sides apart: the student cannot cover the teacher.
        assert 0.55 < row["accuracy"] < 0.95


def test_a_run_depends_on_its_seed_alone() -> None:
    first, again, other = (toy_gaussian.run("GAD", seed, warmup=10, adversarial=5) for seed in (1, 1, 2))
    assert first == again
    assert first["probabilities"] != other["probabilities"]
