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
"""Generation by transformers for many requests at once: left padding, sampling, log-probabilities. No verl, no Ray."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SamplingSettings:
    """What must be equal for two requests to share a batch.

    Args:
        max_new_tokens: Longest response, in tokens, the EOS included.
        temperature: 0 is greedy.
        top_p: Nucleus mass, 1.0 is off.
        top_k: Highest ranks kept, -1 or 0 is off.
        logprobs: Whether the log-probabilities of the sampled tokens are wanted.
        ignore_eos: Whether generation goes on after an EOS.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    logprobs: bool = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative; got {self.temperature}")


@dataclass(frozen=True)
class GeneratedResponse:
    """One response.

    Args:
        token_ids: With the EOS where it was generated.
        log_probs: Of each of them, if asked for.
        aborted: Whether it was stopped before its end; what is there so far can be continued.
    """

    token_ids: list[int]
    log_probs: list[float] | None
    aborted: bool = False


def left_padded(prompts: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (batch, longest prompt), padded on the left.

    Raises:
        ValueError: If a prompt is empty.
    """
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) < 1:
        raise ValueError("a prompt without tokens cannot be continued")
    ids = torch.full((len(prompts), longest), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def image_arguments(
    ids: Tensor, images: Sequence[Mapping[str, Tensor] | None], image_token_id: int
) -> dict[str, Tensor]:
    """What a model is given beside a batch of prompts with images; nothing where no prompt has any.

    Args:
        ids: (batch, longest prompt).
        images: Of each prompt what the processor made of its images (``pixel_values``, ``image_grid_thw``).
        image_token_id: Stands where images are.
    """
    some = [one for one in images if one]
    if not some:
        return {}
    found = {name: torch.cat([one[name] for one in some]).to(ids.device) for name in ("pixel_values", "image_grid_thw")}
    return found | {"mm_token_type_ids": (ids == image_token_id).long()}


def _cut_after_stop(token_ids: list[int], stop_token_ids: frozenset[int]) -> list[int]:
    for position, token_id in enumerate(token_ids):
        if token_id in stop_token_ids:
            return token_ids[: position + 1]
    return token_ids


def _done(prompt_length: int, limits: Tensor, stop: Callable[[], bool]) -> Callable[..., Tensor]:
    """What transformers asks after each token: which rows of a batch are done."""

    def rows(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return (input_ids.shape[1] - prompt_length >= limits) | stop()

    return rows


def _is_whole(token_ids: list[int], limit: int, settings: SamplingSettings, stop_token_ids: frozenset[int]) -> bool:
    ended = not settings.ignore_eos and bool(token_ids) and token_ids[-1] in stop_token_ids
    return ended or len(token_ids) >= limit


@torch.inference_mode()
def generate_batch(
    model: nn.Module,
    prompts: list[list[int]],
    settings: SamplingSettings,
    stop_token_ids: frozenset[int],
    pad_token_id: int,
    limits: Sequence[int] | None = None,
    stop: Callable[[], bool] = lambda: False,
    images: Sequence[Mapping[str, Tensor] | None] = (),
) -> list[GeneratedResponse]:
    """Continue every prompt.

    The log-probabilities are those of the distribution that was sampled from, temperature, top_k and top_p applied (as
    verl's ``logprobs_mode: processed_logprobs``); greedy responses report them at temperature 1.

    Args:
        model: A causal language model of transformers, in eval mode.
        prompts: Token ids of each prompt, at least one token.
        settings: Sampling settings, shared by the batch.
        stop_token_ids: Any of these ends a response.
        pad_token_id: Fills the batch, never part of a response.
        limits: Longest response to each prompt, at most that of the settings, which holds where this is None: what an
            aborted request still has to say is shorter than what others have.
        stop: Asked after each token; the batch ends where it says so, with what there is.
        images: See :func:`image_arguments`; empty where no prompt has any. The tokens that stand for images and films
            are not sampled then: whoever reads the response would look for more images than there are.

    Returns:
        One response per prompt, in order.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    device = next(model.parameters()).device
    ids, mask = (tensor.to(device) for tensor in left_padded(prompts, pad_token_id))
    limits = [settings.max_new_tokens] * len(prompts) if limits is None else limits
    seen = image_arguments(ids, images, model.config.image_token_id) if images else {}
    never = [model.config.image_token_id, model.config.video_token_id] if seen else None
    greedy = settings.temperature == 0
    sampling = {} if greedy else {"temperature": settings.temperature, "top_p": settings.top_p}
    if not greedy:
        sampling["top_k"] = max(settings.top_k, 0)
    config = GenerationConfig(
        do_sample=not greedy,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=None if settings.ignore_eos else sorted(stop_token_ids),
        pad_token_id=pad_token_id,
        return_dict_in_generate=True,
        output_scores=settings.logprobs,
        suppress_tokens=never,
        **sampling,
    )
    # transformers fills what is unset from the model's own defaults (Qwen2.5 brings a repetition penalty): the sampled
    # distribution would not be the one whose log-probabilities are reported.
    own_defaults, model.generation_config = model.generation_config, GenerationConfig(pad_token_id=pad_token_id)
    try:
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            **seen,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList(
                [_done(ids.shape[1], torch.tensor(list(limits), device=device), stop)]
            ),
        )
    finally:
        model.generation_config = own_defaults
    generated = output.sequences[:, ids.shape[1] :]
    log_probs = None
    if settings.logprobs:
        # (new tokens, batch, vocabulary) one step at a time: the whole would be large.
        steps = [
            torch.log_softmax(scores.float(), dim=-1).gather(1, generated[:, step : step + 1])
            for step, scores in enumerate(output.scores)
        ]
        log_probs = torch.cat(steps, dim=1)
    responses = []
    for row, limit in enumerate(limits):
        token_ids = generated[row, :limit].tolist()
        if not settings.ignore_eos:
            token_ids = _cut_after_stop(token_ids, stop_token_ids)
        row_log_probs = None if log_probs is None else log_probs[row, : len(token_ids)].tolist()
        aborted = not _is_whole(token_ids, limit, settings, stop_token_ids)
        responses.append(GeneratedResponse(token_ids, row_log_probs, aborted))
    return responses
