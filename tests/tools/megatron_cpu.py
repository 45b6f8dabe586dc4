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
"""Lets Megatron-Core, Megatron-Bridge and verl's Megatron engines run on a CPU with gloo. For tests only.

Attention, norms and the layers of Transformer Engine are stand-ins in plain torch under the real names of the
parameters, so a run shows that verl, the bridge, DDP, the optimizers, the pipeline schedules and the checkpoints are
used rightly; it shows nothing about the numerics of GPU kernels.

The patches change the whole process: call :func:`install` in a process of its own, before verl's engines are imported.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDER = "GAD_MEGATRON_FOLDER"

# Packages of GPUs that megatron.bridge imports at its top without using them in these tests.
STUBBED = ("modelopt", "transformer_engine", "nvidia_resiliency_ext")

# Functions to which Megatron passes device="cuda".
FACTORIES = ("tensor", "zeros", "empty", "ones", "full", "arange", "zeros_like", "empty_like")


def megatron_folder() -> Path | None:
    """Where ``make install`` put Megatron's packages; None where they are missing."""
    default = Path(__file__).resolve().parents[2] / ".megatron"
    folder = Path(os.environ.get(FOLDER, default))
    return folder if (folder / "megatron" / "core").is_dir() else None


def _add_to_path() -> None:
    folder = megatron_folder()
    if folder is None:
        raise ImportError("Megatron's packages are missing: make install puts them into .megatron/")
    if str(folder) not in sys.path:
        # Behind everything else: nothing in it may replace an installed package.
        sys.path.append(str(folder))


# 1. torch.cuda and device="cuda": everything is on the CPU.


def _on_cpu(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if str(kwargs.get("device")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)

    return call


class _Stream:
    """A stream or an event that does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *args: Any) -> None:
        return None


def patch_cuda() -> None:
    """What Megatron asks of ``torch.cuda`` is answered for the CPU."""
    # It keeps a table of torch's functions, in which none may stand twice.
    importlib.import_module("torch._dynamo")

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    for name in ("synchronize", "empty_cache", "set_device", "ipc_collect", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, nothing)
    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.Stream = torch.cuda.Event = _Stream
    torch.cuda.current_stream = torch.cuda.default_stream = lambda *args: _Stream()
    torch.cuda.stream = lambda stream: _Stream()
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    torch.cuda.set_rng_state = torch.cuda.random.set_rng_state = lambda state, *args: torch.set_rng_state(state)
    # torch.manual_seed calls torch.cuda.manual_seed_all.
    torch.cuda.manual_seed = torch.default_generator.manual_seed
    torch.cuda.is_current_stream_capturing = lambda: False
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        setattr(torch.cuda, name, lambda *args: 0)
    for name in FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *args, **kwargs: self
    torch.Tensor.type = _typed(torch.Tensor.type)


def _typed(original: Any) -> Any:
    """Megatron's optimizers sort parameters by the names of CUDA's tensor types."""

    def type_name(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        if not args and not kwargs and "megatron" in sys._getframe(1).f_globals.get("__name__", ""):
            return found.replace("torch.", "torch.cuda.", 1)
        return found

    return type_name


# 2. Packages that are not there.


class _StubClass(type):
    """A class for every name: base classes and annotations can be written with them."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StubClass(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> None:
        """Functions of these packages answer None: nothing is quantized."""
        return None


class _Stub(types.ModuleType):
    __path__: Sequence[str] = ()
    # Megatron asks for the version; none of Transformer Engine's features are there.
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StubClass(name, (), {})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in STUBBED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


@contextmanager
def stubbed_packages() -> Iterator[None]:
    """The packages of STUBBED can be imported meanwhile; afterwards they are missing again."""
    finder = _StubFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in STUBBED]:
            del sys.modules[name]


# 3. Layers of Transformer Engine, under the names of its parameters.


def _build_layers() -> dict[str, type]:
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear

    class RMSNorm(nn.Module):
        """Megatron's own wrapper of torch's refuses sequence parallelism."""

        def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
            self.weight.sequence_parallel = config.sequence_parallel
            self.eps = eps

        def forward(self, hidden: Tensor) -> Tensor:
            return F.rms_norm(hidden, (hidden.shape[-1],), self.weight, self.eps)

    class TELayerNormColumnParallelLinear(ColumnParallelLinear):
        """A norm, then a linear layer."""

        def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
            super().__init__(input_size, output_size, config=config, **kwargs)
            self.layer_norm_weight = nn.Parameter(torch.ones(input_size, dtype=config.params_dtype))
            self.layer_norm_weight.sequence_parallel = config.sequence_parallel
            self.eps = config.layernorm_epsilon

        def forward(self, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
            normed = F.rms_norm(input_, (input_.shape[-1],), self.layer_norm_weight, self.eps)
            return super().forward(normed, *args, **kwargs)

    class TEDotProductAttention(nn.Module):
        """Causal attention of packed (thd) and of padded (sbhd) sequences, padded on the right."""

        def __init__(self, config: Any, softmax_scale: float | None = None, **_: Any) -> None:
            super().__init__()
            self.scale = softmax_scale

        def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            """(b, h, s, d) each, fewer heads of key and value."""
            return F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=self.scale, enable_gqa=query.shape[1] != key.shape[1]
            )

        def forward(
            self,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Any,
            packed_seq_params: Any = None,
            **_: Any,
        ) -> Tensor:
            if packed_seq_params is None:
                output = self._attend(*(part.permute(1, 2, 0, 3) for part in (query, key, value)))
                return output.permute(2, 0, 1, 3).flatten(2)
            lengths = packed_seq_params.cu_seqlens_q_padded
            lengths = packed_seq_params.cu_seqlens_q if lengths is None else lengths
            output = torch.zeros_like(query)
            rows = []
            for start, end in zip(lengths[:-1].tolist(), lengths[1:].tolist(), strict=True):
                parts = (part[start:end].transpose(0, 1).unsqueeze(0) for part in (query, key, value))
                rows.append(self._attend(*parts).squeeze(0).transpose(0, 1))
            rows.append(output[int(lengths[-1]) :])
            return torch.cat(rows).flatten(1)

    return {
        "norm": RMSNorm,
        "norm_linear": TELayerNormColumnParallelLinear,
        "attention": TEDotProductAttention,
        "column": ColumnParallelLinear,
        "row": RowParallelLinear,
    }


def layer_spec(config: Any) -> Any:
    """The transformer of a bridge's provider, with the stand-ins."""
    from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
    from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.identity_op import IdentityOp
    from megatron.core.transformer.mlp import MLP, MLPSubmodules
    from megatron.core.transformer.spec_utils import ModuleSpec
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

    layers = _build_layers()
    qk_norm = layers["norm"] if config.qk_layernorm else IdentityOp
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=layers["norm_linear"],
                    core_attention=layers["attention"],
                    linear_proj=layers["row"],
                    q_layernorm=qk_norm,
                    k_layernorm=qk_norm,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            mlp=ModuleSpec(
                module=MLP, submodules=MLPSubmodules(linear_fc1=layers["norm_linear"], linear_fc2=layers["row"])
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    count = get_num_layers_to_build(config, vp_stage=getattr(config, "_vp_stage", None))
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=layers["norm"])


# 4. Transformer Engine's Adam, which counts its steps per group: Megatron does not save the count of torch's.


class FusedAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay, by its formula."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **_: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every parameter with a gradient."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                gradient = parameter.grad.to(parameter.dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                state["exp_avg"].lerp_(gradient, 1 - first)
                state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                size = group["lr"] / (1 - first ** group["step"])
                spread = state["exp_avg_sq"].sqrt().div_((1 - second ** group["step"]) ** 0.5).add_(group["eps"])
                parameter.addcdiv_(state["exp_avg"], spread, value=-size)


def patch_optimizer() -> None:
    """Megatron takes the stand-in for Transformer Engine's Adam."""
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    optimizer.Adam = distrib_optimizer.Adam = FusedAdam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_TE_OPTIMIZER = True


# 5. Settings that verl refuses on principle, and what it asks of the device.


def patch_verl() -> None:
    """float32, which verl's configuration refuses for Megatron; the device of the parameters."""
    from verl.workers.config import engine

    original = engine.McoreEngineConfig.__post_init__

    def post_init(self: Any) -> None:
        wanted = self.dtype
        if wanted == "float32":
            object.__setattr__(self, "dtype", "bfloat16")
        original(self)
        object.__setattr__(self, "dtype", wanted)

    engine.McoreEngineConfig.__post_init__ = post_init


# Fusions and Transformer Engine's options are for GPUs.
TRANSFORMER_CONFIG = {
    "transformer_layer_spec": layer_spec,
    "gradient_accumulation_fusion": False,
    "apply_rope_fusion": False,
    "masked_softmax_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "persist_layer_norm": False,
    "cross_entropy_loss_fusion": False,
}


def install() -> None:
    """Everything. Idempotent."""
    if "megatron.bridge" in sys.modules:
        return
    os.environ["VERL_PLATFORM"] = "cpu"
    os.environ["VERL_ENGINE_DEVICE"] = "cuda"
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    if not hasattr(typing, "override"):
        from typing_extensions import override

        typing.override = override
    _add_to_path()
    patch_cuda()
    # These decide at import whether Transformer Engine is there: before its stub is.
    for name in ("extensions.transformer_engine", "models.gpt.gpt_layer_specs", "optimizer", "distributed"):
        importlib.import_module(f"megatron.core.{name}")
    patch_optimizer()
    with stubbed_packages():
        importlib.import_module("megatron.bridge")
    from megatron.bridge.models import gpt_provider

    gpt_provider.transformer_engine_layer_spec = layer_spec
    patch_verl()


class _EngineFinder(importlib.abc.MetaPathFinder):
    """Finds nothing: installs the patches when verl is about to import its Megatron engine."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "verl.workers.engine.megatron":
            sys.meta_path.remove(self)
            install()


def install_when_needed() -> None:
    """For Ray's ``worker_process_setup_hook``: most of its processes never import an engine."""
    sys.meta_path.insert(0, _EngineFinder())
