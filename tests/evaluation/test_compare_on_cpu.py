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
"""``gad-verl compare``: pairing, notes, and the rule."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gad_verl import cli
from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadDataError
from gad_verl.tools.evaluation import comparison, preferences
from gad_verl.tools.evaluation.checks import Check
from gad_verl.tools.evaluation.figures import Figures, difference, summarize_column
from gad_verl.tools.evaluation.judging import Judgement
from gad_verl.tools.evaluation.report import write_evaluation
from gad_verl.tools.evaluation.results import Evaluation, read_evaluation
from gad_verl.tools.evaluation.rows import Row
from gad_verl.tools.evaluation.selection import BY_SCORE, BY_TWO_SAMPLE, Candidate, propose
from gad_verl.tools.evaluation.side_by_side import side_by_side

SETTINGS = {"model": "m", "data": "val.parquet", "max_response_length": 64, "temperature": 0.0, "samples": 1}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the folder of an evaluation with given lengths, marks and accuracies."""

    def written(
        name: str,
        lengths: Sequence[float],
        marks: np.ndarray | None = None,
        accuracies: Sequence[float] | None = None,
        first: int = 0,
        judge: str = "judge",
        references: str = "same",
        text: str = "text",
        checks: Sequence[Sequence[Check]] = (),
        about: dict[str, dict[str, object]] | None = None,
        more: dict[str, object] | None = None,
        by_prompt: Sequence[str | None] = (),
        teacher: np.ndarray | None = None,
        **settings: object,
    ) -> Path:
        count = len(lengths)
        rows = [Row(({"role": "user", "content": f"{first + n}?"},), text) for n in range(count)]
        if checks:
            rows = [replace(row, checks=tuple(some)) for row, some in zip(rows, checks, strict=True)]
        columns = {
            "length": list(lengths),
            "teacher_length": [10.0] * count,
            "rouge_l": [0.5] * count,
            "two_sample_words": list(accuracies) if accuracies is not None else [0.5] * count,
        }
        figures = Figures(dict(columns), about=about or {})
        figures.summary = {key: summarize_column(key, column) for key, column in columns.items()}
        figures.summary["length_ratio"] = intervals.ratio(columns["length"], columns["teacher_length"])
        plain = ("distinct_1", "distinct_2", "teacher_distinct_1", "teacher_distinct_2")
        figures.plain = dict.fromkeys((*plain, "teacher_self_repetition", "teacher_cut", "empty"), 0.5)
        judgement = None
        if marks is not None:
            score = {"prompts": count, "unreadable_prompts": 0, "value": 1.0, "low": 0.0, "high": 2.0}
            counts = dict.fromkeys(("ratings", "asked_again", "unparsed", "unanswered", "empty_references"), 0)
            summary = {"model": judge, "references": references, "score": score, "win_rates": {}, "counts": counts}
            summary |= more or {}
            table = np.asarray(marks, dtype=float)
            characters = {"teacher": np.stack([5 * np.asarray(lengths), np.full(count, 50.0)], axis=1)}
            judgement = Judgement(table, {"teacher": table}, characters, summary, by_prompt, teacher)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_evaluation(folder, rows, {**SETTINGS, **settings}, figures, judgement)
        return folder

    return written


def marks_of(student: float, reference: float, count: int = 20, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = np.tile([student, reference, student, reference], (count, 1)).astype(float)
    return table + noise * rng.normal(size=table.shape)


def test_figures_and_paired_differences(write: Write) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 50, size=20).astype(float)
    folders = [
        write("a", lengths, marks_of(6, 8, noise=0.3)),
        write("b", lengths + 1, marks_of(7, 7, noise=0.3)),
    ]
    result = comparison.compare(folders)
    assert result.figures["a"]["length"].value == pytest.approx(lengths.mean())
    assert result.figures["b"]["score"].value == pytest.approx(50, abs=0.5)
    # Every response is one token longer: a paired interval has no width, however much lengths vary.
    length = result.differences["b"]["length"]
    assert (length.value, length.low, length.high) == pytest.approx((1, 1, 1))
    assert result.differences["b"]["length_ratio"].value == pytest.approx(0.1)
    score = result.differences["b"]["score"]
    assert score.value == pytest.approx(result.figures["b"]["score"].value - result.figures["a"]["score"].value)
    assert score.low > 0
    assert result.differences["b"]["win_rate_teacher"].value > 0
    assert set(result.differences) == {"b"}


def test_swapping_the_order_mirrors_the_differences(write: Write) -> None:
    one = write("a", [8.0, 12, 11, 9] * 5, marks_of(6, 8, noise=0.5))
    other = write("b", [9.0, 10, 14, 9] * 5, marks_of(7, 8, noise=0.5, seed=1))
    there = comparison.compare([one, other]).differences["b"]
    back = comparison.compare([other, one]).differences["a"]
    for name, estimate in there.items():
        assert back[name].value == pytest.approx(-estimate.value)
        assert back[name].low == pytest.approx(-estimate.high)


def test_only_common_prompts_are_compared(write: Write) -> None:
    one = write("a", [10.0] * 8 + [100.0] * 4)
    other = write("b", [20.0] * 8, first=0)
    result = comparison.compare([one, other])
    assert result.prompts == 8 and result.figures["a"]["length"].value == 10
    assert any("a has 12 prompts; the 8 that all have" in note for note in result.notes)


def test_classifiers_that_learned_from_different_prompts_are_not_compared(write: Write) -> None:
    one = write("a", [10.0] * 12, accuracies=[0.6] * 12)
    other = write("b", [10.0] * 8, accuracies=[0.5] * 8)
    result = comparison.compare([one, other])
    assert "two_sample_words" not in result.figures["a"] and "two_sample_words" not in result.differences["b"]
    assert any("have learned from different prompts" in note for note in result.notes)
    assert result.proposal.name is None and "No proposal" in comparison.render(result)
    # The same prompts in another order are the same prompts.
    same = comparison.compare([one, write("c", [10.0] * 12, accuracies=[0.5] * 12)])
    assert same.differences["c"]["two_sample_words"].value == pytest.approx(-0.1)


def test_one_prompt_has_figures_without_intervals(write: Write) -> None:
    folders = [write("a", [10.0], marks_of(6, 8, 1)), write("b", [11.0], marks_of(7, 8, 1))]
    result = comparison.compare(folders)
    table = comparison.render(result)
    assert "nan" not in table and "inf" not in table and "One prompt" in table and "holds 0" not in table
    for of in (*result.figures.values(), *result.differences.values()):
        for name, estimate in of.items():
            limits = comparison.limits_of(name)
            assert np.isnan([estimate.low, estimate.high]).all() or (estimate.low, estimate.high) == limits, name
    # The brackets that are shown hold no interval over the prompts, and nobody says so.
    page = side_by_side(folders).about
    assert page == table.splitlines()[0] and "95 %" not in page and "what a figure can be" in page
    report = (folders[0] / "report.md").read_text(encoding="utf-8")
    assert "1 prompt of" in report and "95 %" not in report and "what a figure can be" in report


def test_differences_stay_within_what_can_be(write: Write) -> None:
    lost, won = marks_of(1, 9), marks_of(9, 1)
    found = comparison.compare([write("a", [10.0] * 20, lost), write("b", [10.0] * 20, won)]).differences["b"]
    assert found["win_rate_teacher"].value == 100 and found["win_rate_teacher"].high <= 100
    event = difference("all_checks", np.zeros(32), np.zeros(32))
    assert event == difference("finished", np.zeros(32), np.zeros(32)) and event.low < 0 < event.high
    assert difference("checks", np.zeros(9), np.ones(9)).high <= 1


def test_what_makes_figures_less_comparable_is_said(write: Write) -> None:
    one = write("a", [10.0] * 8, marks_of(6, 6, 8), max_response_length=64)
    other = write("b", [10.0] * 8, marks_of(6, 6, 8), max_response_length=32, references="others")
    notes = " ".join(comparison.compare([one, other]).notes)
    assert "max_response_length differs: a 64, b 32." in notes and "different reference answers" in notes
    third = write("c", [10.0] * 8, marks_of(9, 6, 8), judge="another judge")
    result = comparison.compare([one, third])
    assert "Different judges" in " ".join(result.notes)
    assert result.proposal.criterion == BY_TWO_SAMPLE and "different judges" in result.proposal.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thinking", ["<think>", "</think>"]),
        ("tools", {"format": "hermes", "file": "0123"}),
        ("mm_processor_kwargs", {"max_pixels": 1000}),
        ("engine", "vllm"),
        ("dtype", "bfloat16"),
        ("top_k", 20),
    ],
)
def test_settings_that_change_the_texts_are_noted(name: str, value: object, write: Write) -> None:
    one, same = (write(folder, [10.0] * 4, **{name: value}) for folder in "ab")
    other = write("c", [10.0] * 4)
    assert comparison.compare([one, same]).notes == []
    (note,) = comparison.compare([one, other]).notes
    assert note == f"{name} differs: a {value}, c None."


@pytest.mark.parametrize(
    ("name", "value"), [("rating_tokens", 1), ("reference_tokens", 9), ("options", {"temperature": 1})]
)
def test_judges_that_were_asked_differently_are_noted(name: str, value: object, write: Write) -> None:
    usual = {"attempts": 3, "rating_tokens": 512, "reference_tokens": 1536, "options": {}}

    def judged(folder: str, url: str = "http://one/v1", **settings: object) -> Path:
        return write(folder, [10.0] * 4, marks_of(6, 8, 4), more={"base_url": url, "settings": usual | settings})

    one = judged("a")
    assert comparison.compare([one, judged("b", attempts=9)]).notes == []
    (note,) = comparison.compare([one, judged("c", **{name: value})]).notes
    assert f"{name}: a {usual[name]}, c {value}." in note
    (note,) = comparison.compare([one, judged("d", "http://two/v1")]).notes
    assert "base_url: a http://one/v1, d http://two/v1." in note


def test_other_checks_and_splits_are_noted(write: Write) -> None:
    rules = [[Check("number", {"value": n})] if n % 2 else [] for n in range(8)]
    about = {"two_sample_words": {"splits": 20}}
    one = write("a", [10.0] * 8, checks=rules, about=about)
    assert comparison.compare([one, write("b", [10.0] * 8, checks=rules, about=about)]).notes == []
    assert comparison.compare([one, write("c", [10.0] * 8)]).notes == []
    # The same checks in the prompts that both have are the same checks.
    fewer = comparison.compare([one, write("d", [10.0] * 4, checks=rules[:4])]).notes
    assert not any("checks" in note for note in fewer)
    rules[3] = [Check("number", {"value": 3, "tolerance": 1})]
    notes = comparison.compare([one, write("e", [10.0] * 8, checks=rules, about={"two_sample_words": {"splits": 5}})])
    assert any("The checks differ in 1 of 8 prompts" in note for note in notes.notes)
    assert any("two-sample accuracy, words (splits a 20, e 5)" in note for note in notes.notes)


def test_references_are_compared_over_the_common_prompts(write: Write) -> None:
    answers = [f"answer {n}" for n in range(8)]
    one = write("a", [10.0] * 8, marks_of(6, 8, 8), references="of 8", by_prompt=answers)
    fewer = write("b", [10.0] * 4, marks_of(6, 8, 4), references="of 4", by_prompt=answers[:4])
    assert not any(
        "references" in note or "reference answers" in note for note in comparison.compare([one, fewer]).notes
    )
    # A prompt without a reference is left out of the scores anyway.
    none = write("c", [10.0] * 8, marks_of(6, 8, 8), references="with none", by_prompt=[None, *answers[1:]])
    assert not any("reference answers" in note for note in comparison.compare([one, none]).notes)
    other = write("d", [10.0] * 4, marks_of(6, 8, 4), references="of 4", by_prompt=[*answers[:3], "another"])
    assert any("different reference answers" in note for note in comparison.compare([one, other]).notes)
    # Folders of before this was noted have a fingerprint of all.
    older = write("e", [10.0] * 8, marks_of(6, 8, 8), references="of another store")
    assert any("different reference answers" in note for note in comparison.compare([one, older]).notes)


def test_the_teachers_score_is_over_the_prompts_of_the_table(write: Write) -> None:
    rng = np.random.default_rng(0)
    marks, teacher = marks_of(6, 8, 12, 0.3), rng.uniform(1, 10, (12, 4))
    said = {"teacher_score": {"value": 77.0, "low": 70.0, "high": 80.0, "prompts": 12, "unreadable_prompts": 0}}
    whole = write("a", [10.0] * 12, marks, teacher=teacher, more=said)
    assert comparison.compare([whole]).teacher["score"] == preferences.relative_score(teacher)
    unread = marks[:8].copy()
    unread[2, 0] = np.nan
    for partner, kept in (
        (write("b", [10.0] * 8, marks[:8]), range(8)),
        (write("c", [10.0] * 8, unread), [0, 1, *range(3, 8)]),
    ):
        found = comparison.compare([whole, partner])
        assert found.teacher["score"] == preferences.relative_score(teacher[list(kept)])
    # A folder of before its marks were noted.
    older = write("d", [10.0] * 12, marks, more=said)
    assert comparison.compare([older]).teacher["score"]["value"] == 77
    found = comparison.compare([older, write("e", [10.0] * 8, marks[:8])])
    assert found.teacher["score"] is None and any("teacher's judge score is left out" in note for note in found.notes)


def test_other_texts_of_the_teacher_are_noted(write: Write) -> None:
    one, other = write("a", [10.0] * 4, text="some"), write("b", [10.0] * 4, text="more")
    assert comparison.compare([one, write("c", [10.0] * 4, text="some")]).notes == []
    (note,) = comparison.compare([one, other]).notes
    assert "The teacher's texts differ in 4 of 4 prompts" in note


def test_folders_of_before_these_notes_are_read(write: Write) -> None:
    marks = marks_of(6, 8, 4, 0.3)
    one = write(
        "a", [10.0] * 4, marks, teacher=marks, by_prompt=list("abcd"), about={"two_sample_words": {"splits": 2}}
    )
    new = read_evaluation(one)
    lines = [json.loads(line) for line in (one / "prompts.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("teacher_marks", "reference", "checks"):
            del line[key]
    (one / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = json.loads((one / "results.json").read_text())
    del results["about"]
    (one / "results.json").write_text(json.dumps(results))
    old = read_evaluation(one)
    assert old.columns == new.columns and np.array_equal(old.marks, new.marks)
    assert new.references == list("abcd") and not any(old.references) and np.isnan(old.teacher_marks).all()
    assert comparison.compare([one, write("b", [10.0] * 4, marks)]).notes == []


def evaluated(folder: Path, weights: str, judgement: Judgement | None, count: int = 4) -> Evaluation:
    """Write the folder of an evaluation again."""
    rows = [Row(({"role": "user", "content": f"{n}?"},), "text") for n in range(count)]
    figures = Figures({"length": [1.0] * count, "teacher_length": [1.0] * count})
    names = ("distinct_1", "distinct_2", "teacher_distinct_1", "teacher_distinct_2")
    figures.plain = dict.fromkeys((*names, "teacher_self_repetition", "teacher_cut", "empty"), 0.5)
    folder.mkdir(exist_ok=True)
    return write_evaluation(folder, rows, SETTINGS | {"weights": weights}, figures, judgement)


def judged(
    opponent: str, model: str = "judge", count: int = 4, attempts: int = 2, references: str = "same", **more: object
) -> Judgement:
    """A judgement against one opponent."""
    table, rate = marks_of(9, 3, count), {"prompts": count, "unreadable_prompts": 0}
    counts = dict.fromkeys(("ratings", "asked_again", "unparsed", "unanswered", "empty_references"), 0)
    settings = {"attempts": attempts, "options": {}, **more}
    summary = {"model": model, "settings": settings, "references": references, "score": dict(rate)}
    summary |= {"win_rates": {opponent: rate}, "counts": counts}
    return Judgement(table, {opponent: table}, {opponent: np.ones((count, 2))}, summary)


def with_teacher(judgement: Judgement) -> Judgement:
    """The same, and the teacher's texts were scored."""
    summary = judgement.summary | {
        "teacher_score": {"prompts": 4, "unreadable_prompts": 0, "value": 60.0, "low": 50.0, "high": 70.0}
    }
    return replace(judgement, summary=summary, teacher=marks_of(8, 5, 4, 0.2))


def test_a_later_judgement_keeps_the_earlier_opponents(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", "w", judged("teacher"))
    both = evaluated(tmp_path / "a", "w", judged("base"))
    assert set(both.against) == {"teacher", "base"} == set(both.judge["win_rates"]) == set(both.characters)
    assert set(evaluated(tmp_path / "a", "w", None).against) == {"teacher", "base"}
    # More askings for a reply that can be read are of the same judge.
    assert set(evaluated(tmp_path / "a", "w", judged("base", attempts=5)).against) == {"teacher", "base"}
    # Another judge, or one that was asked differently, has said nothing about them.
    assert set(evaluated(tmp_path / "b", "w", judged("teacher")).against) == {"teacher"}
    assert set(evaluated(tmp_path / "b", "w", judged("base", rating_tokens=9)).against) == {"base"}
    assert set(evaluated(tmp_path / "a", "w", judged("base", "another")).against) == {"base"}


def test_a_later_judgement_keeps_the_teachers_score(tmp_path: Path) -> None:
    scored = with_teacher(judged("teacher"))
    for again in (judged("base", attempts=7), None):
        evaluated(tmp_path / "a", "w", scored)
        kept = evaluated(tmp_path / "a", "w", again)
        assert kept.judge["teacher_score"] == scored.summary["teacher_score"]
        assert np.array_equal(kept.teacher_marks, scored.teacher)
        # What is counted is that of one run, and says so.
        report = (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
        assert "score of the teacher" in report and "in the judge's last run" in report
    # Of another judge, or against other references, it would be another score.
    for again in (judged("base", "another"), judged("base", references="others")):
        evaluated(tmp_path / "a", "w", scored)
        anew = evaluated(tmp_path / "a", "w", again)
        assert "teacher_score" not in anew.judge and np.isnan(anew.teacher_marks).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "results.json").write_text('{"format":'),
        lambda folder: (folder / "results.json").write_text("[]"),
        lambda folder: (folder / "results.json").write_text('{"format": 0}'),
        lambda folder: (folder / "prompts.jsonl").write_text("{}\n"),
        lambda folder: (folder / "prompts.jsonl").write_text(
            "".join((folder / "prompts.jsonl").read_text().splitlines(True)[:2])
        ),
    ],
)
def test_a_damaged_folder_is_evaluated_again(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a"
    whole = evaluated(folder, "w", None)
    evaluated(folder, "w", judged("teacher"))
    damage(folder)
    with pytest.raises(GadDataError, match="again"):
        read_evaluation(folder)
    again = evaluated(folder, "w", None)
    assert again.columns == whole.columns and again.judge is None
    (record,) = caplog.records
    assert str(folder) in record.getMessage() and "written anew" in record.getMessage()


@pytest.mark.parametrize("count", [2, 4, 6])
def test_marks_belong_to_the_responses_that_were_judged(count: int, tmp_path: Path) -> None:
    evaluated(tmp_path / "a", "old", judged("teacher"))
    anew = evaluated(tmp_path / "a", "new", None, count)
    assert anew.judge is None and np.isnan(anew.marks).all() and not anew.against and len(anew.prompt_ids) == count


def test_the_command(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write("run1/step_20", [10.0] * 20, marks_of(6, 8, noise=0.2))
    other = write("run2/step_20", [11.0] * 20, marks_of(7, 8, noise=0.2))
    assert cli.main(["compare", str(one), str(other), "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert "| run1/step_20 |" in table and "Proposed: run2/step_20" in table and "*" in table
    assert cli.main(["compare", str(one), str(other), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert printed["proposal"]["name"] == "run2/step_20" and printed["proposal"]["within_noise"] == []


def test_errors_are_one_line(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write("a", [10.0] * 4)
    stranger = write("b", [10.0] * 4, first=100)
    damaged = write("c", [10.0] * 4)
    (damaged / "prompts.jsonl").write_text("{}\n")
    for arguments, expected in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([tmp_path], "has no results.json"),
        ([one, stranger], "share no prompt"),
        ([one, one], "is named twice"),
        ([damaged], "is damaged"),
        ([one, "--length-band", "2", "1"], "expected the lowest and the highest"),
        ([one, "--output", damaged / "prompts.jsonl" / "in"], "cannot be made a folder"),
        (["--method", "x", one, "--method", "y", one], "is named twice"),
        (["--method", "x", one, "--method", "y", stranger, "--length-band", "1", "2"], "proposes none"),
    ):
        assert cli.main(["compare", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------ the rule


def constant(low: float, high: float) -> Callable[[str, str], Estimate]:
    return lambda one, other: Estimate((low + high) / 2, low, high)


def test_the_best_score_within_the_band() -> None:
    candidates = [Candidate("short", 0.5, 60.0), Candidate("good", 1.1, 50.0), Candidate("fair", 0.9, 48.0)]
    proposal = propose(candidates, constant(0.5, 3.0))
    assert (proposal.name, proposal.criterion, proposal.within_noise) == ("good", BY_SCORE, [])
    assert proposal.in_band == ["good", "fair"] and "short left out" in proposal.reason
    assert propose(candidates, constant(0.5, 3.0), band=(0.4, 2.0)).name == "short"


def test_noise_is_named() -> None:
    candidates = [Candidate("a", 1.0, 50.0), Candidate("b", 1.0, 50.4), Candidate("c", 1.0, 44.0)]
    proposal = propose(candidates, lambda one, other: Estimate(1, -1, 3) if one == "a" else Estimate(6, 4, 8))
    assert proposal.name == "b" and proposal.within_noise == ["a"]
    assert "The difference to a lies within the noise" in proposal.reason and "flattered by chance" in proposal.reason


def test_a_difference_that_speaks_against_the_proposal_is_no_support() -> None:
    by_score = [Candidate("a", 1.0, 45.3), Candidate("b", 1.0, 48.9), Candidate("c", 1.0, 40.0)]
    proposal = propose(by_score, lambda one, other: Estimate(-3, -4, -2) if one == "a" else Estimate(3, 2, 4))
    assert "leave 0 out" not in proposal.reason and "a is better beyond the noise" in proposal.reason
    by_words = [Candidate("a", 1.0, two_sample=0.7), Candidate("b", 1.0, two_sample=0.6)]
    assert "a is better beyond the noise" in propose(by_words, constant(0.1, 0.3)).reason
    assert "leave 0 out" in propose(by_words, constant(-0.3, -0.1)).reason


def test_a_score_that_is_no_number_is_none() -> None:
    candidates = [Candidate("a", 1.0, float("nan"), 0.7), Candidate("b", 1.0, 50.0, 0.6)]
    for order in (candidates, candidates[::-1]):
        proposal = propose(order, constant(-0.3, -0.1))
        assert (proposal.name, proposal.criterion) == ("b", BY_TWO_SAMPLE) and "nan" not in proposal.reason


def test_without_scores_the_hardest_to_tell_apart() -> None:
    candidates = [Candidate("a", 1.0, 70.0, two_sample=0.9), Candidate("b", 1.2, None, two_sample=0.6)]
    proposal = propose(candidates, constant(-0.4, -0.2))
    assert (proposal.name, proposal.criterion) == ("b", BY_TWO_SAMPLE)
    assert "not every checkpoint has one" in proposal.reason


def test_no_proposal_where_none_fits() -> None:
    proposal = propose([Candidate("a", 3.0, 60.0), Candidate("b", 0.65, 40.0)], constant(0, 0))
    assert proposal.name is None and "b comes closest" in proposal.reason
    assert propose([Candidate("a", 1.0)], constant(0, 0)).name is None


def test_a_single_checkpoint() -> None:
    proposal = propose([Candidate("a", 1.0, 51.7)], constant(0, 0))
    assert proposal.name == "a" and "51.7 (50 is parity), the only one of acceptable length" in proposal.reason
