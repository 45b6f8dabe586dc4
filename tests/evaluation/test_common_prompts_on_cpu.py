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
"""Prompts that a judge could not read in every folder: what is compared is over the same ones."""

import numpy as np
import pytest
from test_compare_on_cpu import Write, marks_of, write  # noqa: F401

from gad_verl.tools.evaluation import comparison, preferences
from gad_verl.tools.evaluation.seeds import compare_seeds, render_seeds

PROMPTS = 40
KEYS = ("score", "win_rate_teacher", "length_controlled_teacher")


def unreadable(marks: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The same marks, of some prompts without one of them."""
    marks = marks.copy()
    marks[prompts, 3] = np.nan
    return marks


def hard_half(seed: int) -> np.ndarray:
    """Marks of a student that is much worse in the second half of the prompts."""
    return np.concatenate([marks_of(8, 7, PROMPTS // 2, 0.3, seed), marks_of(3, 7, PROMPTS // 2, 0.3, seed)])


@pytest.mark.parametrize("seed", range(3))
def test_who_is_worse_on_every_prompt_is_not_proposed(seed: int, write: Write) -> None:  # noqa: F811
    rng = np.random.default_rng(seed)
    better = hard_half(seed)
    worse = better - np.outer(rng.uniform(0.2, 1, PROMPTS), [1, 0, 1, 0])
    hardest = np.argsort(worse[:, 0])[:16]
    lengths = rng.uniform(9, 11, PROMPTS)
    folders = [write("a", lengths, better), write("b", lengths, unreadable(worse, hardest))]
    result = comparison.compare(folders)
    read = np.setdiff1d(np.arange(PROMPTS), hardest)
    assert result.proposal.name == "a" and "to all others leave 0 out" in result.proposal.reason
    assert result.figures["a"]["score"].value == pytest.approx(preferences.relative_score(better[read]).value)
    assert any("a 40, b 24 of 40" in note and "scores are over the 24" in note for note in result.notes)
    assert any("win rates are over the 24" in note for note in result.notes)


@pytest.mark.parametrize("seed", range(3))
def test_the_table_and_the_differences_are_over_the_same_prompts(seed: int, write: Write) -> None:  # noqa: F811
    rng = np.random.default_rng(seed)
    names = ("a", "b", "c")
    folders = [
        write(name, rng.uniform(9, 11, PROMPTS), unreadable(hard_half(rng.integers(99)), rng.permutation(PROMPTS)[:9]))
        for name in names
    ]
    result = comparison.compare(folders)
    for name in names[1:]:
        for key in KEYS[:2]:
            figures = result.figures[name][key].value - result.figures["a"][key].value
            assert result.differences[name][key].value == pytest.approx(figures)


def test_who_was_not_judged_takes_no_prompt_away(write: Write) -> None:  # noqa: F811
    marks = hard_half(0)
    nothing = unreadable(marks, np.arange(PROMPTS))
    lengths = [10.0] * PROMPTS
    result = comparison.compare([write("a", lengths, marks), write("b", lengths), write("c", lengths, nothing)])
    assert result.figures["a"]["score"].value == pytest.approx(preferences.relative_score(marks).value)
    assert not any("can be read" in note for note in result.notes)


def test_without_a_prompt_that_can_be_read_in_all_there_is_no_score(write: Write) -> None:  # noqa: F811
    halves = np.array_split(np.arange(PROMPTS), 2)
    lengths = [10.0] * PROMPTS
    folders = [write(name, lengths, unreadable(hard_half(0), half)) for name, half in zip("ab", halves, strict=True)]
    result = comparison.compare(folders)
    assert not any(key in result.figures[name] for key in KEYS for name in "ab")
    assert any("over the 0 that can be read in all" in note for note in result.notes)


def test_marks_that_are_all_0_are_no_score(write: Write) -> None:  # noqa: F811
    folders = [write("a", [10.0] * 8, np.zeros((8, 4))), write("b", [10.0] * 8, marks_of(6, 8, 8, 0.2))]
    result = comparison.compare(folders)
    assert "nan" not in comparison.render(result) and "score" not in result.figures["a"]
    assert result.proposal.criterion != "judge score"


# ------------------------------ seeds ------------------------------


def test_equal_answers_differ_in_no_seed(write: Write) -> None:  # noqa: F811
    folders: dict[str, list] = {"one": [], "two": []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        marks, lengths = hard_half(seed), rng.uniform(9, 11, PROMPTS)
        folders["one"].append(write(f"one/{seed}", lengths, unreadable(marks, rng.permutation(PROMPTS)[:3])))
        folders["two"].append(write(f"two/{seed}", lengths, unreadable(marks, np.arange(PROMPTS - 15, PROMPTS))))
    found = compare_seeds(folders)
    for key in KEYS:
        assert found.of_seeds["two"][key] == pytest.approx([0] * 3)
    assert any("can be read in both of its folders" in note for note in found.notes)


def test_each_seed_has_the_difference_of_its_two_folders(write: Write) -> None:  # noqa: F811
    folders: dict[str, list] = {"one": [], "two": []}
    for number in range(6):
        rng = np.random.default_rng(number)
        marks = unreadable(hard_half(number), rng.permutation(PROMPTS)[:9])
        name = ("one", "two")[number % 2]
        folders[name].append(write(f"{name}/{number}", rng.uniform(9, 11, PROMPTS), marks, rng.random(PROMPTS)))
    found = compare_seeds(folders)
    for seed, pair in enumerate(zip(*folders.values(), strict=True)):
        (alone,) = comparison.compare(pair).differences.values()
        for key, estimate in alone.items():
            assert found.of_seeds["two"][key][seed] == pytest.approx(estimate.value), key


def test_intervals_over_seeds_stay_within_what_can_be(write: Write) -> None:  # noqa: F811
    folders: dict[str, list] = {"good": [], "bad": []}
    for seed in range(3):
        good, bad = marks_of(10, seed / 2, noise=0.0), marks_of(seed / 2, 10, noise=0.0)
        folders["good"].append(write(f"good/{seed}", [1.0 + 9 * (seed > 1)] * 20, good, [1.0 - 0.01 * seed] * 20))
        folders["bad"].append(write(f"bad/{seed}", [10.0] * 20, bad, [0.01 * seed] * 20))
    found = compare_seeds(folders)
    for key, lowest, highest in (("score", 0, 100), ("win_rate_teacher", 0, 100), ("two_sample_words", 0, 1)):
        for of in (*found.figures.values(), *found.differences.values()):
            estimate, least = of[key], lowest if of in found.figures.values() else lowest - highest
            assert least <= estimate.low <= estimate.value <= estimate.high <= highest, key
    assert found.figures["good"]["length"].low >= 0
    # What one seed alone has no interval of stays without.
    one = compare_seeds({name: some[:1] for name, some in folders.items()})
    assert "nan" not in render_seeds(one) and "[" not in "".join(render_seeds(one).splitlines()[1:])
