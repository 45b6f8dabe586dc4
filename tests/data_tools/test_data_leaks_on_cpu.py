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
"""``gad-verl data leaks``: near 0.5 where there is nothing, and every planted leak found and named."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vlm import picture

from gad_verl import cli
from gad_verl.errors import GadDataError
from gad_verl.record.files import plain
from gad_verl.tools.commands.data import ABOVE_THRESHOLD
from gad_verl.tools.data import surface
from gad_verl.tools.data.advice import _BY_KIND
from gad_verl.tools.data.leaks import MIN_TEXTS, LeakReport, compare, one_sided, render
from gad_verl.tools.data.separability import _interval, model_accuracy, noteworthy, single_features
from gad_verl.tools.data.surface import Feature, FeatureTable, feature_table
from gad_verl.tools.data.two_sides import MIN_COMMON, Side, load_side, pair
from gad_verl.tools.evaluation.responses import Response
from gad_verl.tools.evaluation.rows import Row, load_rows

WORDS = (
    "the a one some every old new small large quiet house river teacher student letter number answer question city "
    "garden road night morning winter summer music story idea plan way people water light hand time world"
).split()


def answers(count: int, seed: int) -> list[str]:
    """Texts of one source: a few sentences, sometimes a list, sometimes no full stop at the end."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        sentences = [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))).capitalize() for _ in range(rng.randint(1, 6))]
        text = ". ".join(sentences) + rng.choice([".", ".", ".", "!", ""])
        if rng.random() < 0.2:
            text = "\n".join(f"- {sentence}" for sentence in sentences)
        texts.append(text)
    return texts


def side(texts: list[str], prompts: list[str] | None = None, unfinished: list[bool] | None = None) -> Side:
    prompts = prompts or [f"prompt {number}" for number in range(len(texts))]
    return Side(texts, prompts, list(range(len(texts))), unfinished)


def compared(teacher: list[str], student: list[str], **options: Any) -> LeakReport:
    return compare(side(teacher), side(student), **options)


def names(report: LeakReport) -> dict[str, list[str]]:
    return {finding.kind: [single.feature.name for single in finding.features] for finding in report.findings}


SENTENCES = (
    "The river is quiet in winter, and the people of the city walk along its garden road every morning.",
    "There are three answers to this question, and every student has another idea about which of them is right.",
    "A small house stands by the light of the old road; its music is heard at night when the summer is warm.",
    "Water is made of hydrogen and oxygen, which are gases at the temperature of a room and burn together.",
)


class TestShortTexts:
    """Of a few words no language can be told, and none is."""

    def test_a_short_text_has_no_language(self) -> None:
        found = surface.languages(["Mickey Thomas", "blue", "2", "Yes", "", "Grace Slick sang first.", SENTENCES[0]])
        assert found == [None] * 6 + ["en"]
        assert surface.languages(["\u8fd9\u6761\u6cb3\u5728\u51ac\u5929\u5f88\u5b89\u9759\u3002" * 4]) == ["zh"]

    def test_short_answers_are_no_other_language(self) -> None:
        rng = random.Random(4)
        teacher = [" ".join(rng.sample(SENTENCES, 2)) for _ in range(80)]
        student = [rng.choice([text, "Mickey Thomas", "blue", "Ja", "Oslo", "Vasa", "2"]) for text in teacher]
        assert "language" not in names(compared(teacher, student))

    def test_answers_in_another_language_are_found_among_short_ones(self) -> None:
        rng = random.Random(4)
        german = "Der Fluss ist im Winter still, und die Leute der Stadt gehen jeden Morgen auf der Strasse spazieren."
        teacher = [rng.choice([*SENTENCES, "blue"]) for _ in range(80)]
        student = [rng.choice([german, "blau"]) for _ in range(80)]
        (finding,) = (one for one in compared(teacher, student).findings if one.kind == "language")
        assert {one.feature.name for one in finding.features} == {"language 'de'", "language 'en'"}
        assert [one.teacher for one in finding.features if one.feature.name == "language 'en'"] == [1.0]


class TestOneAnswerForAll:
    """A teacher that gives one answer to many prompts is named, also beside stronger findings."""

    SAME = "I will think about it and come back to you."

    def test_beside_a_student(self) -> None:
        report = compared([self.SAME] * 60, answers(60, 2))
        (finding,) = (one for one in report.findings if one.kind == "repeated texts")
        assert finding.features[0].teacher == 1 and "one answer to many prompts" in finding.advice

    @pytest.mark.parametrize(("count", "is_named"), [(60, True), (8, True), (3, False), (0, False)])
    def test_by_itself(self, count: int, is_named: bool) -> None:
        report = one_sided(side([self.SAME] * count + answers(60 - count, 1)))
        assert ("the same text as 3 others or more" in [one.name for one in report.teacher_findings]) == is_named


class TestBrokenWords:
    """Texts cut in the middle of a word are named, without a word of the API on why they ended."""

    def test_cut_texts_are_named(self) -> None:
        whole = [f"{' '.join(SENTENCES)} {text}" for text in answers(80, 3)]
        rng = random.Random(1)
        cut = [text[: rng.randint(150, len(text) - 2)] for text in whole]
        # What ends at a space or behind a whole word cannot be told.
        report = one_sided(side(cut))
        (share,) = (one.share for one in report.teacher_findings if one.name == "ends in the middle of a word")
        assert 0.3 < share < 0.95
        (finding,) = (one for one in compared(cut, whole).findings if one.kind == "finish")
        assert "teacher texts are cut" in finding.advice

    def test_whole_texts_are_not(self) -> None:
        assert not any(surface.broken_words([text.rstrip(".") for text in SENTENCES * 5]))
        # A short answer may well be the beginning of another word.
        assert not any(surface.broken_words(["Ann", "Anna", "annual", *answers(20, 1)]))

    @given(st.lists(st.text(max_size=60), max_size=5))
    def test_any_texts_give_an_answer_each(self, texts: list[str]) -> None:
        assert len(surface.broken_words(texts)) == len(surface.repeated(texts)) == len(texts)


def test_advice_names_every_remedy_of_a_kind() -> None:
    teacher = [text.replace(". ", ".\n\n") + " \nEnd.\r\nDone." for text in answers(100, 1)]
    (finding,) = (one for one in compared(teacher, answers(100, 2)).findings if one.kind == "white space inside")
    assert {one.feature.name for one in finding.features} >= {"carriage returns", "blanks before a line end"}
    assert "--strip-whitespace" in finding.advice and "--strip-line-ends" in finding.advice


def test_texts_of_one_source_cannot_be_told_apart() -> None:
    covered, findings, values = 0, 0, []
    for seed in range(12):
        report = compared(answers(80, 2 * seed), answers(80, 2 * seed + 1), seed=seed)
        covered += report.accuracy.low <= 0.5 <= report.accuracy.high
        findings += len(report.findings)
        values.append(report.accuracy.value)
    # 12 intervals of 95 %: fewer than 9 that cover come twice in 1,000 times; a finding in 1 % of the reports.
    assert covered >= 9 and findings <= 2
    # 80 held-out texts a time: standard error 0.056 each, 0.016 of the mean.
    assert abs(np.mean(values) - 0.5) < 0.06


PLANTED: dict[str, tuple[Callable[[str], str], str, str, str]] = {
    "new line": (lambda text: text + "\n", "white space around", "ends with a new line", "--strip-whitespace"),
    "blank in front": (lambda text: " " + text, "white space around", "begins with white space", "--strip-whitespace"),
    "no full stop": (lambda text: text.rstrip(".!"), "end", "ends with . ! or ?", "cut"),
    "markdown": (lambda text: f"## Answer\n\n**{text}**", "markdown", "markdown headings", "style"),
    "prefix": (lambda text: f"Sure! {text}", "beginning", "first token 'Sure'", "opening"),
    "special token": (lambda text: text + "<|im_end|>", "template", "special tokens as text", "--strip-template"),
    "heading": (lambda text: "### Response:\n" + text, "template", "template remains at an end", "--strip-template"),
    "thinking": (lambda text: f"<think>so</think>\n{text}", "thinking", "thinking block", "--strip-thinking"),
    "carriage returns": (
        lambda text: f"{text}\r\nEnd.",
        "white space inside",
        "carriage returns",
        "--strip-whitespace",
    ),
    "not composed": (lambda text: f"{text} Cafe\u0301.", "characters", "Unicode not composed (NFC)", "--nfc"),
    "quotes": (lambda text: f"\u201c{text}\u201d", "characters", "typographic quotes", "tokenizer"),
    "refusal": (lambda _: "I'm sorry, but I can't help with that.", "refusals", "refusal", "--drop-refusals"),
    "language": (
        lambda text: "Das ist eine Antwort auf die Frage, und sie ist nicht auf Englisch geschrieben. " + text[:20],
        "language",
        "language 'de'",
        "prompts are the same",
    ),
    "length": (lambda text: (text + " ") * 4 + text, "length", "characters", "length_ratio"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found_and_named_with_its_remedy(name: str) -> None:
    plant, kind, feature, remedy = PLANTED[name]
    teacher, student = [plant(text) for text in answers(100, 1)], answers(100, 2)
    report = compared(teacher, student)
    assert report.accuracy.value > 0.65 and report.accuracy.low > 0.5
    assert feature in names(report)[kind]
    advice = next(finding.advice for finding in report.findings if finding.kind == kind)
    assert remedy in advice
    text = render(report)
    assert feature in text and remedy in text


@pytest.mark.parametrize("name", PLANTED)
def test_a_mark_on_both_sides_is_no_leak(name: str) -> None:
    plant = PLANTED[name][0]
    report = compared([plant(text) for text in answers(100, 1)], [plant(text) for text in answers(100, 2)])
    # 100 held-out texts: four standard errors.
    assert abs(report.accuracy.value - 0.5) <= 0.2 and not report.findings


@pytest.mark.parametrize("name", ["new line", "blank in front", "heading", "thinking", "special token", "not composed"])
def test_normalize_removes_what_leaks_advises_it_for(name: str) -> None:
    from gad_verl.tools.data.cleaning import STEPS, clean

    plant, kind, _, _ = PLANTED[name]
    teacher = [clean(plant(text), tuple(STEPS)).text for text in answers(100, 1)]
    report = compared(teacher, answers(100, 2))
    assert not {"white space around", "template", "thinking"} & names(report).keys()
    if name != "not composed":
        assert report.findings == [] and report.accuracy.low <= 0.5


def test_the_side_that_has_more_decides_the_advice() -> None:
    plain, marked = answers(100, 1), [text + "\n" for text in answers(100, 2)]
    advice = [compared(*sides).findings[0].advice for sides in ((marked, plain), (plain, marked))]
    assert "normalize" in advice[0] and "stop tokens" in advice[1]


def test_a_middling_length_is_found_though_the_means_are_equal() -> None:
    rng = random.Random(3)
    teacher = ["x" * rng.randint(95, 105) for _ in range(200)]
    student = ["x" * rng.choice([rng.randint(20, 60), rng.randint(140, 180)]) for _ in range(200)]
    assert compared(teacher, student).accuracy.value > 0.95


def test_stopping_by_the_limit_is_a_feature_where_both_sides_say_so() -> None:
    texts = answers(60, 1), answers(60, 2)
    cut = [number % 2 == 0 for number in range(60)]
    report = compare(side(texts[0], unfinished=[False] * 60), side(texts[1], unfinished=cut))
    assert names(report)["finish"] == ["stopped by the length limit"]
    only_one = compare(side(texts[0]), side(texts[1], unfinished=cut))
    assert "finish" not in names(only_one)


def test_too_few_texts_are_an_error() -> None:
    few = answers(MIN_TEXTS - 1, 1)
    with pytest.raises(GadDataError, match=f"at least {MIN_TEXTS}"):
        compared(few, few)


def test_the_seed_alone_decides() -> None:
    teacher, student = answers(60, 1), answers(60, 2)
    first, again = compared(teacher, student, seed=1), compared(teacher, student, seed=1)
    assert plain(first) == plain(again)


# Statistics


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1),
    st.lists(st.integers(0, 4), min_size=2, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_auc_is_the_chance_of_a_larger_value_with_ties_counted_half(first: list[int], second: list[int]) -> None:
    values = np.array([*first, *second], dtype=float)[:, None]
    is_teacher = np.arange(len(values)) < len(first)
    table = FeatureTable([Feature("f", "end")], values, values)
    wins = [(a > b) + (a == b) / 2 for a in first for b in second]
    assert single_features(table, is_teacher)[0].auc == pytest.approx(np.mean(wins))


def test_the_interval_over_independent_texts_agrees_with_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    count = 400
    correct = rng.random(2 * count) < 0.7
    is_teacher = np.arange(2 * count) < count
    low, high = _interval(correct, is_teacher, np.arange(2 * count))
    width = 2 * 1.96 * np.sqrt(0.7 * 0.3 / (2 * count))
    assert high - low == pytest.approx(width, rel=0.15)


def test_copies_of_a_prompts_texts_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    correct, is_teacher, groups = rng.random(200) < 0.7, np.arange(200) < 100, np.arange(200) % 100
    low, high = _interval(correct, is_teacher, groups)
    repeated = [np.repeat(values, 10) for values in (correct, is_teacher, groups)]
    assert _interval(*repeated) == pytest.approx((low, high))


def test_a_model_without_any_varying_feature_tosses_a_coin() -> None:
    values = np.ones((400, 2))
    is_teacher = np.arange(400) < 200
    features = [Feature("a", "end"), Feature("b", "end")]
    accuracy = model_accuracy(FeatureTable(features, values, values), is_teacher, np.arange(400) % 200)
    assert abs(accuracy.value - 0.5) < 0.15


def test_sides_of_unequal_size_get_equal_weight() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1100, 3))
    is_teacher = np.arange(1100) < 1000
    features = [Feature(name, "end") for name in "abc"]
    accuracy = model_accuracy(FeatureTable(features, values, values), is_teacher, np.arange(1100))
    # Always "teacher" would be right in ten of eleven; balanced it is a coin's toss (standard error about 0.05).
    assert abs(accuracy.value - 0.5) < 0.2


def test_chance_makes_few_findings() -> None:
    rng = np.random.default_rng(1)
    found = 0
    features = [Feature(f"f{number}", "end", is_share=False) for number in range(40)]
    for _ in range(10):
        values = rng.normal(size=(120, 40))
        table = FeatureTable(features, values, values)
        found += len(noteworthy(single_features(table, np.arange(120) < 60)))
    # One report in a hundred has one.
    assert found <= 2


def test_a_shared_mistake_of_unlike_texts_is_not_averaged_away() -> None:
    texts = ["a", "b" * 100, "", "\n", "\ud83d\ude00", "x" * 50_000]
    table = feature_table(texts, [False] * len(texts))
    assert np.isfinite(table.for_model).all() and table.values.shape == (len(texts), len(table.features))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_features_do_not_depend_on_the_order_of_the_texts(texts: list[str], rng: random.Random) -> None:
    order = list(range(len(texts)))
    rng.shuffle(order)
    table, shuffled = feature_table(texts), feature_table([texts[place] for place in order])
    assert table.features == shuffled.features
    assert np.array_equal(table.values[order], shuffled.values)


# Advice


def test_every_kind_of_feature_has_advice() -> None:
    kinds = {feature.kind for feature, _ in (*surface._SHARES, *surface._NUMBERS)}
    kinds |= {kind for _, kind, _ in surface._CATEGORIES} | {"language", "finish", "repeated texts"}
    assert kinds == set(_BY_KIND)


def test_commands_and_options_of_the_advice_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "normalize", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = [
        one for both in _BY_KIND.values() for advice in both for one in re.findall(r"normalize (--[a-z-]+)", advice)
    ]
    assert named and set(named) <= options


# Pairing


def test_sides_are_paired_by_prompt_whatever_their_order() -> None:
    prompts = [f"question {number}" for number in range(40)]
    teacher = side(answers(40, 1), prompts)
    more = [*reversed(prompts), *(f"other {number}" for number in range(5))]
    student = side(answers(45, 2), more)
    pairing = pair(teacher, student, most=1000)
    assert len(pairing.teacher.texts) == len(pairing.student.texts) == 40 and not pairing.warning
    groups = pairing.groups.tolist()
    assert groups[:40] == groups[40:][::-1]


def test_a_sample_has_the_same_prompts_on_both_sides() -> None:
    prompts = [f"question {number}" for number in range(200)]
    pairing = pair(side(answers(200, 1), prompts), side(answers(200, 2), prompts[::-1]), most=50)
    assert len(pairing.teacher.texts) == 50 and set(pairing.teacher.prompts) == set(pairing.student.prompts)


def test_sides_that_answer_other_prompts_are_compared_with_a_warning() -> None:
    common = [f"question {number}" for number in range(MIN_COMMON - 1)]
    teacher = side(answers(60, 1), common + [f"a {number}" for number in range(61 - MIN_COMMON)])
    student = side(answers(60, 2), common + [f"b {number}" for number in range(61 - MIN_COMMON)])
    pairing = pair(teacher, student, most=1000)
    assert len(pairing.teacher.texts) == 60 and f"only {MIN_COMMON - 1} prompts" in pairing.warning


def test_sides_without_prompts_are_paired_by_row_or_not_at_all() -> None:
    texts = answers(30, 1)
    rows = Side(texts, None, list(range(30)), None)
    assert "by row" in pair(rows, rows, most=1000).how
    fewer = rows.keep(range(25))
    unpaired = pair(rows, fewer, most=1000)
    assert unpaired.how == "not paired" and unpaired.warning and len(set(unpaired.groups)) == 55


# Files and the command


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def teacher_rows(texts: list[str], **more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": f"Question {n}?"}], "teacher_response": text, **more}
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("columns", "unfinished"),
    [
        ({"finish_reason": "length"}, True),
        ({"finish_reason": "stop"}, False),
        ({"finished": True}, False),
        ({"finished": False}, True),
        ({"extra_info": {"finish_reason": "length"}}, True),
        ({"finish_reason": None}, None),
        ({}, None),
    ],
)
def test_files_may_say_how_a_text_ended(columns: dict[str, Any], unfinished: bool | None, tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", teacher_rows(["A.", "B."], **columns))
    loaded = load_side(path, "teacher_response", "prompt", "teacher", "--teacher-key")
    assert loaded.unfinished == (None if unfinished is None else [unfinished] * 2)


def test_lists_of_texts_have_lists_of_reasons(tmp_path: Path) -> None:
    rows = [
        {"response": ["A.", "B"], "finish_reasons": ["stop", "length"]},
        {"response": ["C."], "finish_reasons": ["stop"]},
    ]
    loaded = load_side(write(tmp_path / "s.jsonl", rows), "response", "prompt", "student", "--student-key")
    assert loaded.texts == ["A.", "B", "C."] and loaded.rows == [0, 0, 1]
    assert loaded.unfinished == [False, True, False]


def test_the_command_compares_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = write(tmp_path / "t.parquet", teacher_rows([text + "\n" for text in answers(60, 1)]))
    student = write(
        tmp_path / "s.jsonl",
        [{"prompt": f"Question {n}?", "response": text} for n, text in enumerate(answers(60, 2))][::-1],
    )
    report = tmp_path / "report.json"
    command = ["data", "leaks", str(teacher), "--student", str(student), "--json", str(report)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "paired by prompt: 60" in shown and "held-out accuracy on the surface alone: 1.000" in shown
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["accuracy"]["value"] == 1.0 and content["findings"][0]["kind"] == "white space around"
    assert cli.main(command) == 2 and "--overwrite" in capsys.readouterr().err
    assert cli.main([*command[:5], "--fail-above", "0.9"]) == ABOVE_THRESHOLD == 1
    assert cli.main([*command[:5], "--fail-above", "1"]) == 0


def test_responses_of_evaluate_are_paired_by_their_fingerprints(tmp_path: Path) -> None:
    """Their column ``prompt`` holds numbers of rows, and they stand in the order in which they were finished."""
    rows = teacher_rows(answers(50, 1))
    teacher = write(tmp_path / "t.parquet", rows)
    responses = [
        asdict(Response(n, 0, Row(tuple(row["prompt"]), "").prompt_id, text, "stop", 9, 9))
        for n, (row, text) in enumerate(zip(rows, answers(50, 2), strict=True))
    ]
    student = write(tmp_path / "s.jsonl", responses[::-1][:45])
    pairing = pair(
        load_side(teacher, "teacher_response", "prompt", "teacher", ""),
        load_side(student, "text", "prompt", "s", ""),
        99,
    )
    assert not pairing.warning and "by prompt: 45" in pairing.how
    assert pairing.teacher.rows == list(range(5, 50))
    groups = pairing.groups.tolist()
    assert groups[:45] == groups[45:][::-1]
    # The same numbers of other prompts are no pairs.
    others = [response | {"prompt_id": f"{n:016x}"} for n, response in enumerate(responses)]
    student = write(tmp_path / "others.jsonl", others)
    teacher_side = load_side(teacher, "teacher_response", "prompt", "teacher", "")
    assert "only 0 prompts" in pair(teacher_side, load_side(student, "text", "prompt", "s", ""), 99).warning


def test_responses_to_images_are_paired_with_their_own_teacher_text(tmp_path: Path) -> None:
    """One question to all of them: only the images tell the prompts apart."""
    rows = [
        row
        | {
            "prompt": [{"role": "user", "content": "<image>What is it?"}],
            "seen": [{"bytes": picture("red", 0, (8, n))}],
        }
        for n, row in enumerate(teacher_rows(answers(40, 1)), start=8)
    ]
    teacher = write(tmp_path / "t.parquet", rows)
    responses = [
        asdict(Response(n, 0, row.prompt_id, text, "stop", 9, 9))
        for n, (row, text) in enumerate(zip(load_rows(teacher, image_key="seen"), answers(40, 2), strict=True))
    ]
    student = write(tmp_path / "s.jsonl", responses[::-1])
    sides = [
        load_side(path, key, "prompt", "", "", "seen")
        for path, key in ((teacher, "teacher_response"), (student, "text"))
    ]
    pairing = pair(*sides, 99)
    assert not pairing.warning and "by prompt: 40" in pairing.how
    groups = pairing.groups.tolist()
    assert groups[:40] == groups[40:][::-1]
    report = tmp_path / "report.json"
    command = ["data", "leaks", str(teacher), "--student", str(student), "--student-key", "text", "--json", str(report)]
    assert cli.main([*command, "--image-key", "seen"]) == 0
    assert "by prompt: 40" in json.loads(report.read_text(encoding="utf-8"))["pairing"]


def test_the_command_compares_two_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = teacher_rows(answers(60, 1))
    for row, text in zip(rows, answers(60, 2), strict=True):
        row["before"] = f"Sure! {text}"
    path = write(tmp_path / "t.parquet", rows)
    assert cli.main(["data", "leaks", str(path), "--student-key", "before", "--fail-above", "0.9"]) == 1
    assert "first token 'Sure'" in capsys.readouterr().out


def test_one_side_alone_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"Sure! {text}" for text in answers(30, 1)]
    texts[0] += "<|im_end|>"
    path = write(tmp_path / "t.parquet", teacher_rows(texts))
    report = tmp_path / "report.json"
    assert cli.main(["data", "leaks", str(path), "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "first token 'Sure': 100.0%" in shown and "--strip-template" in shown and "nothing is said" in shown
    content = json.loads(report.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert content["accuracy"] is None
    clean = one_sided(Side(answers(30, 1), None, list(range(30)), None))
    assert not [found for found in clean.teacher_findings if "token" not in found.name]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"answer": "A."}], [], "has no column 'response' for the student's texts; it has answer.*--student-key"),
        ([{"response": 5}], [], "row 0, column 'response': expected text, got int"),
        ([{"response": "A."}, {"response": None}], [], "row 1, column 'response': expected text, got NoneType"),
        ([{"response": "A."}] * 5, [], "the student's side has 5 texts"),
        ([{"response": "A."}], ["--fail-above", "2"], "--fail-above 2"),
    ],
)
def test_errors_name_file_row_and_column(
    rows: list[dict[str, Any]], options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = write(tmp_path / "t.parquet", teacher_rows(answers(30, 1)))
    student = write(tmp_path / "s.jsonl", rows)
    report = tmp_path / "report.json"
    command = ["data", "leaks", str(teacher), "--student", str(student), "--json", str(report), *options]
    assert cli.main(command) == 2 and not report.exists()
    assert re.search(message, capsys.readouterr().err)


def test_a_threshold_needs_two_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = write(tmp_path / "t.parquet", teacher_rows(answers(30, 1)))
    assert cli.main(["data", "leaks", str(teacher), "--fail-above", "0.9"]) == 2
    assert "--student" in capsys.readouterr().err


def test_other_columns_of_a_students_file_may_hold_anything(tmp_path: Path) -> None:
    rows = [{"response": text, "extra": [1, "a", {"b": 2}][number % 3]} for number, text in enumerate(answers(30, 2))]
    teacher = write(tmp_path / "t.parquet", teacher_rows(answers(30, 1)))
    assert cli.main(["data", "leaks", str(teacher), "--student", str(write(tmp_path / "s.jsonl", rows))]) == 0


def test_every_command_and_option_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data_tools.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ *(gad-verl data .*)$", page, re.MULTILINE)
    assert len(commands) >= 12
    parser = cli.build_parser()
    for command in commands:
        arguments = parser.parse_args(command.split()[1:])
        assert callable(arguments.run)
    offered = ""
    for tool in ("import", "normalize", "split", "stats", "leaks"):
        with pytest.raises(SystemExit):
            cli.main(["data", tool, "--help"])
        offered += capsys.readouterr().out
    named = set(re.findall(r"--[a-z][a-z-]+", page)) - {"--no-"}
    assert named <= set(re.findall(r"--[a-z][a-z-]+", offered))
