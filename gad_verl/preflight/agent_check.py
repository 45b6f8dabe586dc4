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
"""Agent loops: the discriminator compares one answer with one answer."""

import logging

from omegaconf import DictConfig, OmegaConf

from gad_verl.config import GadConfig
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.schema import column_names
from gad_verl.data.thinking import AGENT_LOOP, SINGLE_TURN, THINKING_AGENT_LOOP, TOOL_AGENT
from gad_verl.errors import GadConfigError, GadDataError

logger = logging.getLogger(__name__)

_KEY = "actor_rollout_ref.rollout.agent.default_agent_loop"
_COLUMN = "agent_name"
_WHY = (
    "the discriminator would read the whole transcript, tool results and markers of the template included, as the "
    "student's answer, and win by them; several turns and tools need gad.trajectory.enable=True"
)


def check_agents(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that rollouts are single answers.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    loop = OmegaConf.select(config, _KEY, default=SINGLE_TURN)
    if gad_config.trajectory.enable:
        if loop != TOOL_AGENT:
            raise GadConfigError(
                f"{_KEY}={loop} with gad.trajectory.enable=True: leave it out, or set it to {TOOL_AGENT}"
            )
        return
    # Ours give single answers too.
    single = {SINGLE_TURN, AGENT_LOOP} | ({THINKING_AGENT_LOOP} if gad_config.thinking.budget is not None else set())
    if loop not in single and gad_config.stage != "seqkd":
        raise GadConfigError(f"{_KEY}={loop}: {_WHY}. Set it to {SINGLE_TURN}")
    if loop not in single:
        logger.warning("%s=%s: %s. SeqKD is validated by it", _KEY, loop, _WHY)
    if OmegaConf.select(config, "actor_rollout_ref.rollout.multi_turn.enable", default=False):
        logger.warning(
            "actor_rollout_ref.rollout.multi_turn.enable=True has no effect in verl's V1 trainer: each answer is one "
            "turn (%s)",
            _KEY,
        )


def check_agent_column(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that no row asks for another agent loop than the run.

    Raises:
        GadDataError: Names the file and the row.
    """
    wanted = TOOL_AGENT if gad_config.trajectory.enable else SINGLE_TURN
    for path in (*file_list(config.data.train_files), *file_list(config.data.val_files)):
        if _COLUMN not in column_names(path):
            continue
        for number, row in enumerate(open_file(path).rows([_COLUMN])):
            if isinstance(row, BadRow):
                raise GadDataError(row.message)
            # A row that names none has the run's.
            if row.get(_COLUMN) not in (None, wanted):
                why = "" if gad_config.trajectory.enable else f": {_WHY}"
                raise GadDataError(
                    f"{path}, row {number}, column {_COLUMN!r} names {row[_COLUMN]!r}{why}. Leave the column out, "
                    f"or write {wanted}"
                )
