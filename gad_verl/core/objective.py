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
"""What the student learns from the discriminator, what from the teacher's texts, and how fast.

The optimum of the Bradley-Terry loss is ``D = log p_T - log p_S + c``: margins of D are log density ratios in nats. So
the policy gradient of D's score, less its mean over the group and NOT divided by its spread, is that of KL(S, T) in its
own unit, while cross-entropy on the teacher's texts descends KL(T, S). Both move the student to the teacher. The first
is worth what D knows (:mod:`gad_verl.core.trust`), the second is always right and needs no D. So a step descends

    f * (policy gradient + KL term)  +  (1 - f + a) * cross-entropy on the teacher's texts of the step

at the rate ``rate_GAD ** f * rate_SeqKD ** (1 - f)``, with f what D knows in [0, 1] and a constant anchor a. At f = 0
it is a step of SeqKD, at f = 1 and a = 0 one of GAD. Each term is a mean over its own tokens.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LossWeights:
    """Weights of the two terms of the student's loss.

    Args:
        policy: Of the policy gradient with its KL term, f.
        texts: Of the cross-entropy on the teacher's texts, ``1 - f + a``.
    """

    policy: float
    texts: float


def loss_weights(knowledge: float, anchor: float = 0.0) -> LossWeights:
    """The weights for what D knows.

    Args:
        knowledge: f in [0, 1].
        anchor: a, not negative: weight of the texts beside a D that knows all.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(knowledge)
    if anchor < 0:
        raise ValueError(f"the anchor must not be negative; got {anchor}")
    return LossWeights(policy=knowledge, texts=1 - knowledge + anchor)


def blended_rate(knowledge: float, policy_rate: float, texts_rate: float) -> float:
    """Learning rate of a step: the geometric mean of the rates of both terms, weighted by what D knows.

    GAD's rate is far below SeqKD's. Adam makes every gradient as large as any other, so that the weights of the loss
    alone leave a student whose D knows nothing at GAD's rate.

    Args:
        knowledge: f in [0, 1].
        policy_rate, texts_rate: Not negative.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(knowledge)
    if policy_rate < 0 or texts_rate < 0:
        raise ValueError(f"learning rates must not be negative; got {policy_rate} and {texts_rate}")
    return policy_rate**knowledge * texts_rate ** (1 - knowledge)


def _check(knowledge: float) -> None:
    if not 0 <= knowledge <= 1:
        raise ValueError(f"what the discriminator knows must be in [0, 1]; got {knowledge}")
