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
"""Checks of answers: rules, numbers, tests of code, their way into an evaluation, and comparisons over seeds."""

import json
import logging
import random
import resource
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compare_on_cpu import Write, write  # noqa: F401  a fixture

from gad_verl import cli
from gad_verl.core import intervals
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.evaluation.checks import Check, checks_of, passed_share
from gad_verl.tools.evaluation.code_tests import CodeLimits, code_of, passes_tests
from gad_verl.tools.evaluation.instruction_rules import RULES, follows
from gad_verl.tools.evaluation.number_answers import final_number, is_number, numbers
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.tools.evaluation.seeds import compare_seeds

# ------------------------------ rules ------------------------------

# Rule, arguments, an answer that follows, one that does not.
CASES = [
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "A Cat and a dog.", "A catalogue and a dog."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "cat, CAT", "cat cats"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "one cat", "cat cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "A train.", "Rain!"),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": "at least"}, "Qq", "q"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "two words", "it's now three"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One 2.5 two"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen, more.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name] at []"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Dear\np. s. more", "Dear P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n*b*"),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "no."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "**a** and * b"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1 Part 2", "Part 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<On rain>>\nIt", "<< >> It"),
    ("combination:two_responses", {}, "one******two", "one******one"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "Is that all?"}, 'Yes. is that all?"', "Is that all? Yes"),
    ("startend:quotation", {}, ' "so" ', '"so'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AB C d", "AB c"),
    ("change_case:english_capital", {}, "ALL 3!", "ALl"),
    ("change_case:english_lowercase", {}, "all 3!", "aLl"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
    # Scripts without spaces: each character is a word, and a keyword may stand anywhere.
    ("keywords:existence", {"keywords": ["猫"]}, "我喜欢猫。", "我喜欢狗。"),
    ("keywords:existence", {"keywords": ["Python"]}, "我用Python写代码", "我用Pythonic写代码"),
    ("keywords:forbidden_words", {"forbidden_words": ["暴力"]}, "我爱和平。", "我讨厌暴力内容。"),
    ("keywords:frequency", {"keyword": "ไทย", "frequency": 2}, "ภาษาไทยของคนไทย", "ภาษาไทย"),
    (
        "length_constraints:number_words",
        {"num_words": 10, "relation": "at least"},
        "我喜欢猫，因为它们很可爱。",
        "我喜欢猫。",
    ),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "हिन्दी में उत्तर", "एक दो तीन चार"),
    ("length_constraints:number_sentences", {"num_sentences": 2}, "你好。再见！", "你好，再见！"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "然后"},
        "然后我们走。",
        "我们然后走。",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n \n***\nb\n***", "a *** b"),
    ("punctuation:no_comma", {}, "我喜欢猫。", "我喜欢猫，也喜欢狗。"),
]


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), CASES)
def test_each_rule_tells_its_two_sides_apart(kind: str, arguments: dict, good: str, bad: str) -> None:
    assert follows(good, kind, arguments) and not follows(bad, kind, arguments)
    # IFEval's files fill arguments of other rules with nulls; an empty answer follows nothing.
    assert follows(good, kind, arguments | {"of_another_rule": None}) and not follows(" ", kind, arguments)


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(RULES)


@given(st.lists(st.sampled_from(["alpha", "beta", "it's", "x2"]), max_size=30), st.integers(0, 35))
def test_at_least_and_less_than_share_all_answers(parts: list[str], limit: int) -> None:
    text = " ".join(parts)
    found = [
        follows(text, "length_constraints:number_words", {"num_words": limit, "relation": relation})
        for relation in ("at least", "less than")
    ]
    assert sum(found) == bool(parts) and (not parts or found[0] == (len(parts) >= limit))


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("length:words", {}, "no rule checks"),
        ("punctuation:no_comma", {"many": 1}, "no_comma cannot be asked"),
        ("keywords:existence", {"keywords": "cat"}, "a list of texts"),
        ("keywords:forbidden_words", {"forbidden_words": [""]}, "a list of texts"),
    ],
)
def test_what_no_rule_can_check_is_named(kind: str, arguments: dict, words: str) -> None:
    with pytest.raises(GadDataError, match=words):
        follows("text", kind, arguments)


@pytest.mark.parametrize("kind", sorted(RULES))
@pytest.mark.parametrize(
    "text", ["\n" * 20_000, " \n" * 10_000, "*" * 20_000, "[" * 20_000, "." * 20_000, 'a." ' * 7_000]
)
def test_a_broken_answer_is_judged_at_once(kind: str, text: str) -> None:
    """A student that writes newlines alone took minutes where a pattern went back over them: what hangs has failed."""
    follows(text, kind, next(case[1] for case in CASES if case[0] == kind))


# ------------------------------ numbers ------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It is 1,234.50 in all.", Fraction("1234.5")),
        ("3 apples and 4 pears: 7", 7),
        ("so \\boxed{\\frac{1}{3}} and 9 more", Fraction(1, 3)),
        ("#### -42\nas said", -42),
        ("x = 2/4", Fraction(1, 2)),
        ("about 1e-3.", Fraction("0.001")),
        ("v2 and B12", None),
        ("none", None),
        ("1/0", None),
        ("−5", -5),
        ("答案是18。", 18),
        ("先算9，一共18元", 18),
        ("답은 18입니다.", 18),
        ("Ответ: 18руб", 18),
        ("The answer is 18cm, of 2 parts: _18_", 18),
        ("x_1 and y_2", None),
        ("#### Step 1: add\n9+9=18\n\nThe answer is 18.", 18),
        ("#### 1. Multiply\n9*2 = 18", 18),
        ("#### Answer\n18", 18),
        ("The 3 parts cost 6.\n#### $18\nThat was 4 steps.", 18),
        ("\\boxed{1{,}018}", 1018),
        ("\\boxed{1,\\!018}", 1018),
        ("\\boxed{2\\frac{1}{2}}", Fraction(5, 2)),
        ("\\boxed{-2\\dfrac12}", Fraction(-5, 2)),
        ("1.8 \\times 10^1", 18),
        ("1.8 × 10^{-2}", Fraction("0.018")),
        ("\\boxed{18} or \\boxed{}", 18),
        ("\\boxed{\\text{18 cm}}", 18),
        ("\\boxed{\\left\\{ \\frac{\\sqrt{9}}{1} = 3 \\right\\}}", 3),
        ("so \\boxed{18}, or \\boxed{19", 18),
        ("12/25 of 100", 100),
    ],
)
def test_the_number_that_an_answer_settles_on(text: str, value: Fraction | None) -> None:
    assert final_number(text) == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 4))
def test_a_number_is_read_however_it_is_written(whole: int, digits: int) -> None:
    value = Fraction(whole, 10**digits)
    plain = f"{whole / 10**digits:.{digits}f}"
    grouped = f"{whole / 10**digits:,.{digits}f}"
    for text in (plain, f"The answer is {grouped}.", f"\\boxed{{{grouped}}}", f"#### {plain}", f"({plain})"):
        assert final_number(text) == value, text
        assert is_number(text, plain)


@pytest.mark.parametrize("repeated", ["\\frac{1}{2}+", "\\boxed{", "{", "\\frac{1", "1,", "#### ", "1" * 20, " " * 20])
def test_an_answer_that_was_cut_off_is_read_at_once(repeated: str) -> None:
    """Backtracking took twice as long with each fraction: a test run that hangs has failed."""
    text = "\\boxed{" + repeated * 2_000
    assert final_number(text) == numbers(text)[-1] if numbers(text) else final_number(text) is None


@pytest.mark.parametrize("digits", [1, 2150, 2151, 4299, 4300, 4301, 20_000])
def test_digits_beyond_what_python_reads_are_no_number(digits: int) -> None:
    whole = "1" * digits
    for text in (
        f"{whole}\\frac{{1}}{{2}}",
        f"\\boxed{{{whole}\\frac12}}",
        f"#### 3\n\\boxed{{-{whole} \\dfrac{{1}}{{2}}}}",
    ):
        value = (Fraction(int(whole)) + Fraction(1, 2)) * (-1) ** ("-" in text) if digits <= 4300 else None
        assert final_number(text) == value
    # Digits that can be read, and a numerator of twice as many.
    value = int(whole) + Fraction(1, int(whole)) if 2 * digits - 1 <= 4300 else None
    assert final_number(f"{whole}\\frac{{1}}{{{whole}}}") == value


@pytest.mark.parametrize(
    "text",
    [
        "1e999999999",
        "1e-999999999",
        "10^10^10",
        "10^{10^{10}}",
        "2 \\times 10^{999999999}",
        "2 \\times 10^999",
        "1e999 / 1e-999",
        "9" * 5000 + "e999",
        "0." + "1" * 20_000,
        "1/" + "3" * 20_000,
        "1" * 20_000 + "/3",
        "1" + ",000" * 5000,
        "\\frac{" + "1" * 20_000 + "}{3}",
    ],
)
def test_a_number_out_of_all_size_is_judged_at_once(text: str) -> None:
    """To write such powers out would take more memory than there is: a test run that hangs has failed."""
    for answer in (text, f"\\boxed{{{text}}}", f"#### {text}"):
        assert not is_number(answer, 18)
        assert all(found.numerator.bit_length() + found.denominator.bit_length() < 20_000 for found in numbers(answer))


def test_a_tolerance_is_relative_above_one() -> None:
    assert is_number("1010", 1000, 0.01) and not is_number("1011", 1000, 0.01)
    assert is_number("0.105", "0.1", 0.01) and not is_number("0.2", "0.1", 0.01)
    assert numbers("1, 2, 3") == [1, 2, 3]
    with pytest.raises(GadDataError, match="needs a number"):
        is_number("1", "no number")
    with pytest.raises(GadDataError, match="tolerance"):
        is_number("1", 1, float("nan"))


# ------------------------------ code ------------------------------


def test_code_passes_or_fails_its_tests() -> None:
    answer = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone."
    assert code_of(answer).startswith("def double")
    assert passes_tests(answer, "assert double(2) == 4") and not passes_tests(answer, "assert double(2) == 5")
    assert passes_tests("def double(x): return x + x", "assert double(3) == 6")


GOOD = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"```bash\npip install it\n```\n\nThen:\n\n```python\n{GOOD}```\n",
        f"```python\n{GOOD}```\nIt prints\n```\n4\n```\n",
        f"```python\n{GOOD}```\nRun\n```bash\npython a.py\n```\nand\n```bash\nls\n```",
        '```python\ndef double(x):\n    """Say ```x``` twice."""\n    return 2 * x\n```',
        f'```Python title="a.py"\n{GOOD}```',
        f"~~~\n{GOOD}~~~",
        f"It was cut off:\n```py\n{GOOD}",
        f"```python\n{GOOD}```".replace("\n", "\r\n"),
        "1. This:\n\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n2. Done",
        f"```python\nfirst draft\n```\nBetter:\n```python\n{GOOD}```",
    ],
)
def test_the_code_of_an_answer_is_its_last_block_of_python(answer: str) -> None:
    assert code_of(answer) == GOOD or code_of(answer).replace('    """Say ```x``` twice."""\n', "") == GOOD


def test_what_an_answer_prints_is_kept_by_nobody() -> None:
    """It was gathered in this process, hundreds of megabytes in a second."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not passes_tests("while True: print('x' * 65536)", "", CodeLimits(seconds=1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert passes_tests("print('x' * 10_000_000)", "assert True")


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"seconds": "5"}, {"memory_mib": None}, {"memory_mib": 0.5}, {"seconds": float("nan")}]
)
def test_limits_are_numbers_above_zero(limits: dict) -> None:
    with pytest.raises(GadDataError, match=next(iter(limits))):
        CodeLimits(**limits)
    assert CodeLimits(memory_mib=512.0).memory_mib == 512  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "def double(x): return 4\ndouble = None",
        "print('gad-verl: every test passed'); quit()",
        "x = bytearray(8 * 2**30)",
        "open('big', 'wb').write(bytes(64 * 2**20))",
        "this is no code",
    ],
)
def test_what_does_not_come_to_the_end_has_not_passed(code: str) -> None:
    assert not passes_tests(code, "assert double(2) == 4", CodeLimits(seconds=20))


def test_loops_and_what_they_started_are_ended(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    code = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3); open({str(alive)!r}, \"w\")'])\n"
        "while True: pass"
    )
    assert not passes_tests(code, "", CodeLimits(seconds=1))
    time.sleep(3.5)
    assert not alive.exists()


def test_the_answer_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert passes_tests("import os", "assert 'OPENAI_API_KEY' not in os.environ")


# ------------------------------ rows ------------------------------


def test_checks_of_a_row() -> None:
    own = [{"kind": "number", "value": 4, "code": None}, {"kind": "punctuation:no_comma"}]
    for value in (own, json.dumps(own), np.array(own, dtype=object)):
        assert checks_of({"c": value}, "c", "f, row 0") == (
            Check("number", {"value": 4}),
            Check("punctuation:no_comma"),
        )
    ifeval = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"num_words": 2, "relation": "at least"}],
    }
    found = checks_of(ifeval, "instruction_id_list", "f, row 0")
    assert [passed_share(found, text) for text in ("two words", "one", "a, b, c")] == [1, 0.5, 0.5]
    as_text = ifeval | {"kwargs": [json.dumps(some) for some in ifeval["kwargs"]]}
    assert checks_of(as_text, "instruction_id_list", "f, row 0") == found
    with pytest.raises(GadDataError, match="row 0.*kwargs.*expected objects"):
        checks_of(ifeval | {"kwargs": [[1], {}]}, "instruction_id_list", "f, row 0")
    assert checks_of({"c": None}, "c", "f") == () and passed_share((), "x") is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"d": []}, "no column 'c'"),
        ({"c": "{"}, "is no JSON"),
        ({"c": 3}, "a list of checks"),
        ({"c": [3]}, "objects with a kind"),
        ({"c": [{"kind": "mood"}]}, "no rule checks 'mood'"),
    ],
)
def test_a_row_whose_checks_cannot_be_made_is_named(record: dict, words: str) -> None:
    with pytest.raises(GadDataError, match=f"f, row 7.*{words}"):
        checks_of(record, "c", "f, row 7")


NTH = {
    "kind": "length_constraints:nth_paragraph_first_word",
    "num_paragraphs": 2,
    "nth_paragraph": 1,
    "first_word": "yes",
}


def test_whole_numbers_that_a_file_keeps_as_decimals_are_whole() -> None:
    """A column of numbers with gaps is one of decimals in many files."""
    for kind, arguments, good, bad in CASES:
        decimals = {name: float(value) if isinstance(value, int) else value for name, value in arguments.items()}
        (check,) = checks_of({"checks": [{"kind": kind, **decimals}]}, "checks", "rows.parquet, row 3")
        assert check.passes(good) and not check.passes(bad)


@pytest.mark.parametrize(
    "check",
    [
        {"kind": "length_constraints:number_words", "relation": "at least"},
        {"kind": "number", "value": "none"},
        {"kind": "number", "value": 1, "tolerance": -1},
        {"kind": "tests", "seconds": 5},
        {"kind": "tests", "code": "assert True", "minutes": 1},
        {"kind": "tests", "code": "assert True", "seconds": "5"},
        {"kind": "number", "value": 1, "tolerance": float("nan")},
        {"kind": "keywords:existence", "keywords": "cat"},
        NTH | {"nth_paragraph": 1.5},
        NTH | {"nth_paragraph": "1"},
        NTH | {"nth_paragraph": float("nan")},
        NTH | {"num_paragraphs": float("inf")},
        NTH | {"num_paragraphs": True},
        NTH | {"first_word": 3},
        {"kind": "startend:end_checker", "end_phrase": ["x"]},
    ],
)
def test_a_check_that_cannot_be_made_is_named_before_anybody_answers(check: dict) -> None:
    with pytest.raises(GadDataError, match=r"^rows.parquet, row 3, column 'checks': "):
        checks_of({"checks": [check]}, "checks", "rows.parquet, row 3")


@pytest.mark.parametrize(
    "check", [Check("number", {"worth": 3}), Check("tests", {}), Check("tests", {"code": "", "a": 1})]
)
def test_arguments_that_a_check_does_not_know_are_named(check: Check) -> None:
    with pytest.raises(GadDataError, match=check.kind):
        check.passes("text")


def test_a_file_brings_its_checks(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"q{n}"}],
            "teacher_response": "t",
            "checks": [{"kind": "number", "value": n}],
        }
        for n in range(3)
    ]
    path = tmp_path / "rows.parquet"
    pd.DataFrame(rows).to_parquet(path)
    found = load_rows(path, checks_key="checks")
    assert [row.checks[0].passes(str(number)) for number, row in enumerate(found)] == [True] * 3
    assert load_rows(path)[0].checks == ()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_kinds_of_ifeval_without_a_rule_are_left_out_and_counted(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    language, mood = ("language:response_language", {"language": "hi"}), ("detectable_content:mood", {"mood": "low"})
    comma, few = (
        ("punctuation:no_comma", {}),
        ("length_constraints:number_words", {"num_words": 2, "relation": "at least"}),
    )
    instructions = [[comma], [language], [few, language, comma], [mood, language]]
    rows = [
        {
            "prompt": [{"role": "user", "content": f"q{number}"}],
            "teacher_response": "t",
            "instruction_id_list": [name for name, _ in some],
            "kwargs": [arguments for _, arguments in some],
        }
        for number, some in enumerate(instructions)
    ]
    path = tmp_path / f"ifeval.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with caplog.at_level(logging.WARNING, "gad_verl"):
        found = load_rows(path, checks_key="instruction_id_list")
    assert [[check.kind for check in row.checks] for row in found] == [[comma[0]], [], [few[0], comma[0]], []]
    assert passed_share(found[2].checks, "two words") == 1 and passed_share(found[1].checks, "x") is None
    [warning] = [record.getMessage() for record in caplog.records]
    assert str(path) in warning and f"{language[0]} (3)" in warning and f"{mood[0]} (1)" in warning
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gad_verl"):
        load_rows(path, checks_key="instruction_id_list", limit=1)
    assert not caplog.records
    # A check of one's own is no kind that somebody else made up.
    with pytest.raises(GadDataError, match=f"no rule checks '{language[0]}'"):
        checks_of({"checks": [{"kind": language[0], **language[1]}]}, "checks", "f, row 0")


def test_the_page_counts_the_rules() -> None:
    """24 of the 25 kinds of IFEval."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"{len(RULES)} of IFEval's {len(RULES) + 1} kinds" in page and "language:response_language" not in RULES


# ------------------------------ seeds ------------------------------


def test_intervals_are_over_the_seeds(write: Write, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    rng = random.Random(0)
    lengths = {name: [[rng.uniform(5, 20) for _ in range(12)] for _ in range(4)] for name in ("one", "two")}
    folders = {name: [write(f"{name}/{seed}", some[seed]) for seed in range(4)] for name, some in lengths.items()}
    found = compare_seeds(folders)
    each = [np.mean(lengths["two"][seed]) - np.mean(lengths["one"][seed]) for seed in range(4)]
    assert found.of_seeds["two"]["length"] == pytest.approx(each)
    expected = intervals.student(float(np.mean(each)), np.array(each) - np.mean(each))
    estimate = found.differences["two"]["length"]
    assert (estimate.value, estimate.low) == pytest.approx((expected.value, expected.low))
    command = ["compare"]
    for name, some in folders.items():
        command += ["--method", name, *map(str, some)]
    cli.main(command)
    shown = capsys.readouterr().out
    assert "4 seeds" in shown and "| two |" in shown and "Paired differences to one" in shown
    cli.main([*command, "--json"])
    assert json.loads(capsys.readouterr().out)["seeds"] == 4


def test_one_seed_has_no_interval(write: Write) -> None:  # noqa: F811
    found = compare_seeds({"one": [write("a", [1.0, 2.0])], "two": [write("b", [2.0, 3.0])]})
    assert found.differences["two"]["length"].value == 1 and np.isnan(found.differences["two"]["length"].low)
    assert "One seed" in found.notes[-1]


def test_what_seeds_lack_or_differ_in_is_said(write: Write) -> None:  # noqa: F811
    marks = np.tile([6.0, 8.0, 6.0, 8.0], (4, 1))
    one = [write(f"a{seed}", [1.0] * 4, marks) for seed in range(2)]
    other = [write("b0", [2.0] * 4, marks, judge="another"), write("b1", [2.0] * 4, max_response_length=32)]
    notes = " ".join(compare_seeds({"one": one, "two": other}).notes)
    assert "Different judges" in notes and "max_response_length differs" in notes
    assert "left out: judge score, win rate against the teacher" in notes


def test_methods_with_other_seeds_are_refused(write: Write) -> None:  # noqa: F811
    a, b, c = (write(name, [1.0, 2.0]) for name in "abc")
    for methods in ({"one": [a]}, {"one": [a, b], "two": [c]}, {"one": [], "two": []}):
        with pytest.raises(GadConfigError, match="same seeds"):
            compare_seeds(methods)
