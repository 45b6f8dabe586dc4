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
"""Whether the keys of a configuration fit each other."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.micro_batch import tokens_per_micro_batch
from gad_verl.data.thinking import settled_config
from gad_verl.errors import GadConfigError
from gad_verl.preflight.agent_check import check_agents
from gad_verl.preflight.async_check import check_mode
from gad_verl.preflight.batch_check import check_batches, check_longest_row
from gad_verl.preflight.checkpoint_check import check_checkpoints
from gad_verl.preflight.joined_cluster import check_joins
from gad_verl.preflight.lora_check import check_lora
from gad_verl.preflight.megatron_check import check_megatron, check_strategies
from gad_verl.preflight.names_check import check_names, import_libraries
from gad_verl.preflight.numbers_check import check_folder, check_numbers
from gad_verl.preflight.objective_check import check_objective
from gad_verl.preflight.options import READ_NO_VALUES, check_estimator, check_tools
from gad_verl.preflight.parallel_check import check_counts
from gad_verl.preflight.parts_check import check_parts
from gad_verl.preflight.reward_check import check_reward_interface
from gad_verl.preflight.size_check import check_heads
from gad_verl.preflight.surroundings_check import check_context, check_loggers
from gad_verl.preflight.thinking_check import check_thinking
from gad_verl.preflight.unread_check import check_read
from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)


def check_config(config: DictConfig) -> GadConfig:
    """Check the configuration by itself; what ``gad.thinking`` means for verl's part is written into it.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    gad_config = settled_config(config)
    check_joins(config, gad_config)
    check_counts(config)
    check_numbers(config, gad_config)
    check_folder(config)
    check_read(config, gad_config)
    rollout, algorithm, trainer = config.actor_rollout_ref.rollout, config.algorithm, config.trainer
    check_mode(config, gad_config)
    import_libraries(config)
    check_names(config, gad_config)
    check_estimator(config, gad_config)
    filter_groups = algorithm.get("filter_groups", None)
    if filter_groups is not None and filter_groups.get("enable", False):
        raise GadConfigError(
            "algorithm.filter_groups.enable=True reads rewards before the discriminator has scored: set it to False"
        )
    if config.reward.reward_model.enable:
        raise GadConfigError(
            "reward.reward_model.enable=True: with GAD the discriminator is the reward model; set it to False"
        )
    _check_critic(str(algorithm.adv_estimator), config.critic.enable)
    gad_config.guardian.custom_rule_classes()
    if gad_config.save_minutes is not None and trainer.save_freq <= 0:
        raise GadConfigError(
            f"gad.save_minutes={gad_config.save_minutes:g} with trainer.save_freq={trainer.save_freq}: the last step "
            "would not be saved. Set trainer.save_freq to a positive number, however large"
        )
    StopFile.of_run(gad_config, Path(trainer.default_local_dir)).check()
    check_lora(config)
    check_tools(config, gad_config)
    check_objective(config, gad_config)
    check_reward_interface(config, gad_config)
    check_strategies(config)
    check_megatron(config, gad_config)
    check_loggers(trainer.logger)
    check_context(config)
    check_agents(config, gad_config)
    check_thinking(config, gad_config)
    check_heads(config, gad_config)
    if trainer.critic_warmup > 0:
        raise GadConfigError(
            f"trainer.critic_warmup={trainer.critic_warmup} would skip the student's steps, the supervised warmup too: "
            "set it to 0 (gad.discriminator_only_steps trains the discriminator first)"
        )
    if not trainer.use_v1:
        raise GadConfigError("trainer.use_v1=False: gad_verl needs verl's V1 trainer; set trainer.use_v1=True")
    check_checkpoints(config, gad_config)
    if config.data.train_batch_size % config.actor_rollout_ref.actor.ppo_mini_batch_size != 0:
        raise GadConfigError(
            f"data.train_batch_size ({config.data.train_batch_size}) must be a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size ({config.actor_rollout_ref.actor.ppo_mini_batch_size})"
        )
    discriminator = config.discriminator
    if not discriminator.use_dynamic_bsz and discriminator.ppo_micro_batch_size_per_gpu is None:
        raise GadConfigError(
            "discriminator.use_dynamic_bsz=False needs discriminator.ppo_micro_batch_size_per_gpu (groups of one "
            "teacher and n students per micro-batch)"
        )
    check_parts(config, gad_config)
    check_batches(config, gad_config)
    check_longest_row(config, gad_config)
    longest = config.data.max_prompt_length + gad_config.longest_answer(config.data.max_response_length)
    micro_batch = tokens_per_micro_batch(discriminator)
    if gad_config.has_discriminator and discriminator.use_dynamic_bsz:
        if gad_config.discriminator_passes == "one":
            longest *= rollout.n + 1
        if longest > micro_batch:
            logger.warning(
                "the longest possible %s has %d tokens, a micro-batch of the discriminator holds %d "
                "(discriminator.ppo_max_token_len_per_gpu): the run ends with an error should such a one come",
                "group" if gad_config.discriminator_passes == "one" else "sequence",
                longest,
                micro_batch,
            )
    return gad_config


def _check_critic(estimator: str, enable: bool | None) -> None:
    if estimator == "gae" and enable is False:
        raise GadConfigError(
            "algorithm.adv_estimator=gae needs verl's critic: set critic.enable to null or True, not to False"
        )
    if estimator in READ_NO_VALUES and enable:
        raise GadConfigError(
            f"critic.enable=True: a critic would be trained whose values algorithm.adv_estimator={estimator} does not "
            "read; set critic.enable=null, or algorithm.adv_estimator=gae"
        )
