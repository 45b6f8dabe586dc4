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
"""verl's training worker with the discriminator's engine: one call updates and returns the pre-update scores.

Calls answer with futures: the driver chooses what to do meanwhile.
"""

import math
import time
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_torch_device
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions  # registers the engine
from gad_verl.discriminator.groups import take_sources
from gad_verl.discriminator.loss import discriminator_loss, row_scores
from gad_verl.discriminator.row_tensors import complete_rows
from gad_verl.workers.adapter import save_adapter_config
from gad_verl.workers.stage import advance_schedule, begin_stage

_GIBIBYTE = 1024**3


class DiscriminatorWorker(TrainingWorker):
    """One rank of the discriminator's worker group.

    Args:
        config: verl's worker configuration with ``model_type`` "gad_discriminator".
        options: See :class:`gad_verl.discriminator.engine.DiscriminatorOptions`.
    """

    def __init__(self, config: TrainingWorkerConfig, options: DiscriminatorOptions) -> None:
        if config.model_type != MODEL_TYPE:
            raise ValueError(f"the discriminator's model_type must be {MODEL_TYPE!r}; got {config.model_type!r}")
        if config.engine_config.strategy == "megatron":
            import gad_verl.discriminator.megatron_engine  # noqa: F401  registers the engine; needs Megatron
        super().__init__(config)
        self.engine.options = options
        self.loss_fn = partial(discriminator_loss, options=options.loss)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_stage(self, lr: float, total_steps: int) -> None:
        """Learning rate of a stage; the discriminator keeps its optimizer state."""
        begin_stage(self.engine, lr, total_steps, restart_schedule=False)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """verl's checkpoint, and under LoRA the configuration of the adapter beside it."""
        super().save_checkpoint(local_path, *args, **kwargs)
        save_adapter_config(self.engine, local_path)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def update(self, data: TensorDict) -> TensorDict | None:
        """One optimizer step on groups (``build_group_batch``) or on rows with the gradients of their scores.

        Returns:
            A row for each row of ``data``: ``scores`` from the forward pass of the update, so of the discriminator
            BEFORE it; and, equal in every row of all ranks, ``loss``, ``grad_norm``, ``lr``, ``skipped_steps`` (1 where
            the gradient was not finite and the step was left out); per rank ``memory_peak_gb`` and ``busy_s``, the
            seconds of this call. Where ``data`` says ``return_values``, also the nested ``values`` at each token.
        """
        start = time.perf_counter()
        data = complete_rows(data)
        with self.engine.train_mode():
            self.engine.optimizer_zero_grad()
            output = self._forward_backward(data)
            step = self._optimizer_step()
        return self._rows(data, output, busy_s=time.perf_counter() - start, loss=self._global_loss(output), **step)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def accumulate(self, data: TensorDict) -> TensorDict | None:
        """The first half of :meth:`update`: scores and gradients. :meth:`apply` must follow.

        Returns:
            ``scores``, ``loss``, ``memory_peak_gb`` and ``busy_s`` as in :meth:`update`.
        """
        start = time.perf_counter()
        data = complete_rows(data)
        with self.engine.train_mode(zero_grad_on_exit=False):
            self.engine.optimizer_zero_grad()
            output = self._forward_backward(data)
        return self._rows(data, output, busy_s=time.perf_counter() - start, loss=self._global_loss(output))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def apply(self) -> dict[str, float]:
        """The second half of :meth:`update`: the optimizer step on the gradients of :meth:`accumulate`."""
        start = time.perf_counter()
        with self.engine.train_mode():
            step = self._optimizer_step()
        return {**step, "busy_s": time.perf_counter() - start}

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def score(self, data: TensorDict) -> TensorDict | None:
        """``scores``, ``memory_peak_gb`` and ``busy_s`` of rows or groups, without an update."""
        start = time.perf_counter()
        data = complete_rows(data)
        self._inject_defaults(data)
        with self.engine.eval_mode():
            output = self.engine.infer_batch(data, loss_function=None)
        return self._rows(data, output, busy_s=time.perf_counter() - start)

    def _forward_backward(self, data: TensorDict) -> dict[str, Any]:
        self._inject_defaults(data)
        tu.assign_non_tensor(data, return_model_output=True)
        return self.engine.forward_backward_batch(data, self.loss_fn, forward_only=False)

    def _optimizer_step(self) -> dict[str, float]:
        grad_norm = float(self.engine.optimizer_step())
        lr = advance_schedule(self.engine)
        return {"grad_norm": grad_norm, "lr": lr, "skipped_steps": 0.0 if math.isfinite(grad_norm) else 1.0}

    def _inject_defaults(self, data: TensorDict) -> None:
        engine = self.engine_config
        defaults = {
            "use_remove_padding": self.model_config.get("use_remove_padding", False),
            "use_dynamic_bsz": engine.use_dynamic_bsz,
            "max_token_len_per_gpu": engine.max_token_len_per_gpu,
            "micro_batch_size_per_gpu": engine.micro_batch_size_per_gpu,
            "use_fused_kernels": False,
        }
        tu.assign_non_tensor(data, **{key: value for key, value in defaults.items() if key not in data.keys()})

    def _global_loss(self, output: dict[str, Any]) -> float:
        # Of a pipeline, the last stage alone has a loss.
        losses = output.get("loss", [])
        total = torch.tensor(float(sum(losses)), dtype=torch.float64, device=get_device_id())
        group = self.engine.get_data_parallel_group()
        if group is not None:
            torch.distributed.all_reduce(total, op=torch.distributed.ReduceOp.SUM, group=group)
            total /= self.engine.get_data_parallel_size()
        return total.item()

    def _rows(self, data: TensorDict, output: dict[str, Any], **scalars: float) -> TensorDict | None:
        if not self.engine.is_mp_src_rank_with_outputs():
            return None
        values = output["model_output"]["values"]
        scores = take_sources(data, row_scores(values, data).detach().cpu())
        scalars["memory_peak_gb"] = get_torch_device().max_memory_allocated() / _GIBIBYTE
        rows = {name: torch.full((len(scores),), value, dtype=torch.float64) for name, value in scalars.items()}
        if tu.get_non_tensor_data(data, "return_values", default=False):
            of_rows = [row.detach().float().cpu() for row in values.unbind()]
            taken = take_sources(data, torch.arange(len(of_rows))).tolist()
            rows["values"] = torch.nested.as_nested_tensor([of_rows[at] for at in taken], layout=torch.jagged)
        return TensorDict({"scores": scores, **rows}, batch_size=[len(scores)])
