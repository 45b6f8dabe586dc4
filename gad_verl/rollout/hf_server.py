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
"""A rollout server on transformers: collects the requests of all agent loops into batches."""

import asyncio
import logging
import re
from collections import defaultdict
from typing import Any

import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.tokens import stop_token_ids
from gad_verl.discriminator.form import attention_for, language_model_class
from gad_verl.rollout.batching import GeneratedResponse, SamplingSettings, generate_batch

logger = logging.getLogger(__name__)

# Requests of one prompt group arrive one after the other: wait this long for companions before a batch starts.
_GATHER_SECONDS = 0.05


# verl sends experts one by one, as vLLM reads them (verl/workers/engine/fsdp/utils.py, unfuse_moe_params).
_EXPERT = re.compile(r"(?P<experts>.*\.mlp\.experts)\.(?P<number>\d+)\.(?P<part>gate|up|down)_proj\.weight")


def _place_of(name: str, weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Where a weight of the student belongs, for one expert a part of a tensor; None where there is no such weight."""
    found = _EXPERT.fullmatch(name)
    if name in weights or found is None:
        return weights.get(name)
    is_down = found["part"] == "down"
    experts = weights.get(f"{found['experts']}.{'down' if is_down else 'gate_up'}_proj")
    if experts is None:
        return None
    expert = experts[int(found["number"])]
    return expert if is_down else expert.chunk(2)[found["part"] == "up"]


class HFServer:
    """Ray actor with the part of verl's rollout server that the synchronous trainer calls."""

    def __init__(self, config: RolloutConfig, model_config: HFModelConfig, replica_rank: int) -> None:
        from verl.utils.model import get_hf_auto_model_class
        from verl.utils.torch_dtypes import PrecisionType

        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        self.global_steps: int | None = None
        self._pending: dict[SamplingSettings, list[tuple[list[int], asyncio.Future]]] = defaultdict(list)
        self._worker: asyncio.Task | None = None
        torch.manual_seed(self.config.seed + replica_rank)
        # The weights come with the first sync; loading the checkpoint keeps buffers and tied weights right.
        # The actor's class: of a family with images, AutoModelForCausalLM has other names for the same weights.
        hf_config = self.model_config.hf_config
        self.model = (
            get_hf_auto_model_class(hf_config)
            .from_pretrained(
                self.model_config.local_path,
                dtype=PrecisionType.to_dtype(self.config.dtype),
                trust_remote_code=self.model_config.trust_remote_code,
                attn_implementation=attention_for(language_model_class(hf_config), "sdpa"),
            )
            .eval()
        )
        # Taken before an adapter changes the names of the modules; the tensors stay the model's own.
        self._weights = self.model.state_dict()
        self._adapter: Any | None = None
        tokenizer = self.model_config.tokenizer
        self._stop_token_ids = stop_token_ids(tokenizer, self.model_config.generation_config)
        self._pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        """Continue ``prompt_ids`` (verl/workers/rollout/vllm_rollout/vllm_async_server.py, ``generate``)."""
        limit = min(
            self.config.response_length, self.config.prompt_length + self.config.response_length - len(prompt_ids)
        )
        settings = SamplingSettings(
            max_new_tokens=max(1, int(sampling_params.get("max_tokens", limit))),
            temperature=float(sampling_params.get("temperature", self.config.temperature)),
            top_p=float(sampling_params.get("top_p", 1.0)),
            top_k=int(sampling_params.get("top_k", -1)),
            logprobs=bool(sampling_params.get("logprobs", False)),
            ignore_eos=bool(self.config.ignore_eos),
        )
        future: asyncio.Future = asyncio.get_running_loop().create_future()
        self._pending[settings].append((list(prompt_ids), future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        response: GeneratedResponse = await future
        return TokenOutput(
            token_ids=response.token_ids,
            log_probs=response.log_probs,
            stop_reason="completed",
            extra_fields={"global_steps": self.global_steps},
        )

    async def _work(self) -> None:
        while any(self._pending.values()):
            await asyncio.sleep(_GATHER_SECONDS)
            settings, requests = next((key, value) for key, value in self._pending.items() if value)
            batch, self._pending[settings] = requests[: self.config.max_num_seqs], requests[self.config.max_num_seqs :]
            try:
                responses = await asyncio.to_thread(
                    generate_batch,
                    self.model,
                    [prompt for prompt, _ in batch],
                    settings,
                    self._stop_token_ids,
                    self._pad_token_id,
                )
                for (_, future), response in zip(batch, responses, strict=True):
                    if not future.done():
                        future.set_result(response)
            except Exception as error:
                logger.exception("generation of %d requests failed", len(batch))
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    async def load_weights(self, named_tensors: list[tuple[str, torch.Tensor]]) -> list[str]:
        """Copy a bucket of weights into the model; returns the names that the model does not have."""
        unknown = []
        with torch.no_grad():
            for name, tensor in named_tensors:
                place = _place_of(name, self._weights)
                if place is None:
                    unknown.append(name)
                else:
                    place.copy_(tensor)
        return unknown

    async def load_adapter(self, named_tensors: dict[str, torch.Tensor], peft_config: dict[str, Any]) -> list[str]:
        """Take the student's adapter of LoRA; the base stays. Returns the names that the model does not have."""
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

        if self._adapter is None:
            self._adapter = get_peft_model(self.model, PeftConfig.from_peft_type(**peft_config)).eval()
        return list(set_peft_model_state_dict(self._adapter, named_tensors).unexpected_keys)

    async def set_global_steps(self, global_steps: int) -> None:
        """Version of the weights, reported with each response."""
        self.global_steps = global_steps

    async def sleep(self) -> None:
        """Wait until no request is running; nothing is freed on a CPU."""
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Nothing to load: the weights stay."""

    async def ping(self) -> bool:
        """Whether the server answers."""
        return True

    async def start_profile(self, **_: Any) -> None:
        """No profiler of its own."""

    async def stop_profile(self) -> None:
        """No profiler of its own."""
