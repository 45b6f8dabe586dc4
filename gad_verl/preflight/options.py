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
"""Whether the options of ``gad`` fit each other and the rest of the configuration."""

import logging
import math
from collections.abc import Sequence

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.config.stability import SUPERVISED
from gad_verl.data.file_stamps import file_list
from gad_verl.data.schema import column_names

logger = logging.getLogger(__name__)

# These sum the rewards of a response, so that shares of tokens would add up to the score again; and they compare the
# responses of one prompt. What verl's estimators do is tested on all that it has (tests/preflight).
_SUMMING_ESTIMATORS = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "gpg",
    "rloo",
    "rloo_vectorized",
    "opo",
    "reinforce_plus_plus_baseline",
)
_GROUP_ESTIMATORS = (*_SUMMING_ESTIMATORS, "gad_process")
# Of those that are known; one of somebody else's may read a critic's values.
READ_NO_VALUES = (*_GROUP_ESTIMATORS, "reinforce_plus_plus")
# These divide advantages by a spread whatever algorithm.norm_adv_by_std_in_grpo says; the others keep the unit of the
# rewards where it is False.
DIVIDE_BY_SPREAD = ("gae", "grpo_vectorized", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
KEEP_UNIT = tuple(name for name in _GROUP_ESTIMATORS if name not in DIVIDE_BY_SPREAD)
# What they need beside rewards, which no step of verl's V1 trainer makes.
_NEVER_MADE = {
    "gdpo": "several rewards by their names (algorithm.gdpo_reward_keys)",
    "remax": "the reward of a greedy response to each prompt",
    "optimal_token_baseline": "the sum of the squared probabilities of each token",
    "tir_optimal_token_baseline": "the sum of the squared probabilities of each token",
}
_ENGINES_WITH_NOISE = ("fsdp", "fsdp2")
_TASK_COLUMNS = ("data_source", "reward_model")


def check_estimator(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that the estimator of the advantages gets what it needs.

    Raises:
        GadConfigError: Names the keys and the remedy.
    """
    if gad_config.stage not in ("auto", "gad"):
        return
    count, estimator = config.actor_rollout_ref.rollout.n, str(config.algorithm.adv_estimator)
    require(
        estimator not in _NEVER_MADE,
        f"algorithm.adv_estimator={estimator} needs {_NEVER_MADE.get(estimator)}, which verl's V1 trainer does not "
        "make: set algorithm.adv_estimator=grpo",
    )
    require(
        count >= 2 or estimator not in _GROUP_ESTIMATORS,
        f"actor_rollout_ref.rollout.n={count} with algorithm.adv_estimator={estimator}: the advantage compares "
        "the responses of one prompt, so set actor_rollout_ref.rollout.n to at least 2",
    )


def check_tools(config: DictConfig, gad_config: GadConfig) -> None:
    """Check the options that need something of the rest.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    estimator = str(config.algorithm.adv_estimator)
    reward, loss = gad_config.reward, gad_config.discriminator_loss
    require(
        not (reward.credits_tokens and estimator in _SUMMING_ESTIMATORS),
        f"gad.reward.phrase_weight or token_weight is above 0, but algorithm.adv_estimator={estimator} sums the "
        "rewards of a response, so they would have no effect: set algorithm.adv_estimator=gad_process",
    )
    require(
        not (reward.sequence_weight == 0 and not reward.credits_tokens),
        "gad.reward.sequence_weight is 0 and so are phrase_weight and token_weight: there is no reward",
    )
    if loss.gradient_penalty > 0:
        strategy = config.discriminator.strategy
        require(
            strategy in _ENGINES_WITH_NOISE,
            f"gad.discriminator_loss.gradient_penalty needs discriminator.strategy fsdp or fsdp2; got {strategy}",
        )
        require(
            config.discriminator.fsdp.ulysses_sequence_parallel_size == 1,
            "gad.discriminator_loss.gradient_penalty reads whole rows: set "
            "discriminator.fsdp.ulysses_sequence_parallel_size to 1",
        )
    require(
        gad_config.replay.capacity_steps == 0 or gad_config.replay.fraction > 0,
        f"gad.replay.capacity_steps={gad_config.replay.capacity_steps} with gad.replay.fraction=0 remembers and never "
        "uses: set the fraction above 0, or the capacity to 0",
    )


def check_held_out(gad_config: GadConfig, rows: int, first_held_out: Sequence[float]) -> None:
    """Check that enough prompts are held out for scores ever to teach the student.

    Args:
        gad_config: The settings.
        rows: Of the training data.
        first_held_out: See :attr:`gad_verl.data.row_checks.TrainingRowChecks.first_held_out`.

    Raises:
        GadConfigError: If it would learn nothing at all; names the keys and what would do. A student that goes on with
            the texts is told in the log.
    """
    trust = gad_config.trust
    held_out = sum(above < trust.held_out_fraction for above in first_held_out)
    if not trust.enabled or gad_config.stage not in ("auto", "gad") or held_out >= trust.least_prompts:
        return
    remedy = ""
    # More than half would leave the discriminator less to learn from than it is asked about.
    if len(first_held_out) >= trust.least_prompts and first_held_out[-1] < 0.5:
        remedy = f"raise the fraction to {math.floor(100 * first_held_out[-1] + 1) / 100:.2f}, "
    problem = (
        f"gad.trust.held_out_fraction={trust.held_out_fraction} of {rows} training rows holds out {held_out} different "
        f"prompts, but gad.trust.least_prompts={trust.least_prompts} must have been seen before the student learns "
        f"from scores: {remedy}lower least_prompts, add data, or take gad.stage=seqkd"
    )
    require(trust.otherwise == SUPERVISED, problem)
    logger.warning("%s. As it is, scores never teach in this run: the student learns from the texts alone", problem)


def check_task_columns(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that rows have what verl's reward interface reads, where it is asked.

    Raises:
        GadConfigError: Names the file and the column.
    """
    if gad_config.reward.task_weight == 0 or gad_config.reward.group_function is not None:
        return
    for path in file_list(config.data.train_files):
        names = column_names(path)
        for column in _TASK_COLUMNS:
            require(
                column in names,
                f"gad.reward.task_weight={gad_config.reward.task_weight} asks verl's reward interface, which reads the "
                f"column {column!r}, but {path} has {', '.join(names)}. Add it, or set gad.reward.task_weight=0",
            )
