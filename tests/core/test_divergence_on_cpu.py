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
"""Divergences of two language models from their logits, against closed forms and enumerations."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gad_verl.core import one_end, token_kl, token_log_probabilities
from gad_verl.core.divergence import log_normalizer


def random_logits(*shape: int, seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """The definition, in double precision, all at once."""
    log_p, log_q = p_logits.double().log_softmax(-1), q_logits.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def test_two_tokens_are_the_closed_form() -> None:
    for p, q in ((0.5, 0.5), (0.9, 0.2), (0.01, 0.99), (1e-12, 0.3)):
        expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        logits = [torch.tensor([math.log(x), math.log(1 - x)], dtype=torch.float64) for x in (p, q)]
        assert token_kl(*logits).item() == pytest.approx(expected, abs=1e-14)


def test_a_temperature_is_a_division_of_the_logits() -> None:
    p, q = random_logits(4, 11, seed=0), random_logits(4, 11, seed=1)
    torch.testing.assert_close(token_kl(p, q, 0.7, 0.3), plain_kl(p / 0.7, q / 0.3))
    # Two distributions of one family: the same logits at temperatures a and b.
    torch.testing.assert_close(token_kl(p, p, 2.0, 1.0), plain_kl(p / 2, p))


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 70), st.sampled_from([0.1, 3.0, 30.0]))
def test_no_width_of_the_chunks_changes_it(seed: int, width: int, columns: int, scale: float) -> None:
    p, q = random_logits(3, width, seed=seed, scale=scale), random_logits(3, width, seed=seed + 1, scale=scale)
    kl = token_kl(p, q, columns=columns)
    assert (kl >= 0).all()
    torch.testing.assert_close(kl, plain_kl(p, q), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(log_normalizer(p, columns=columns), torch.logsumexp(p, -1))
    assert (token_kl(p, p.clone(), columns=columns) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_that_of_the_logits_alone(dtype: torch.dtype) -> None:
    """A large vocabulary: what was rounded in the logits is taken as it is, and the sums add next to nothing."""
    p, q = (random_logits(4, 50_000, seed=seed).to(dtype) for seed in (2, 3))
    torch.testing.assert_close(token_kl(p, q), plain_kl(p, q), atol=2e-6, rtol=2e-6)


def test_a_small_divergence_is_not_lost_in_what_normalizers_are_rounded_by() -> None:
    p = random_logits(8, 50_000, seed=2).float() + 20
    q = p + 1e-3 * random_logits(8, 50_000, seed=4, scale=1.0).float()
    expected = plain_kl(p, q)
    assert (expected < 1e-6).all()
    torch.testing.assert_close(token_kl(p, q), expected, atol=1e-7, rtol=0)


def test_a_shift_of_all_logits_is_nothing() -> None:
    p, q = random_logits(5, 40, seed=5), random_logits(5, 40, seed=6)
    torch.testing.assert_close(token_kl(p + 1e4, q - 1e4), plain_kl(p, q), atol=1e-9, rtol=1e-9)


def test_extreme_logits_stay_finite() -> None:
    p = torch.tensor([[500.0, -500.0, 0.0], [0.0, 0.0, 0.0]])
    q = torch.tensor([[-500.0, 500.0, 0.0], [0.0, -3e4, 0.0]])
    expected = [1000.0, (3e4 - 3 * math.log(1.5)) / 3]
    assert token_kl(p, q).tolist() == pytest.approx(expected, rel=1e-6)


def test_columns_that_pad_are_nothing_on_both_sides() -> None:
    p, q = random_logits(3, 20, seed=7), random_logits(3, 20, seed=8)
    masked = torch.full((3, 5), float("-inf"), dtype=torch.float64)
    padded = [torch.cat([logits, masked], dim=-1) for logits in (p, q)]
    torch.testing.assert_close(token_kl(*padded), plain_kl(p, q))
    torch.testing.assert_close(token_kl(*padded, columns=4), plain_kl(p, q))
    # All the columns of one part are masked.
    torch.testing.assert_close(token_kl(*padded, columns=5), plain_kl(p, q))


def test_what_only_one_side_can_write() -> None:
    full, half = torch.zeros(4), torch.tensor([0.0, 0.0, float("-inf"), float("-inf")])
    assert token_kl(half, full).item() == pytest.approx(math.log(2))
    assert token_kl(full, half).item() == math.inf
    # However unlikely: exp(-200) is 0 in single precision, and infinity is no less for it.
    assert token_kl(torch.tensor([0.0, -200.0]), torch.tensor([0.0, float("-inf")])).item() == math.inf
    assert math.isnan(token_kl(torch.tensor([math.nan, 0.0]), torch.zeros(2)).item())


def test_log_probabilities_of_tokens() -> None:
    logits, ids = random_logits(2, 6, 30, seed=9), torch.randint(0, 30, (2, 6))
    expected = (logits / 0.4).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    for columns in (1, 7, 30, 100):
        torch.testing.assert_close(token_log_probabilities(logits, ids, 0.4, columns), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_ends_are_one_event(temperature: float) -> None:
    logits = random_logits(3, 8, seed=10)
    kept = logits.clone()
    probabilities = (one_end(logits, [5, 2, 7], temperature) / temperature).softmax(-1)
    before = (logits / temperature).softmax(-1)
    torch.testing.assert_close(probabilities[:, 5], before[:, [2, 5, 7]].sum(-1))
    assert (probabilities[:, [2, 7]] == 0).all()
    torch.testing.assert_close(probabilities[:, [0, 1, 3, 4, 6]], before[:, [0, 1, 3, 4, 6]])
    assert torch.equal(logits, kept) and one_end(logits, [5]) is logits
    # What differs in the choice between them alone is no difference.
    other = logits.clone()
    other[:, [2, 5]] = other[:, [5, 2]]
    merged = [one_end(x, [2, 5], temperature) for x in (logits, other)]
    torch.testing.assert_close(token_kl(*merged, temperature, temperature), torch.zeros(3, dtype=torch.float64))


def test_the_sum_over_the_tokens_is_the_divergence_of_whole_answers() -> None:
    """All answers of at most 4 tokens over 3 words and an end, enumerated: P and Q differ behind each prefix."""
    end, most = 3, 4
    tables: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def logits(prefix: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        seed = int("1" + "".join(map(str, prefix)))
        return tables.setdefault(prefix, (random_logits(4, seed=seed), random_logits(4, seed=seed + 10**6)))

    by_tokens = by_answers = total = 0.0
    for length in range(1, most + 1):
        for words in itertools.product(range(3), repeat=length - 1):
            for last in [end] if length < most else range(4):
                answer = torch.tensor([*words, last])
                p, q = map(torch.stack, zip(*(logits((*words,)[:n]) for n in range(length)), strict=True))
                log_p, log_q = (token_log_probabilities(side, answer).sum().item() for side in (p, q))
                total += math.exp(log_p)
                by_answers += math.exp(log_p) * (log_p - log_q)
                by_tokens += math.exp(log_p) * token_kl(p, q).sum().item()
    assert total == pytest.approx(1)
    assert by_tokens == pytest.approx(by_answers) and by_tokens > 0.1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two vocabularies: shapes \(2, 5\) and \(2, 6\)"):
        token_kl(torch.zeros(2, 5), torch.zeros(2, 6))
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            token_kl(torch.zeros(2, 5), torch.zeros(2, 5), 1.0, temperature)
