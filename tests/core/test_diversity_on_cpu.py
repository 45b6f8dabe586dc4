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
"""Diversity of rollouts against sacrebleu and against the definitions, written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from gad_verl.core.diversity import MOST_GROUPS, distinct, repetition, rollout_diversity, self_bleu, spread_out
from gad_verl.data.tokens import EncodedResponse
from gad_verl.trainer.encoding import EncodedGroup
from gad_verl.trainer.metrics import text_metrics

RESPONSE = st.lists(st.integers(0, 6), max_size=20)
GROUP = st.lists(RESPONSE.filter(bool), min_size=2, max_size=6)


def by_sacrebleu(group: list[list[int]]) -> float:
    bleu = BLEU(tokenize="none", effective_order=True, force=True)
    texts = [" ".join(map(str, ids)) for ids in group]
    scores = [bleu.sentence_score(text, texts[:place] + texts[place + 1 :]) for place, text in enumerate(texts)]
    return sum(score.score for score in scores) / len(scores) / 100


@settings(max_examples=300, deadline=None)
@given(group=GROUP)
def test_self_bleu_is_that_of_sacrebleu(group: list[list[int]]) -> None:
    assert self_bleu(group) == pytest.approx(by_sacrebleu(group), abs=1e-9)


@settings(deadline=None)
@given(ids=RESPONSE, others=st.integers(1, 6), data=st.data())
def test_self_bleu_at_its_ends(ids: list[int], others: int, data: st.DataObject) -> None:
    assert self_bleu([ids] * (others + 1)) == pytest.approx(1.0)
    strangers = [[10 * (place + 1) + token for token in ids] for place in range(others + 1)]
    assert self_bleu(strangers) == (0.0 if ids else 1.0)
    group = data.draw(GROUP)
    assert self_bleu(data.draw(st.permutations(group))) == pytest.approx(self_bleu(group))
    # Names of tokens play no role.
    assert self_bleu([[1000 - 7 * token for token in one] for one in group]) == pytest.approx(self_bleu(group))


def test_an_empty_response_is_like_another_empty_one_only() -> None:
    assert self_bleu([[], [1, 2]]) == 0.0 and self_bleu([[], [], [1, 2]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least two"):
        self_bleu([[1]])


@settings(deadline=None)
@given(group=st.lists(RESPONSE, max_size=6), n=st.integers(1, 4))
def test_distinct(group: list[list[int]], n: int) -> None:
    grams = [tuple(ids[start : start + n]) for ids in group for start in range(len(ids) - n + 1)]
    assert distinct(group, n) == (pytest.approx(len(set(grams)) / len(grams)) if grams else None)


@settings(deadline=None)
@given(ids=RESPONSE, times=st.integers(2, 9))
def test_repetition(ids: list[int], times: int) -> None:
    grams = [tuple(ids[start : start + 4]) for start in range(len(ids) - 3)]
    assert repetition(ids) == (pytest.approx(1 - len(set(grams)) / len(grams)) if grams else 0.0)
    # A circle of four different tokens: four different 4-grams, however long it goes on.
    assert repetition([1, 2, 3, 4] * times) == pytest.approx(1 - 4 / (4 * times - 3))
    assert repetition(list(range(50))) == 0.0


@given(count=st.integers(0, 300), most=st.integers(1, 64))
def test_groups_are_spread_evenly(count: int, most: int) -> None:
    chosen = spread_out(list(range(count)), most)
    assert len(chosen) == min(count, most) and chosen == sorted(set(chosen))
    if chosen and count > most:
        gaps = [after - before for before, after in zip(chosen, chosen[1:], strict=False)]
        assert chosen[0] == 0 and all(gap in (count // most, count // most + 1) for gap in gaps)


def test_of_a_step() -> None:
    students = [[[1, 2, 3, 4, 5]] * 2, [[1, 2, 3, 4], [6, 7, 8, 9], []], [[5, 5, 5, 5, 5]]]
    teachers = [[1, 2, 3, 4, 1, 2, 3, 4], [1], [2, 3]]
    found = rollout_diversity(students, teachers)
    assert found["distinct_2"] == pytest.approx((4 + 3 + 1) / (4 + 4 + 3 + 3 + 4))
    # The group of one has nothing to compare.
    assert found["self_bleu"] == pytest.approx((1.0 + 0.0) / 2)
    assert found["repetition"] == pytest.approx(0.5 / 6) and found["teacher_repetition"] == pytest.approx(0.2 / 3)
    assert rollout_diversity([], []) == {} and rollout_diversity([[[1]]], []) == {"repetition": 0.0}
    many = [[[place, 1, 2, 3], [place, 1, 2, 3]] for place in range(4 * MOST_GROUPS)]
    assert rollout_diversity(many, [])["self_bleu"] == pytest.approx(1.0)


def test_metrics_of_a_step_have_them() -> None:
    def encoded(ids: list[int]) -> EncodedResponse:
        return EncodedResponse(ids, True, False)

    groups = [EncodedGroup([1], (encoded([5, 6, 7]),), (1.0,), (encoded([5, 6]), None, encoded([5, 6])))] * 3
    metrics = text_metrics(groups, torch.zeros(3, 3))
    assert metrics["gad/prompts"] == 3 and metrics["gad/self_bleu"] == pytest.approx(1.0)
    assert metrics["gad/distinct_2"] == pytest.approx(1 / 6) and metrics["gad/repetition"] == 0.0
    # Nothing is reduced by minimum.
    assert not any("min" in name for name in metrics)
