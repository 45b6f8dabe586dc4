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
"""Reads a model in its role from its section of the configuration."""

import re
from typing import Any

from omegaconf import OmegaConf

from gad_verl.errors import GadConfigError
from gad_verl.preflight.parallel_check import sequence_parallel
from gad_verl.tools.estimate import config_values as values
from gad_verl.tools.estimate.adapters import ALL_LINEAR, Adapters, Names
from gad_verl.tools.estimate.memory import ADAPTERS
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.shape import ModelShape

_FLASH = "flash_attention"
_ADAM = ("adam", "adamw", "nadam", "radam", "fusedadam")
_MEGATRON = {
    "sequence": "context_parallel_size",
    "tensor": "tensor_model_parallel_size",
    "pipeline": "pipeline_model_parallel_size",
    "experts": "expert_model_parallel_size",
}


def read_role(
    name: str, shape: ModelShape, section: Any, key: str, model: Any, model_key: str, gpus: int, **more: Any
) -> Role:
    """A model as its section places it.

    Args:
        name: ``student``, ``reference`` or ``discriminator``.
        shape: Its sizes.
        section, key: Of an actor, a reference or a discriminator, and its key.
        model, model_key: Its section of the model, and that one's key.
        gpus: GPUs of its pool.
        more: Further fields of the role.

    Raises:
        GadConfigError: Names a key whose value is none.
    """
    strategy = str(section.strategy)
    engine_key = "megatron" if strategy == "megatron" else ("fsdp" if "fsdp" in section else "fsdp_config")
    engine = values.needed(section, engine_key)
    stored, computed = _precision(engine, strategy, f"{key}.{engine_key}")
    attention = values.section(model, "override_config", f"{model_key}.override_config")
    is_fsdp = strategy != "megatron"
    # verl has the reference of FSDP on the host, whatever is asked for; FSDP 1 knows no offload_policy.
    on_host = is_fsdp and (name == "reference" or (strategy == "fsdp2" and bool(engine.get("offload_policy", False))))
    return Role(
        name=name,
        shape=shape,
        layout=_layout(engine, section, key, f"{key}.{engine_key}", strategy, gpus),
        stored_bytes=stored,
        computed_bytes=computed,
        param_offload=bool(engine.param_offload),
        optimizer_offload=bool(engine.optimizer_offload),
        always_on_host=on_host,
        keeps_gathered=is_fsdp and not engine.get("reshard_after_forward", True),
        trains=name != "reference",
        checkpointing=_checkpoints(engine, strategy, model, f"{key}.{engine_key}"),
        remove_padding=bool(model.get("use_remove_padding", True)),
        flash_attention=str(attention.get("attn_implementation", _FLASH)).startswith(_FLASH),
        fused_head=bool(model.get("use_fused_kernels", False)),
        adapters=_adapters(model, model_key),
        **more,
    )


def micro_batch_tokens(
    dynamic: bool, tokens: int | None, rows: int | None, longest: int, sequence: int, key: str
) -> int:
    """Tokens of a micro-batch on one GPU.

    Args:
        dynamic: Whether it is sized by tokens; they are those of one GPU then.
        tokens: Its tokens.
        rows: Its rows, which GPUs with sequence parallelism share.
        longest: Tokens of the longest row.
        sequence: GPUs that share a row.
        key: Of the section, for errors.

    Raises:
        GadConfigError: If what sizes it is not set.
    """
    if dynamic:
        if not tokens:
            raise GadConfigError(f"{key}: the tokens of a micro-batch are not set, although it is sized by tokens")
        return int(tokens)
    if not rows:
        raise GadConfigError(f"{key}: the rows of a micro-batch are not set, although it is not sized by tokens")
    return -(-int(rows) * longest // sequence)


def _layout(engine: Any, section: Any, key: str, engine_key: str, strategy: str, gpus: int) -> Layout:
    if strategy == "megatron":
        sizes = {field: values.whole(engine[name], f"{engine_key}.{name}", 1) for field, name in _MEGATRON.items()}
        expert_tensor = engine.get("expert_tensor_parallel_size", None)
        if expert_tensor is not None:
            expert_tensor = values.whole(expert_tensor, f"{engine_key}.expert_tensor_parallel_size", 1)
        return Layout("megatron", gpus, expert_tensor=expert_tensor, **sizes)
    shards = values.whole(engine.get("fsdp_size", -1), f"{engine_key}.fsdp_size")
    spelled, sequence = sequence_parallel(key, section)
    return Layout(
        "fsdp",
        gpus,
        shards=gpus if shards <= 0 else min(shards, gpus),
        sequence=values.whole(sequence, spelled, 1),
    )


def _precision(engine: Any, strategy: str, key: str) -> tuple[int, int]:
    """Bytes of a stored and of a computed parameter."""
    if strategy == "megatron":
        computed = values.element_bytes(engine.get("dtype", "bfloat16"), f"{key}.dtype")
        return computed, computed
    mixed = values.section(engine, "mixed_precision", f"{key}.mixed_precision")
    name = mixed.get("param_dtype") or engine.get("dtype") or "bf16"
    computed = values.element_bytes(name, f"{key}.mixed_precision.param_dtype")
    return values.element_bytes(engine.get("model_dtype") or "fp32", f"{key}.model_dtype"), computed


def _checkpoints(engine: Any, strategy: str, model: Any, key: str) -> bool:
    if strategy == "megatron":
        name = "override_transformer_config"
        return values.section(engine, name, f"{key}.{name}").get("recompute_granularity") == "full"
    return bool(model.get("enable_gradient_checkpointing", True))


def _adapters(model: Any, key: str) -> Adapters:
    rank = model.get("lora_rank", 0)
    rank = 0 if rank is None else values.whole(rank, f"{key}.lora_rank", 0)
    if rank == 0:
        return Adapters()

    def chosen(name: str, default: Names) -> Names:
        value = model.get(name, None)
        if value is None:
            return default
        if isinstance(value, str):
            return _expression(value, f"{key}.{name}")
        return values.names(value, f"{key}.{name}")

    return Adapters(rank, chosen("target_modules", ALL_LINEAR), chosen("exclude_modules", ()))


def _expression(text: str, key: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise GadConfigError(f"{key}={text} is no regular expression ({error}): give one, or a list of names") from None
    return text


def save_contents(section: Any, key: str) -> tuple[str, ...]:
    """What a checkpoint of a section holds; everything where it does not say. Adapters may stand for their model.

    Raises:
        GadConfigError: If it is no list.
    """
    found = OmegaConf.select(section, "checkpoint.save_contents", default=None) if "checkpoint" in section else None
    if found is None:
        contents = ("model", "optimizer", "extra")
    else:
        contents = values.names(found, f"{key}.checkpoint.save_contents")
    adapters_alone = OmegaConf.select(section, "checkpoint.save_lora_only", default=False)
    return tuple(ADAPTERS if name == "model" and adapters_alone else name for name in contents)


def other_optimizer(section: Any, key: str) -> str | None:
    """The setting by which a section's optimizer keeps something else than Adam's two moments; None for Adam."""
    optim = values.section(section, "optim", f"{key}.optim")
    name = str(optim.get("optimizer", None) or "Adam")
    if name.lower().lstrip("_") not in _ADAM:
        return f"{key}.optim.optimizer={name}"
    precise = "use_precision_aware_optimizer"
    return f"{key}.optim.{precise}=True" if optim.get(precise, False) else None
