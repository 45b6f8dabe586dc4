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
"""Checks of the keys of Megatron before anything starts; imports neither Megatron nor verl.

Context parallelism, virtual pipeline stages, experts and VeOmni are checked here and nowhere run by the tests.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.compat import MEGATRON_USES, unread_uses
from gad_verl.config import GadConfig
from gad_verl.errors import GadCompatError, GadConfigError

logger = logging.getLogger(__name__)

MEGATRON = "megatron"
FSDP = ("fsdp", "fsdp2")
STUDENT_STRATEGIES = (*FSDP, MEGATRON, "veomni")
DISCRIMINATOR_STRATEGIES = (*FSDP, MEGATRON)

_STUDENT, _REFERENCE, _DISCRIMINATOR = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "discriminator"


def check_strategies(config: DictConfig) -> None:
    """Check that both strategies are known.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    for key, section, known in (
        (_STUDENT, config.actor_rollout_ref.actor, STUDENT_STRATEGIES),
        (_DISCRIMINATOR, config.discriminator, DISCRIMINATOR_STRATEGIES),
    ):
        if section.strategy not in known:
            hint = ""
            if key == _DISCRIMINATOR and section.strategy == "veomni":
                hint = ": with the student on VeOmni set critic@discriminator=dp_critic"
            raise GadConfigError(f"{key}.strategy must be one of {', '.join(known)}; got {section.strategy!r}{hint}")
        if (section.strategy == MEGATRON) != ("megatron" in section):
            choice = (
                "choose the engine by --config-name gad_trainer or gad_megatron_trainer"
                if key == _STUDENT
                else "choose the engine by critic@discriminator=dp_critic or critic@discriminator=megatron_critic"
            )
            raise GadConfigError(f"{key}.strategy={section.strategy}, but {key} has another engine's keys: {choice}")
    if config.actor_rollout_ref.actor.strategy == "veomni":
        logger.warning("actor_rollout_ref.actor.strategy=veomni is checked by its configuration alone, never run")


def check_megatron(config: DictConfig, gad_config: GadConfig) -> None:
    """Check everything about Megatron that the configuration and the models' own configurations tell.

    Raises:
        GadConfigError: Names the key and the remedy.
    """
    student, discriminator = config.actor_rollout_ref.actor, config.discriminator
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if student.strategy == MEGATRON:
        layers = _model_config(config.actor_rollout_ref.model)
        _check_section(_STUDENT, student, gpus, layers, None, config.actor_rollout_ref.model.use_remove_padding)
        _check_student(config)
        if config.actor_rollout_ref.ref.strategy == MEGATRON:
            reference = config.actor_rollout_ref.ref
            _check_engine(_REFERENCE, reference.megatron, gpus, layers, None, True)
    if discriminator.strategy == MEGATRON and gad_config.has_discriminator:
        if gad_config.discriminator_n_gpus_per_node:
            gpus = gad_config.discriminator_nnodes * gad_config.discriminator_n_gpus_per_node
        model = discriminator.model
        layers = gad_config.discriminator_num_layers
        _check_section(_DISCRIMINATOR, discriminator, gpus, _model_config(model), layers, model.use_remove_padding)
        _check_discriminator(config, gad_config)


def check_installed(config: DictConfig) -> None:
    """Check that Megatron's packages are there, where they are needed.

    Raises:
        GadConfigError: Names the missing package.
        GadCompatError: If verl's Megatron engine is another than the one that is used.
    """
    sections = (config.actor_rollout_ref.actor, config.discriminator)
    if all(section.strategy != MEGATRON for section in sections):
        return
    for package in ("megatron.core", "megatron.bridge"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise GadConfigError(
                f"strategy=megatron, but the package {package} is not installed: use an image of verl with Megatron, "
                "or set the strategies to fsdp2"
            )
    unread = unread_uses(MEGATRON_USES)
    if unread:
        raise GadCompatError(f"the installed verl lacks what gad_verl uses of its Megatron engine: {', '.join(unread)}")


def _model_config(model: Any) -> Any | None:
    """transformers' configuration of a model on this machine; None for one that is elsewhere."""
    folder = Path(str(model.path)).expanduser()
    if not folder.is_dir():
        return None
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=model.get("trust_remote_code", False)).get_text_config()


def _check_section(
    key: str, section: Any, gpus: int, model: Any | None, num_layers: int | None, remove_padding: bool
) -> None:
    _check_engine(key, section.megatron, gpus, model, num_layers, remove_padding)
    if section.checkpoint.get("async_save", False):
        raise GadConfigError(
            f"{key}.checkpoint.async_save=True: a checkpoint of GAD is whole when it is saved; set False"
        )


def _divides(key: str, engine: Any, name: str, what: str, number: int) -> None:
    if number % engine[name]:
        raise GadConfigError(f"{key}.megatron.{name}={engine[name]} does not divide {what} ({number})")


def _check_engine(
    key: str, engine: Any, gpus: int, model: Any | None, num_layers: int | None, remove_padding: bool
) -> None:
    prefix = f"{key}.megatron"
    if not engine.use_mbridge or engine.vanilla_mbridge:
        raise GadConfigError(f"{prefix}: GAD needs Megatron-Bridge: set use_mbridge=True and vanilla_mbridge=False")
    if engine.use_dist_checkpointing:
        raise GadConfigError(
            f"{prefix}.use_dist_checkpointing=True: the KL reference and `gad-verl export` read the weights in the "
            "form of transformers; set it to False"
        )
    if engine.use_megatron_fsdp:
        raise GadConfigError(f"{prefix}.use_megatron_fsdp=True is not supported: set it to False")
    if engine.get("dynamic_context_parallel", False):
        raise GadConfigError(f"{prefix}.dynamic_context_parallel=True is not supported: set it to False")
    tensor, pipeline = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
    context, experts = engine.context_parallel_size, engine.expert_model_parallel_size
    ranks = tensor * pipeline * context
    if gpus % ranks:
        raise GadConfigError(
            f"{prefix}: tensor x pipeline x context parallelism is {tensor} x {pipeline} x {context} = {ranks}, which "
            f"does not divide the {gpus} GPUs of its pool"
        )
    expert_tensor = engine.expert_tensor_parallel_size or tensor
    if experts > 1 and gpus % (experts * expert_tensor * pipeline):
        raise GadConfigError(
            f"{prefix}: expert x expert tensor x pipeline parallelism is {experts} x {expert_tensor} x {pipeline} = "
            f"{experts * expert_tensor * pipeline}, which does not divide the {gpus} GPUs of its pool"
        )
    if context > 1 and not remove_padding:
        raise GadConfigError(
            f"{prefix}.context_parallel_size={context} needs packed sequences: use_remove_padding=True"
        )
    stages = engine.virtual_pipeline_model_parallel_size or 1
    if stages > 1 and pipeline == 1:
        raise GadConfigError(
            f"{prefix}.virtual_pipeline_model_parallel_size={stages} needs pipeline_model_parallel_size of at least 2"
        )
    if model is not None:
        check_divisions(key, engine, model, num_layers, stages)
    for name, value in (("context parallelism", context), ("virtual pipeline stages", stages), ("experts", experts)):
        if value > 1:
            logger.warning("%s: %s were checked by their configuration alone, never run by the tests", prefix, name)


def check_divisions(key: str, engine: Any, model: Any, num_layers: int | None, stages: int) -> None:
    """Check that a model can be divided as its engine says.

    Args:
        key: Of the engine's section.
        engine: That section.
        model: Heads, layers and experts of the model, by the names of transformers' configurations.
        num_layers: Layers that are kept of it; None keeps all.
        stages: Virtual stages of a pipeline stage.

    Raises:
        GadConfigError: Names the key and the size.
    """
    tensor, pipeline = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
    experts = engine.expert_model_parallel_size
    heads = model.num_attention_heads
    _divides(key, engine, "tensor_model_parallel_size", "the attention heads", heads)
    groups = getattr(model, "num_key_value_heads", None) or heads
    if groups % tensor and tensor % groups:
        raise GadConfigError(
            f"{key}.megatron.tensor_model_parallel_size={tensor} does not fit the {groups} heads of keys and values"
        )
    if not engine.override_transformer_config.get("should_pad_vocab", False):
        _divides(key, engine, "tensor_model_parallel_size", "the vocabulary", model.vocab_size)
    overrides = engine.override_transformer_config
    uneven = (
        "num_layers_in_first_pipeline_stage",
        "num_layers_in_last_pipeline_stage",
        "pipeline_model_parallel_layout",
    )
    layers = num_layers or model.num_hidden_layers
    if layers % (pipeline * stages) and not any(overrides.get(name) for name in uneven):
        raise GadConfigError(
            f"{key}.megatron: {pipeline} pipeline stages of {stages} parts do not divide {layers} layers evenly: set "
            "override_transformer_config.num_layers_in_first_pipeline_stage or another number of stages"
        )
    found = getattr(model, "num_experts", None) or getattr(model, "num_local_experts", None) or 1
    if experts > 1:
        _divides(key, engine, "expert_model_parallel_size", "the experts", found)


def _check_student(config: DictConfig) -> None:
    student = config.actor_rollout_ref.actor
    if not student.megatron.use_distributed_optimizer:
        raise GadConfigError(
            f"{_STUDENT}.megatron.use_distributed_optimizer=False: verl 0.9.1 cannot hand the weights to the rollout "
            "then; set it to True"
        )
    if not student.optim.get("use_checkpoint_opt_param_scheduler", False):
        raise GadConfigError(
            f"{_STUDENT}.optim.use_checkpoint_opt_param_scheduler=False: a resumed run would forget the learning rate "
            "of its stage; set it to True"
        )
    reference = config.actor_rollout_ref.ref.strategy
    if reference != student.strategy:
        raise GadConfigError(
            f"{_REFERENCE}.strategy={reference}, but {_STUDENT}.strategy={student.strategy}: the reference takes the "
            "student's weights of the end of the warmup, so it must be on the same engine"
        )
    lora = config.actor_rollout_ref.model.get("lora", None) or {}
    if config.actor_rollout_ref.model.get("lora_rank", 0) > 0 or lora.get("rank", 0) > 0:
        raise GadConfigError("LoRA is supported on FSDP only: set actor_rollout_ref.model.lora_rank to 0, or use fsdp2")


def _check_discriminator(config: DictConfig, gad_config: GadConfig) -> None:
    model = config.discriminator.model
    if model.get("lora_rank", 0) > 0 or (model.get("lora", None) or {}).get("rank", 0) > 0:
        raise GadConfigError("LoRA is supported on FSDP only: set discriminator.model.lora_rank to 0, or use fsdp2")
    if gad_config.discriminator_share_prompt == "always":
        raise GadConfigError(
            "gad.discriminator_share_prompt=always works on FSDP only: with discriminator.strategy=megatron set it to "
            "auto"
        )
