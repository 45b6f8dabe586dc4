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
"""The check before a run: configuration, data, tokenizers, checkpoints. Runs before Ray or a model starts."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gad_verl import compat
from gad_verl.config import GadConfig, load_gad_config
from gad_verl.config.micro_batch import tokens_per_micro_batch
from gad_verl.core.schedule import StageSchedule
from gad_verl.data.file_stamps import file_list
from gad_verl.data.row_checks import TrainingRowChecks
from gad_verl.data.schema import check_file
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadCheckpointError, GadCompatError, GadConfigError, GadDataError
from gad_verl.preflight.lora import check_lora
from gad_verl.preflight.megatron import MEGATRON, check_installed, check_megatron, check_strategies
from gad_verl.preflight.options import OUTCOME_ESTIMATORS, check_held_out, check_task_columns, check_tools
from gad_verl.trainer.stop_file import StopFile

logger = logging.getLogger(__name__)

TRAINER_MODE = "gad_sync"

# Estimators whose advantage compares the responses of one prompt.
_GROUP_ESTIMATORS = (*OUTCOME_ESTIMATORS, "optimal_token_baseline", "tir_optimal_token_baseline", "gad_process")


@dataclass(frozen=True)
class PlannedRun:
    """What the checks found out about a run.

    Args:
        gad_config: The section ``gad``.
        rows: Training rows.
        steps_per_epoch: Steps in which all rows are gone through.
        schedule: Stages of the run.
        resume_folder: Checkpoint that it would go on from; None for a start from the beginning.
    """

    gad_config: GadConfig
    rows: int
    steps_per_epoch: int
    schedule: StageSchedule
    resume_folder: Path | None


def check_config(config: DictConfig) -> GadConfig:
    """Check the configuration by itself.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    gad_config = load_gad_config(config)
    rollout, algorithm, trainer = config.actor_rollout_ref.rollout, config.algorithm, config.trainer
    estimator = str(algorithm.adv_estimator)
    if rollout.n < 2 and estimator in _GROUP_ESTIMATORS and gad_config.stage in ("auto", "gad"):
        raise GadConfigError(
            f"actor_rollout_ref.rollout.n={rollout.n} with algorithm.adv_estimator={estimator}: the advantage compares "
            "the responses of one prompt, so set actor_rollout_ref.rollout.n to at least 2"
        )
    filter_groups = algorithm.get("filter_groups", None)
    if filter_groups is not None and filter_groups.get("enable", False):
        raise GadConfigError(
            "algorithm.filter_groups.enable=True reads rewards before the discriminator has scored: set it to False"
        )
    if config.reward.reward_model.enable:
        raise GadConfigError(
            "reward.reward_model.enable=True: with GAD the discriminator is the reward model; set it to False"
        )
    if estimator == "gae" and config.critic.enable is False:
        raise GadConfigError(
            "algorithm.adv_estimator=gae needs verl's critic: set critic.enable to null or True, not to False"
        )
    gad_config.guardian.custom_rule_classes()
    StopFile.of_run(gad_config, Path(trainer.default_local_dir)).check()
    check_lora(config)
    check_tools(config, gad_config)
    check_strategies(config)
    check_megatron(config, gad_config)
    if rollout.name == "vllm" and importlib.util.find_spec("vllm") is None:
        raise GadConfigError(
            "actor_rollout_ref.rollout.name=vllm, but vLLM is not installed: install it (on a CPU: make install), or "
            "set actor_rollout_ref.rollout.name=hf for small models"
        )
    if trainer.critic_warmup > 0:
        raise GadConfigError(
            f"trainer.critic_warmup={trainer.critic_warmup} would skip the student's steps, the supervised warmup too: "
            "set it to 0 (gad.discriminator_only_steps trains the discriminator first)"
        )
    if not trainer.use_v1:
        raise GadConfigError("trainer.use_v1=False: gad_verl needs verl's V1 trainer; set trainer.use_v1=True")
    if config.actor_rollout_ref.actor.checkpoint.get("async_save", False):
        raise GadConfigError(
            "actor_rollout_ref.actor.checkpoint.async_save=True leaves the tracker file to another process, so student "
            "and discriminator could part: set it to False"
        )
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
    longest = config.data.max_prompt_length + config.data.max_response_length
    micro_batch = tokens_per_micro_batch(discriminator)
    if gad_config.stage != "seqkd" and discriminator.use_dynamic_bsz:
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


def check_data(config: DictConfig, gad_config: GadConfig) -> int:
    """Check every row of the training and validation files; returns the number of training rows.

    Raises:
        GadDataError: Names the file, row and column.
    """
    checks = TrainingRowChecks(gad_config)
    rows = checks.check_files(file_list(config.data.train_files), config.data.prompt_key)
    if not config.data.val_files:
        raise GadDataError("data.val_files names no file: give held-out rows (a few of the training rows will do)")
    for path in file_list(config.data.val_files):
        check_file(path, config.data.prompt_key, gad_config.teacher_key)
    source, samples = "data.train_files", config.data.get("train_max_samples", -1)
    if 0 < samples < rows:
        source, rows = "data.train_max_samples", samples
    if rows < config.data.train_batch_size:
        raise GadDataError(
            f"{source} gives {rows} rows, fewer than data.train_batch_size={config.data.train_batch_size}: not "
            "one step could be made. Lower data.train_batch_size or add data"
        )
    checks.check_together(1, _length_of_run(config, gad_config, rows)[1])
    check_task_columns(config, gad_config)
    check_held_out(gad_config, rows)
    return rows


def _length_of_run(config: DictConfig, gad_config: GadConfig, rows: int) -> tuple[int, int]:
    """Steps of an epoch and of the run; a resumed run whose data change keeps those with which it began."""
    steps_per_epoch = rows // config.data.train_batch_size
    if gad_config.reload_data == "epoch":
        from gad_verl.trainer.data_state import resumed_data_state

        saved = resumed_data_state(config.trainer)
        steps_per_epoch = steps_per_epoch if saved is None else saved.steps_per_epoch
    return steps_per_epoch, config.trainer.total_training_steps or steps_per_epoch * config.trainer.total_epochs


def check_schedule(config: DictConfig, gad_config: GadConfig, rows: int) -> StageSchedule:
    """Check that the stages fit into the run (before the data set may drop rows); returns them.

    Raises:
        GadConfigError: Names the keys.
    """
    steps_per_epoch, total = _length_of_run(config, gad_config, rows)
    try:
        return gad_config.build_schedule(total, steps_per_epoch)
    except ValueError as error:
        raise GadConfigError(str(error)) from None


def check_tokenizers(config: DictConfig) -> None:
    """Check that student and discriminator have a tokenizer with an EOS and a chat template.

    Raises:
        GadConfigError: Names the model.
    """
    from transformers import AutoTokenizer

    paths = {
        "actor_rollout_ref.model": config.actor_rollout_ref.model,
        "discriminator.model": config.discriminator.model,
    }
    for key, model in paths.items():
        path = model.get("tokenizer_path", None) or model.path
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                Path(path).expanduser() if Path(path).expanduser().exists() else path,
                trust_remote_code=model.get("trust_remote_code", False),
            )
        except (OSError, ValueError) as error:
            raise GadConfigError(f"{key}.path={path}: no tokenizer can be loaded: {error}") from None
        if model.get("custom_chat_template", None) is not None:
            tokenizer.chat_template = model.custom_chat_template
        try:
            SequenceBuilder(tokenizer, config.data.max_prompt_length, config.data.max_response_length)
        except GadConfigError as error:
            raise GadConfigError(f"{key}.path={path}: {error}") from None


def _safetensors_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of all tensors of a model folder, read from the headers alone."""
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    return shapes


def check_discriminator(config: DictConfig, gad_config: GadConfig) -> None:
    """Check a discriminator that is loaded, as far as files tell without loading it.

    Raises:
        GadCheckpointError: If its head is missing or has another shape.
    """
    from transformers import AutoConfig

    from gad_verl.trainer import checkpoints

    folder = _resume_folder(config)
    if gad_config.stage == "seqkd":
        return
    path = Path(config.discriminator.model.path).expanduser()
    if path.is_dir():
        hf_config = AutoConfig.from_pretrained(path, trust_remote_code=config.discriminator.model.trust_remote_code)
        layers = gad_config.discriminator_num_layers
        if layers is not None and layers > hf_config.num_hidden_layers:
            raise GadConfigError(
                f"gad.discriminator_num_layers={layers}, but {path} has {hf_config.num_hidden_layers} layers"
            )
        model = config.discriminator.model
        same_model = model.path == config.actor_rollout_ref.model.path
        head = gad_config.discriminator_head
        head_is_in_model = model.get("lora_adapter_path", None) is None
        if head_is_in_model and (head == "load" or (head == "auto" and not same_model)):
            shapes = _safetensors_shapes(path)
            found = [(name, shape) for name, shape in shapes.items() if name in ("score.weight", "classifier.weight")]
            if config.discriminator.strategy == MEGATRON and shapes.get("lm_head.weight", [0])[0] == 1:
                found.append(("lm_head.weight", shapes["lm_head.weight"]))
            if shapes and not found:
                raise GadCheckpointError(
                    f"discriminator.model.path={path} has no scalar head (score.weight). Set "
                    "gad.discriminator_head=fresh to begin with a new one"
                )
            for name, shape in found:
                if shape != [1, hf_config.hidden_size]:
                    raise GadCheckpointError(
                        f"discriminator.model.path={path}: {name} has shape {shape}, a discriminator of this size "
                        f"needs [1, {hf_config.hidden_size}]"
                    )
        wanted = checkpoints.discriminator_shape(hf_config, layers, model)
        state = None if folder is None else checkpoints.read_state(folder)
        if state is not None and state.has_discriminator and state.discriminator_shape != wanted:
            raise GadCheckpointError(
                f"the discriminator in {folder} has the shape {state.discriminator_shape}, the configuration asks for "
                f"{wanted}. Set discriminator.model and gad.discriminator_num_layers as they were, or "
                "trainer.resume_mode=disable"
            )


def _resume_folder(config: DictConfig) -> Path | None:
    from gad_verl.trainer import checkpoints

    trainer = config.trainer
    if trainer.resume_mode == "auto":
        return checkpoints.find_resumable(Path(trainer.default_local_dir).absolute())
    if trainer.resume_mode == "resume_path":
        folder = Path(str(trainer.resume_from_path)).absolute()
        missing = checkpoints.missing_parts(folder)
        if missing:
            raise GadCheckpointError(f"trainer.resume_from_path={folder} lacks {', '.join(missing)}")
        return folder
    return None


def run_preflight(config: DictConfig) -> PlannedRun:
    """All checks, the cheap ones first; returns what they found out.

    Raises:
        GadConfigError, GadDataError, GadCheckpointError, GadCompatError: One error with the remedy.
    """
    gad_config = check_config(config)
    rows = check_data(config, gad_config)
    schedule = check_schedule(config, gad_config, rows)
    check_tokenizers(config)
    check_discriminator(config, gad_config)
    check_installed(config)
    compat.check(quick=True)
    return PlannedRun(gad_config, rows, _length_of_run(config, gad_config, rows)[0], schedule, _resume_folder(config))


class PreflightCallback(Callback):
    """Runs the checks when Hydra has composed the configuration. Stock trainer modes are left alone."""

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.trainer.v1.trainer_mode != TRAINER_MODE:
            return
        try:
            run_preflight(config)
        except (GadConfigError, GadDataError, GadCheckpointError, GadCompatError) as error:
            # Hydra turns an ordinary exception of a callback into a warning; only SystemExit stops the run.
            raise SystemExit(f"gad_verl: {type(error).__name__}: {error}") from None
        except Exception as error:
            logger.exception("the check before the run failed")
            raise SystemExit(f"gad_verl: the check before the run failed: {type(error).__name__}: {error}") from error
