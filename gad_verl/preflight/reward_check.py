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
"""verl's reward interface: what it loads, and whether it knows the rows that it will be asked about.

verl loads the user's function in the reward workers, and asks it first where the adversarial stage begins.
"""

import contextlib
import copy
import io
import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.checks import require
from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.errors import GadConfigError, GadDataError

logger = logging.getLogger(__name__)

_FUNCTION, _MANAGER = "reward.custom_reward_function", "reward.reward_manager"
_SOURCE, _TRUTH = "data_source", "reward_model"


def asks_reward_interface(gad_config: GadConfig) -> bool:
    """Whether a step of the run asks verl's reward interface."""
    # The warmup asks for the discriminator's sake alone.
    asks = gad_config.stage in ("auto", "gad") or (
        gad_config.stage == "warmup" and gad_config.discriminator_updates.passing_only
    )
    return asks and gad_config.reward.task_weight > 0 and gad_config.reward.group_function is None


def check_reward_interface(config: DictConfig, gad_config: GadConfig) -> None:
    """Load what the run's reward workers load, whether anybody asks it or not; say where nobody will.

    Raises:
        GadConfigError: Names the key, and why it cannot be loaded.
    """
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    settled = _settled(config)
    named = settled.reward.custom_reward_function or {}
    path, name = named.get("path", None), named.get("name", None)
    if path:
        function = _load_function(path, name)
        require(callable(function), f"{_FUNCTION}.name={name} of {path} cannot be called: name a function")
    try:
        resolve_reward_manager_cls(settled)
    except Exception as error:  # whatever the user's module raises
        manager = settled.reward.reward_manager
        raise GadConfigError(
            f"{_MANAGER}.source={manager.source} name={manager.name} cannot be loaded: {_words(error)}"
        ) from error
    if path and not asks_reward_interface(gad_config):
        reward = gad_config.reward
        why = f"gad.stage={gad_config.stage} has no such reward"
        if reward.task_weight == 0:
            why = "gad.reward.task_weight=0: set it above 0"
        elif reward.group_function is not None:
            why = f"gad.reward.group_function={reward.group_function} is asked in its place"
        logger.warning("%s.path=%s is never asked for a reward: %s", _FUNCTION, path, why)


def check_reward_rows(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that verl's reward interface can be asked about the training rows.

    Raises:
        GadDataError: Names the file and the row.
    """
    reward = _settled(config).reward
    # What a manager of the user's reads is not known here.
    if not asks_reward_interface(gad_config) or reward.reward_manager.source != "register":
        return
    by_source = not (reward.custom_reward_function or {}).get("path", None)
    asked: set[str] = set()
    for path in file_list(config.data.train_files):
        first, has_truth = True, False
        for where, row in _rows(path):
            truth, source = row.get(_TRUTH), row.get(_SOURCE)
            if not isinstance(truth, dict):
                raise GadDataError(
                    f"{where}, column {_TRUTH!r}: verl's reward interface reads its ground_truth, but the row has "
                    f"{truth!r:.80}. Write a dict with ground_truth (an empty text where nothing is checked), or set "
                    "gad.reward.task_weight=0"
                )
            has_truth = has_truth or "ground_truth" in truth
            first = False
            if by_source and source not in asked:
                _ask_verl(where, source)
                asked.add(source)
        if not first and not has_truth:
            raise GadDataError(
                f"{path}: no row has a 'ground_truth' in its column {_TRUTH!r}, which verl's reward interface reads "
                "(gad.reward.task_weight is above 0): write one, an empty text where nothing is checked"
            )


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(open_file(path).rows([_SOURCE, _TRUTH])):
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        yield f"{path}, row {number}", row


def _ask_verl(where: str, source: Any) -> None:
    """Whether verl has a function for a kind of rows, without giving it an answer: some run the code of one."""
    from verl.utils.reward_score import default_compute_score

    remedy = (
        f"name a function of your own ({_FUNCTION}.path), write a {_SOURCE} that verl knows, or set "
        "gad.reward.task_weight=0"
    )
    if not isinstance(source, str):
        raise GadDataError(f"{where}, column {_SOURCE!r} is {source!r}, by which verl finds no reward: {remedy}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            default_compute_score(source, None, "")
    except NotImplementedError:
        raise GadDataError(f"{where}: verl has no reward for {_SOURCE}={source!r}: {remedy}") from None
    except ImportError as error:
        raise GadDataError(f"{where}: verl's reward for {_SOURCE}={source!r} wants a package: {error}") from None
    except Exception:
        # It is known, and misses the answer.
        return


def _load_function(path: str, name: str | None) -> Any:
    from verl.utils.import_utils import load_extern_object

    require(bool(name), f"{_FUNCTION}.path={path} needs {_FUNCTION}.name: name the function in it")
    try:
        return load_extern_object(module_path=path, object_name=str(name))
    except Exception as error:  # whatever the user's module raises
        raise GadConfigError(
            f"{_FUNCTION}.path={path} name={name} cannot be loaded: {_words(error.__cause__ or error)}"
        ) from error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _settled(config: DictConfig) -> DictConfig:
    """As main_ppo makes it: verl's older keys are moved into ``reward``."""
    from verl.experimental.reward_loop.reward_loop import migrate_legacy_reward_impl

    return migrate_legacy_reward_impl(copy.deepcopy(config)) if "custom_reward_function" in config else config
