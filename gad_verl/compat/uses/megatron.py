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
"""What they use besides where a strategy is "megatron". Importing it needs Megatron."""

from gad_verl.compat.use import IMPLEMENTED, OVERRIDDEN, REPLACED, VerlUse

_WORKERS = "verl.workers.engine_workers"
_MEGATRON = "verl.workers.engine.megatron.transformer_impl"

MEGATRON_USES = (
    VerlUse(
        _MEGATRON,
        "MegatronEngine.__init__(self, model_config, engine_config, optimizer_config, checkpoint_config) "
        "MegatronEngine._build_megatron_module(self) "
        "MegatronEngineWithValueHead.prepare_model_outputs(self, output, data)",
        "the discriminator's engine on Megatron",
        OVERRIDDEN,
    ),
    VerlUse(
        f"{_MEGATRON}:MegatronEngine",
        "initialize(self) load_checkpoint(self, local_path, hdfs_path, del_local_after_load, **kwargs)",
        "the discriminator's engine on Megatron",
        OVERRIDDEN,
        read_in=_WORKERS,
    ),
    VerlUse(
        f"{_MEGATRON}:MegatronEngine",
        "optimizer_step(self)",
        "no step where the gradient is not finite",
        OVERRIDDEN,
        read_in="verl.workers.engine.base",
    ),
    VerlUse(
        f"{_MEGATRON}:MegatronEngine",
        "model_config optimizer bridge checkpoint_mananager optimizer_zero_grad(self) _build_lr_scheduler",
        "learning rates of a stage; the KL reference, whose engine has no checkpoint manager",
    ),
    VerlUse(f"{_MEGATRON}:MegatronEngine", "lr_scheduler", "learning rates of a stage", REPLACED),
    VerlUse(
        "verl.models.mcore.bridge:LinearForLastLayer",
        "forward(self, input_, weight, runtime_gather_output)",
        "the discriminator's head in float32; Megatron calls it",
        IMPLEMENTED,
    ),
    VerlUse("verl.models.mcore.bridge:LinearForLastLayer", "sequence_parallel", "the discriminator's head"),
    VerlUse(
        "verl.models.mcore.bridge",
        "make_value_model",
        "the discriminator's head",
        REPLACED,
        read_in="verl.utils.megatron_utils:make_megatron_module",
    ),
    VerlUse(
        "verl.utils.megatron_utils",
        "load_megatron_model_to_gpu(models) offload_megatron_model_to_cpu(models)",
        "weights of the KL reference on Megatron",
    ),
    VerlUse("verl.workers.config", "McoreEngineConfig McoreOptimizerConfig", "configuration of the engine"),
    VerlUse("verl.trainer.config", "CheckpointConfig", "configuration of the engine"),
)
