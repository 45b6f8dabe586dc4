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
import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name
from verl.utils.tokenizer import build_multimodal_processor_inputs
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.tokens import stop_token_ids
from gad_verl.discriminator.form import attention_for, language_model_class
from gad_verl.rollout.batching import GeneratedResponse, SamplingSettings, generate_batch
from gad_verl.rollout.served_weights import ServedWeights

logger = logging.getLogger(__name__)

# Requests of one prompt group arrive one after the other: wait this long for companions before a batch starts.
_GATHER_SECONDS = 0.05
_NOTHING = GeneratedResponse([], [], aborted=True)


def _output(response: GeneratedResponse, version: int | None) -> TokenOutput:
    """As verl reads it; the first version that wrote a token of a response counts, so none where there is no token."""
    return TokenOutput(
        token_ids=list(response.token_ids),
        log_probs=None if response.log_probs is None else list(response.log_probs),
        stop_reason="aborted" if response.aborted else "completed",
        extra_fields={"global_steps": version},
    )


@dataclass(frozen=True)
class _Request:
    """One that waits for its batch.

    Args:
        prompt_ids: What is to be continued.
        limit: Longest response in tokens.
        answer: Takes the response and the version of the weights that made it.
        images: What the processor made of the prompt's images; empty where it has none.
    """

    prompt_ids: list[int]
    limit: int
    answer: asyncio.Future
    images: dict[str, torch.Tensor]


class HFServer:
    """Ray actor with the part of verl's rollout server that verl's trainers call.

    Aborted requests return what they have; verl's client asks for the rest (partial rollout). While the gate is closed
    new requests wait, or are sent away where the replica leaves the rollout.
    """

    def __init__(self, config: RolloutConfig, model_config: HFModelConfig, replica_rank: int) -> None:
        from verl.utils.model import get_hf_auto_model_class
        from verl.utils.torch_dtypes import PrecisionType

        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        self.global_steps: int | None = None
        # By what they must share to be in one batch, and whether they have images: beside those that have, transformers
        # gives text on a Qwen3-VL wrong positions behind its first token. Their limits may differ.
        self._pending: dict[tuple[SamplingSettings, bool], list[_Request]] = defaultdict(list)
        self._worker: asyncio.Task | None = None
        self._gate = asyncio.Condition()
        self._is_open, self._sends_away = True, False
        # Asked by the thread that generates.
        self._stop = threading.Event()
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
        self._weights = ServedWeights(self.model, get_device_name(), sleeps=self.config.free_cache_engine)
        self._adapter: Any | None = None
        tokenizer = self.model_config.tokenizer
        self._stop_token_ids = stop_token_ids(tokenizer, self.model_config.generation_config)
        self._pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """Continue ``prompt_ids`` (verl/workers/rollout/vllm_rollout/vllm_async_server.py, ``generate``)."""
        images = await asyncio.to_thread(self._pixels, image_data, mm_processor_kwargs) if image_data else {}
        async with self._gate:
            await self._gate.wait_for(lambda: self._is_open or self._sends_away)
        if not self._is_open:
            return _output(_NOTHING, None)
        if not self._weights.awake:
            raise RuntimeError(
                "the rollout hf was asked while the training has its memory: nobody woke it up, which verl does with "
                "new weights (actor_rollout_ref.rollout.free_cache_engine=False never puts it to sleep)"
            )
        limit = min(
            self.config.response_length, self.config.prompt_length + self.config.response_length - len(prompt_ids)
        )
        limit = max(1, int(sampling_params.get("max_tokens", limit)))
        settings = SamplingSettings(
            max_new_tokens=1,
            temperature=float(sampling_params.get("temperature", self.config.temperature)),
            top_p=float(sampling_params.get("top_p", 1.0)),
            top_k=int(sampling_params.get("top_k", -1)),
            logprobs=bool(sampling_params.get("logprobs", False)),
            ignore_eos=bool(self.config.ignore_eos),
        )
        future: asyncio.Future = asyncio.get_running_loop().create_future()
        self._pending[settings, bool(images)].append(_Request(list(prompt_ids), limit, future, images))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return _output(*await future)

    def _pixels(self, images: list[Any], options: dict[str, Any] | None) -> dict[str, torch.Tensor]:
        """By the processor that has made the prompt's tokens."""
        processor = self.model_config.processor
        text = [processor.image_token * len(images)]
        return dict(build_multimodal_processor_inputs(processor, text=text, images=images, mm_processor_kwargs=options))

    async def _work(self) -> None:
        while any(self._pending.values()):
            await asyncio.sleep(_GATHER_SECONDS)
            waiting = next(((key, value) for key, value in self._pending.items() if value), None)
            if waiting is None:
                return
            (settings, has_images), requests = waiting
            batch, self._pending[settings, has_images] = (
                requests[: self.config.max_num_seqs],
                requests[self.config.max_num_seqs :],
            )
            limits, version = [request.limit for request in batch], self.global_steps
            try:
                responses = await asyncio.to_thread(
                    generate_batch,
                    self.model,
                    [request.prompt_ids for request in batch],
                    replace(settings, max_new_tokens=max(limits)),
                    self._stop_token_ids,
                    self._pad_token_id,
                    limits,
                    self._stop.is_set,
                    [request.images for request in batch] if has_images else (),
                )
                for request, response in zip(batch, responses, strict=True):
                    if not request.answer.done():
                        request.answer.set_result((response, version))
            except Exception as error:
                logger.exception("generation of %d requests failed", len(batch))
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)

    async def load_weights(self, named_tensors: list[tuple[str, torch.Tensor]]) -> list[str]:
        """Take a bucket of weights; returns the names that the model does not have."""
        return self._weights.load(named_tensors)

    async def load_adapter(self, named_tensors: dict[str, torch.Tensor], peft_config: dict[str, Any]) -> list[str]:
        """Take the student's adapter of LoRA; the base stays. Returns the names that the model does not have."""
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

        if self._adapter is None:
            self._adapter = get_peft_model(self.model, PeftConfig.from_peft_type(**peft_config)).eval()
        return list(set_peft_model_state_dict(self._adapter, named_tensors).unexpected_keys)

    async def set_global_steps(self, global_steps: int) -> None:
        """Version of the weights, reported with each response."""
        self.global_steps = global_steps

    async def abort_all_requests(self, reset_prefix_cache: bool = True, reject_request: bool = False) -> dict[str, Any]:
        """Close the gate: running requests return what they have.

        Args:
            reset_prefix_cache: There is none.
            reject_request: Send new requests away instead of letting them wait for :meth:`resume_generation`.

        Returns:
            How many requests had not begun.
        """
        await self._set_gate(is_open=False, sends_away=reject_request)
        waiting = [one.answer for requests in self._pending.values() for one in requests if not one.answer.done()]
        self._pending.clear()
        for answer in waiting:
            answer.set_result((_NOTHING, None))
        self._stop.set()
        try:
            if self._worker is not None:
                await asyncio.gather(self._worker, return_exceptions=True)
        finally:
            self._stop.clear()
        return {"aborted_count": len(waiting)}

    async def resume_generation(self) -> None:
        """Open the gate again."""
        await self._set_gate(is_open=True, sends_away=False)

    async def _set_gate(self, is_open: bool, sends_away: bool) -> None:
        async with self._gate:
            self._is_open, self._sends_away = is_open, sends_away
            self._gate.notify_all()

    async def clear_kv_cache(self) -> None:
        """None is kept between two batches."""

    async def release_kv_cache(self) -> None:
        """None is kept between two batches."""

    async def resume_kv_cache(self) -> None:
        """None is kept between two batches."""

    async def sleep(self) -> None:
        """Wait until no request is running, and give the memory of the device to the training."""
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        self._weights.sleep()

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Back to the device. There is no cache to be woken up by a tag of its own."""
        self._weights.wake_up()

    async def ping(self) -> bool:
        """Whether the server answers."""
        return True

    async def start_profile(self, **_: Any) -> None:
        """No profiler of its own."""

    async def stop_profile(self) -> None:
        """No profiler of its own."""
