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
"""The server of the rollout "hf" on a device (a part of device_probe.py): answers, memory, new weights."""

import asyncio
from typing import Any

import torch

PROMPTS = [[7, 8, 9], [40], [1, 2, 3, 4, 5, 6]]
LENGTH = 12


def _server(folder: str, dtype: str) -> Any:
    from verl.workers.config import HFModelConfig, RolloutConfig

    from gad_verl.rollout.hf_server import HFServer

    sizes = {"prompt_length": 16, "response_length": LENGTH, "max_num_seqs": 8, "ignore_eos": True}
    rollout = RolloutConfig(name="hf", dtype=dtype, free_cache_engine=True, **sizes)
    return HFServer(rollout, HFModelConfig(path=folder), 0)


def _held(device: str) -> float:
    return float(torch.cuda.memory_allocated()) if device == "cuda" else 0.0


def _moved(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Other weights of the same names, on the host, as the training sends them."""
    generator = torch.Generator().manual_seed(1)
    sent = []
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        sent.append((name, tensor.cpu().float() + 0.05 * noise))
    return sent


def _log_probs(folder: str, weights: list[tuple[str, torch.Tensor]], answers: list[list[int]]) -> list[torch.Tensor]:
    """Of each answer's tokens, in float64 on the host, by one forward pass over prompt and answer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
    model.load_state_dict({name: tensor.double() for name, tensor in weights}, strict=False)
    found = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=ids).logits[0, len(prompt) - 1 : -1], dim=-1)
        found.append(scores.gather(1, torch.tensor(answer)[:, None]).squeeze(1).float())
    return found


def rollout_part(folder: str, device: str) -> dict[str, Any]:
    """Answers with their log-probabilities in both precisions, asleep and awake, with the student's new weights."""
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        before = _held(device)
        server = _server(folder, dtype)
        sent = _moved(server.model)

        async def answers(server: Any = server) -> list[Any]:
            settings = {"temperature": 0.0, "logprobs": True}
            return await asyncio.gather(*[server.generate(prompt, settings, "r") for prompt in PROMPTS])

        async def scenario(server: Any = server, sent: Any = sent, answers: Any = answers) -> dict[str, Any]:
            own = await answers()
            awake = _held(device)
            # As in a run: the training takes the memory, then the weights come, then it is asked.
            await server.sleep()
            asleep = _held(device)
            await server.wake_up(["weights"])
            unknown = await server.load_weights(sent)
            await server.wake_up(["kv_cache"])
            then = await answers()
            return {"own": own, "then": then, "held": (awake, asleep), "unknown": unknown}

        seen = asyncio.run(scenario())
        then = [answer.token_ids for answer in seen["then"]]
        rounded = [(name, tensor.to(getattr(torch, dtype))) for name, tensor in sent]
        found[dtype] = {
            "device": next(server.model.parameters()).device.type,
            "unknown": seen["unknown"],
            "held": [held - before for held in seen["held"]],
            "own": [answer.token_ids for answer in seen["own"]],
            "then": then,
            "log_probs": [torch.tensor(answer.log_probs) for answer in seen["then"]],
            "wanted": _log_probs(folder, rounded, then),
        }
        del server
    return found
