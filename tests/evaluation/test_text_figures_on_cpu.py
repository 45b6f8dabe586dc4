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
"""Overlap, diversity, intervals and two-sample tests against closed forms."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from gad_verl.core.intervals import Estimate
from gad_verl.data import overlap
from gad_verl.tools.evaluation import diversity, two_sample

VOCABULARY = "green blue red small large old new fast slow warm cold wet dry high low near far soft hard round".split()
SENTENCE = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=12).map(" ".join)


def texts(words: list[str], count: int, seed: int, length: int = 8) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=length)) for _ in range(count)]


# ------------------------------------------------------------------------------------------------------------- overlap


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80), SENTENCE)
def test_rouge_is_that_of_the_library_on_ascii(reference: str, text: str) -> None:
    stock = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    assert overlap.rouge_l(reference, text) == pytest.approx(stock.score(reference, text)["rougeL"].fmeasure)


@pytest.mark.parametrize("text", ["The cat sleeps.", "猫在睡觉。", "Кошка спит", "แมวนอนหลับ", "!?", ""])
def test_a_text_agrees_with_itself_in_every_script(text: str) -> None:
    assert overlap.rouge_l(text, text) == 1
    assert all(overlap.ngram_f1(text, text, n) in (1, None) for n in range(1, 7))


def test_rouge_of_different_texts() -> None:
    assert overlap.rouge_l("a b c d", "a x c y") == pytest.approx(0.5)
    assert overlap.rouge_l("!?", "...") == 0
    assert 0 < overlap.rouge_l("猫在睡觉", "猫在吃饭") < 1


def test_ngram_f1_in_closed_form() -> None:
    assert overlap.ngram_f1("a b c d", "a b c e", 1) == pytest.approx(2 * 3 / 8)
    assert overlap.ngram_f1("a b c d", "a b c e", 2) == pytest.approx(2 * 2 / 6)
    assert overlap.ngram_f1("a b c d", "a b c e", 4) == 0
    assert overlap.ngram_f1("a b c d", "a b c e", 5) is None
    assert overlap.ngram_f1("a b c d e", "a b c d", 5) == 0
    # Clipped: the third and fourth "a" find no partner.
    assert overlap.ngram_f1("a a b", "a a a a", 1) == pytest.approx(2 * 2 / 7)
    with pytest.raises(ValueError, match="at least 1"):
        overlap.ngrams(["a"], 0)


@given(SENTENCE, SENTENCE, st.integers(1, 6))
def test_ngram_f1_is_symmetric_and_bounded(one: str, other: str, n: int) -> None:
    value = overlap.ngram_f1(one, other, n)
    assert value == overlap.ngram_f1(other, one, n)
    assert value is None or 0 <= value <= 1


def test_diversity_in_closed_form() -> None:
    assert diversity.distinct(["a b a", "b"], 1) == pytest.approx(2 / 4)
    assert diversity.distinct(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert diversity.distinct(["a", ""], 2) is None
    assert diversity.self_repetition("a b c d e") == 0
    assert diversity.self_repetition("a b") == 0
    assert diversity.self_repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert diversity.self_repetition("again " * 103) == pytest.approx(0.99)


# ---------------------------------------------------------------------------------------------------- two-sample tests


@pytest.mark.parametrize("characters", [False, True])
def test_the_same_texts_cannot_be_told_apart(characters: bool) -> None:
    same = texts(VOCABULARY, 64, seed=0)
    accuracies = two_sample.ngram_accuracies(same, same, splits=2, characters=characters)
    assert accuracies == pytest.approx(np.full(64, 0.5))
    assert two_sample.accuracy(accuracies) == Estimate(0.5, 0.5, 0.5)


def test_disjoint_vocabularies_are_told_apart() -> None:
    accuracies = two_sample.ngram_accuracies(texts(VOCABULARY[:10], 64, 1), texts(VOCABULARY[10:], 64, 2), splits=3)
    assert accuracies.mean() > 0.99
    assert two_sample.accuracy(accuracies).high <= 1


def test_only_characters_see_white_space() -> None:
    teacher = texts(VOCABULARY, 80, 1)
    student = [f"{text} \n" for text in texts(VOCABULARY, 80, 2)]
    assert two_sample.ngram_accuracies(teacher, student, splits=2, characters=True).mean() > 0.95
    assert two_sample.accuracy(two_sample.ngram_accuracies(teacher, student, splits=5)).covers(0.5)


def test_the_classifier_never_sees_the_tested_prompt() -> None:
    """Both texts of a prompt share a word that no other prompt has: knowing it would help, and must not."""
    teacher, student = [f"alpha{index}" for index in range(40)], [f"beta{index}" for index in range(40)]
    assert two_sample.ngram_accuracies(teacher, student, splits=3).mean() == pytest.approx(0.5, abs=0.01)


def test_texts_of_one_prompt_stay_together() -> None:
    """A greedy student says the same twice: learned from one half, it would be known in the other."""
    rng = np.random.default_rng(3)
    once = [[" ".join(rng.choice(VOCABULARY, 12)) for _ in range(24)] for _ in range(2)]
    prompts = [str(number) for number in range(24)] * 2
    apart = two_sample.ngram_accuracies(*(side * 2 for side in once), splits=4)
    together = two_sample.ngram_accuracies(*(side * 2 for side in once), splits=4, prompts=prompts)
    alone = two_sample.ngram_accuracies(*once, splits=4)
    assert apart.mean() > 0.6
    # Everything twice is learned from twice as much of the same, and nothing else changes.
    assert together[:24] == pytest.approx(together[24:]) and abs(together.mean() - alone.mean()) < 0.1
    features = rng.normal(size=(2, 24, 3)).repeat(2, axis=1)
    doubled = two_sample.feature_accuracies(*features, splits=2, prompts=[str(n // 2) for n in range(48)])
    assert doubled[::2] == pytest.approx(doubled[1::2])
    with pytest.raises(ValueError, match="at least 4 prompts; got 1"):
        two_sample.ngram_accuracies(["a"] * 8, ["b"] * 8, prompts=["same"] * 8)


def test_marks_of_letters_are_parts_of_words() -> None:
    assert overlap.words("हिन्दी में उत्तर") == ["हिन्दी", "में", "उत्तर"]
    assert overlap.rouge_l("हिन्दी में", "उत्तर दो") == 0
    composed, spelled_out = "caf\u00e9 d\u00e9j\u00e0", "cafe\u0301 de\u0301ja\u0300"
    assert overlap.rouge_l(composed, spelled_out) == 1 and overlap.words(spelled_out) == ["café", "déjà"]


def test_counting_once_is_counting_for_each_half() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    teacher, student = (np.asarray(texts(VOCABULARY, 30, seed), dtype=object) for seed in (1, 2))
    model = make_pipeline(
        CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]"), LogisticRegression(max_iter=1000)
    )
    correct = np.zeros(30)
    halves = np.array_split(np.random.default_rng(0).permutation(30), 2)
    for seen, unseen in (halves, halves[::-1]):
        model.fit(np.concatenate([teacher[seen], student[seen]]), np.repeat([1, 0], len(seen)))
        correct[unseen] = (model.predict(teacher[unseen]) == 1) * 0.5 + (model.predict(student[unseen]) == 0) * 0.5
    ours = two_sample.ngram_accuracies(list(teacher), list(student), splits=1, seed=0)
    assert np.mean(ours == correct) >= 0.9  # the solvers stop at slightly different places


def test_texts_without_a_word_are_no_accident() -> None:
    assert two_sample.ngram_accuracies([""] * 8, [""] * 8, splits=2, characters=True).mean() == 0.5
    assert two_sample.ngram_accuracies([""] * 8, [""] * 8, splits=2) == pytest.approx(np.full(8, 0.5))
    with pytest.raises(ValueError, match="at least 4"):
        two_sample.ngram_accuracies(["a"] * 3, ["b"] * 3)


def test_the_interval_covers_one_half_where_nothing_can_be_told_apart() -> None:
    """Features without a difference: 0.5 is true, and a plain bootstrap would miss it more often than it says."""
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(60):
        teacher, student = rng.normal(size=(2, 48, 4))
        covered.append(two_sample.accuracy(two_sample.feature_accuracies(teacher, student, splits=4)).covers(0.5))
    assert np.mean(covered) >= 0.88  # 60 cases of a 95 % interval: below that once in 50 suites, the seed is fixed


def test_features_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(9)
    teacher, student = rng.normal(0, 1, size=(60, 16)), rng.normal(2, 1, size=(60, 16))
    assert two_sample.feature_accuracies(teacher, student, splits=2).mean() > 0.95
    assert two_sample.feature_accuracies(teacher, teacher, splits=2) == pytest.approx(np.full(60, 0.5))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_swapping_the_sides_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    teacher = [" ".join(rng.choices(VOCABULARY[:15], k=6)) for _ in range(20)]
    student = [" ".join(rng.choices(VOCABULARY[5:], k=6)) for _ in range(20)]
    one = two_sample.ngram_accuracies(teacher, student, splits=2, seed=seed)
    assert two_sample.ngram_accuracies(student, teacher, splits=2, seed=seed) == pytest.approx(one, abs=0.26)
    assert one.mean() == pytest.approx(
        two_sample.ngram_accuracies(student, teacher, splits=2, seed=seed).mean(), abs=0.03
    )
