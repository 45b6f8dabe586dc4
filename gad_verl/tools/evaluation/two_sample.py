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
"""Classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017): can teacher and student be told apart by their texts?

A fresh classifier learns from the texts of one half of the prompts who wrote them, and is tested on the other half. If
both authors wrote from one distribution, no classifier exceeds an accuracy of 0.5 but by chance.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gad_verl.core.intervals import Estimate, bounded_mean

SPLITS = 20
SEED = 0
FEWEST_PROMPTS = 4
# An interval over the prompts sees neither that each classifier was tested on half of them alone, nor that the
# classifiers of different halves share their texts. Twice its variance covers both (docs/evaluation.md has figures).
WIDENING = float(np.sqrt(2))

# The most frequent n-grams only: thousands of long texts have millions of them.
MOST_FEATURES = 100_000

Fit = Callable[[np.ndarray, np.ndarray], Any]


def _held_out_accuracies(
    teacher: Any, student: Any, fit: Fit, splits: int, seed: int, prompts: Sequence[str] | None = None
) -> np.ndarray:
    """Per prompt, how often its two texts are told apart by classifiers that have not seen it.

    Args:
        teacher, student: Row i belongs to prompt i; anything that numpy indexes by rows.
        fit: Trains a classifier with ``predict`` on (rows, labels); 1 is the teacher.
        splits: Random halves; in each both halves are tested once.
        seed: Seed of the halves.
        prompts: What tells the prompts apart, one for each row; None if all differ.
    """
    places: dict[Any, list[int]] = {}
    for row, prompt in enumerate(range(teacher.shape[0]) if prompts is None else prompts):
        places.setdefault(prompt, []).append(row)
    rows = list(places.values())
    if len(rows) < FEWEST_PROMPTS:
        raise ValueError(f"a two-sample test needs at least {FEWEST_PROMPTS} prompts; got {len(rows)}")
    rng = np.random.default_rng(seed)
    correct = np.zeros(teacher.shape[0])
    for _ in range(splits):
        # All texts of a prompt stay on one side: words of the prompt must not give the answer away.
        drawn = np.array_split(rng.permutation(len(rows)), 2)
        halves = [np.concatenate([rows[number] for number in half]) for half in drawn]
        for seen, unseen in (halves, halves[::-1]):
            classifier = fit(_joined(teacher[seen], student[seen]), np.repeat([1, 0], len(seen)))
            correct[unseen] += classifier.predict(teacher[unseen]) == 1
            correct[unseen] += classifier.predict(student[unseen]) == 0
    return correct / (2 * splits)


def _joined(first: Any, second: Any) -> Any:
    from scipy.sparse import issparse, vstack

    return vstack([first, second], format="csr") if issparse(first) else np.concatenate([first, second])


def ngram_accuracies(
    teacher: Sequence[str],
    student: Sequence[str],
    splits: int = SPLITS,
    seed: int = SEED,
    characters: bool = False,
    prompts: Sequence[str] | None = None,
) -> np.ndarray:
    """Test by a logistic regression on counts of n-grams.

    Args:
        teacher, student: One text of each per prompt, in the same order.
        splits: Random halves to average over.
        seed: Seed of the halves.
        characters: Use n-grams of 2 to 4 characters instead of words, punctuation marks and pairs of them. They see
            white space, markup, and how texts begin and end.
        prompts: What tells the prompts apart; None if all differ. Texts of one prompt stay together.

    Returns:
        Shape ``(prompts,)``, each between 0 and 1; the same text on both sides gives exactly 0.5.

    Raises:
        ValueError: If there are less than 4 prompts.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    if characters:
        vectorizer = CountVectorizer(analyzer=_character_ngrams, max_features=MOST_FEATURES)
    else:
        vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", max_features=MOST_FEATURES)
    try:
        # Of all texts at once: an n-gram that no text of the learning half has gets the weight 0 in the penalised
        # regression, so this is the same as counting again for each half.
        counts = vectorizer.fit_transform([*teacher, *student])
    except ValueError:  # no n-gram in any text
        return np.full(len(teacher), 0.5)

    def fit(features: Any, labels: np.ndarray) -> Any:
        # On sparse counts five times as fast as the default solver, and closer to the optimum.
        return LogisticRegression(solver="newton-cg", max_iter=1000).fit(features, labels)

    return _held_out_accuracies(counts[: len(teacher)], counts[len(teacher) :], fit, splits, seed, prompts)


def _character_ngrams(text: str) -> list[str]:
    """N-grams of 2 to 4 characters as they are, with marks for the beginning and the end of the text."""
    marked = f"\x02{text}\x03"
    return [marked[start : start + n] for n in (2, 3, 4) for start in range(len(marked) - n + 1)]


def feature_accuracies(
    teacher: np.ndarray,
    student: np.ndarray,
    splits: int = SPLITS,
    seed: int = SEED,
    prompts: Sequence[str] | None = None,
) -> np.ndarray:
    """The same test by a logistic regression on standardised features, shape (prompts, features) each."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fit(features: np.ndarray, labels: np.ndarray) -> Any:
        # Far more features than texts: a strong penalty. The default one learns the halves by heart.
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(features, labels)

    return _held_out_accuracies(np.asarray(teacher), np.asarray(student), fit, splits, seed, prompts)


def accuracy(accuracies: np.ndarray) -> Estimate:
    """Accuracy of the test with its 95 % interval, from the accuracies per prompt; 0.5: cannot be told apart."""
    return bounded_mean(accuracies).widened(WIDENING, 0.0, 1.0)
