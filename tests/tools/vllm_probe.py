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
"""vLLM as the rollout of a family, outside of Ray: weights by the names that verl sends, log-probabilities compared.

``measure`` starts a process for vLLM (``python vllm_probe.py FOLDER SENT REPLY``): it opens process groups and patches.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_families import Family, build_family
from transformers import AutoConfig

from gad_verl.discriminator.family_limits import needs_bfloat16

# Of log-probabilities, by the arithmetic of vLLM. Other weights of the same size are apart by 0.2 and more.
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
NEW_TOKENS = 8
# vLLM on a CPU computes heads of at least 32 values (linear attention: 128), experts of a multiple of 32.
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
# Stands in for torchvision where it is not installed: vLLM's files of families with images import it, and nothing here
# shows them an image. A package in a folder, for vLLM looks at a class in a process of its own.
_NO_IMAGES = """
import importlib.abc, importlib.machinery, sys
from unittest.mock import MagicMock
__version__ = "0.0"
class Anything(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, *_):
        if name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return MagicMock(name=spec.name, __spec__=spec, __path__=[], __name__=spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.append(Anything())
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock(name=name)
"""
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [200, 3, 77, 150, 12], list(range(20, 60))]


def build_vllm_family(family: Family, folder: Path, seed: int) -> Path:
    """A tiny model in sizes that vLLM computes on a CPU."""
    from dataclasses import replace

    wider = {"head_dim": 32, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    linear = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}

    def widened(settings: dict[str, Any]) -> dict[str, Any]:
        return settings | SIZES | {name: size for name, size in (wider | linear).items() if name in settings}

    if family.model_type == "gpt_oss":
        # It is computed in bfloat16, where another choice of experts would hide what is asked: all of them are chosen.
        wider["num_experts_per_tok"] = 4
    if family.text is None:
        return build_family(replace(family, settings=widened(family.settings)), folder, seed)
    vision = family.settings["vision_config"] | {"out_hidden_size": SIZES["hidden_size"]}
    settings = family.settings | {"vision_config": vision}
    return build_family(replace(family, settings=settings, text=widened(family.text)), folder, seed)


def sent_weights(folder: Path) -> list[tuple[str, torch.Tensor]]:
    """What the engine of a student sends to its rollout, as :class:`gad_verl.workers.student.StudentWorker` has it."""
    from family_probe import build_student

    from gad_verl.preflight.family_check import student_overrides
    from gad_verl.workers.rollout_names import send_names_of_files

    overrides = student_overrides(AutoConfig.from_pretrained(folder), "sdpa")
    worker = build_student(folder, override_config=overrides)
    send_names_of_files(worker.engine)
    weights, _ = worker.engine.get_per_tensor_param()
    return [(name, weight.detach().clone()) for name, weight in weights]


def expected_values(folder: Path, dtype: str) -> dict[str, Any]:
    """Log-probabilities of the prompts' tokens, and of greedy answers, by plain transformers."""
    from family_probe import plain_model

    # In bfloat16 a token's experts are chosen otherwise where two are nearly as good: the reference rounds, too.
    model = plain_model(folder).to(getattr(torch, dtype))
    rows, of_prompts, of_answers = [], [], []
    with torch.no_grad():
        for prompt in PROMPTS:
            row = list(prompt)
            for _ in range(NEW_TOKENS):
                logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()
                row.append(int(logits[-1].argmax()))
            values = torch.log_softmax(model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float(), -1)
            found = [float(values[place - 1, row[place]]) for place in range(1, len(row))]
            rows.append(row[len(prompt) :])
            of_prompts.append(found[: len(prompt) - 1])
            of_answers.append(found[len(prompt) - 1 :])
    return {"answers": rows, "prompts": of_prompts, "values": of_answers}


def measure(folders: list[Path], sent: list[list[tuple[str, torch.Tensor]]], scratch: Path, timeout_s: float) -> str:
    """Whether vLLM follows a student through its updates.

    Args:
        folders: The student as it is loaded, and after each update; sizes are the same.
        sent: The weights of each.
        scratch: A folder.
        timeout_s: Of vLLM's process.
    """
    dtype = "bfloat16" if needs_bfloat16(AutoConfig.from_pretrained(folders[0])) else "float32"
    expected = [expected_values(folder, dtype) for folder in folders]
    torch.save(sent, scratch / "sent.pt")
    command = [sys.executable, __file__, *map(str, (folders[0], scratch / "sent.pt", scratch / "reply.json")), dtype]
    environment = {**os.environ}
    if importlib.util.find_spec("torchvision") is None:
        (scratch / "stand_in" / "torchvision").mkdir(parents=True)
        (scratch / "stand_in" / "torchvision" / "__init__.py").write_text(_NO_IMAGES)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(scratch / "stand_in"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        (scratch / "log").write_text(done.stderr)
        found = [line for line in done.stderr.splitlines() if re.match(r"(\[rank0\]:)?\s*[\w.]*Error\b", line)]
        return f"fails: {' '.join(found[-1:])[:300]}"
    worst = 0.0
    for number, (ours, theirs) in enumerate(
        zip(json.loads((scratch / "reply.json").read_text()), expected, strict=True)
    ):
        for part in ("prompts", "values"):
            for found, values in zip(ours[part], theirs[part], strict=True):
                # Rounded, the best token may be another one.
                if part == "prompts" or ours["answers"] == theirs["answers"]:
                    worst = max(worst, (torch.tensor(found) - torch.tensor(values)).abs().max().item())
        if worst > TOLERANCES[dtype]:
            return f"fails: log-probabilities differ by {worst:.1e} after update {number}"
        if dtype == "float32" and ours["answers"] != theirs["answers"]:
            return f"fails: other greedy tokens after update {number}"
    return "yes" if dtype == "float32" else f"yes, in {dtype}"


class StandInReceiver:
    """Gives the extension the weights that would come from another process."""

    weights: list[tuple[str, torch.Tensor]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def receive_weights(self, on_bucket_received: Any) -> None:
        """In buckets of a few."""
        size = 7
        for start in range(0, len(self.weights), size):
            on_bucket_received(self.weights[start : start + size], start + size >= len(self.weights))


def generate(llm: Any) -> dict[str, Any]:
    """Greedy answers to the prompts, with log-probabilities."""
    from vllm import SamplingParams

    options = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=0, prompt_logprobs=0)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], options, use_tqdm=False)
    found: dict[str, Any] = {"answers": [], "prompts": [], "values": []}
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        answer = output.outputs[0]
        found["answers"].append(list(answer.token_ids))
        found["values"].append(
            [entry[token].logprob for entry, token in zip(answer.logprobs, answer.token_ids, strict=True)]
        )
        pairs = zip(output.prompt_logprobs[1:], prompt[1:], strict=True)
        found["prompts"].append([entry[token].logprob for entry, token in pairs])
    return found


def main(folder: str, sent: str, reply: str, dtype: str) -> None:
    """In a process of its own: dummy weights, as verl starts vLLM; then an update and answers for each set."""
    os.environ |= {
        "VERL_PLATFORM": "cpu",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    from gad_verl.cpu.vllm_cpu import alias_vllm_version

    alias_vllm_version()
    from vllm import LLM

    nested = "text_config" in json.loads((Path(folder) / "config.json").read_text())
    llm = LLM(
        folder,
        dtype=dtype,
        load_format="dummy",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=8,
        worker_extension_cls="gad_verl.cpu.vllm_cpu_extension.CpuWorkerExtension",
        # Texts alone: no processor of images is asked for.
        **({"language_model_only": True} if nested else {}),
    )
    from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer

    bucketed_weight_transfer.BucketedWeightReceiver = StandInReceiver  # type: ignore[misc]
    found = []
    for weights in torch.load(sent):
        StandInReceiver.weights = weights
        llm.collective_rpc("update_weights_from_ipc", kwargs={"use_shm": True})
        llm.reset_prefix_cache()
        found.append(generate(llm))
    Path(reply).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # a library of vLLM's prints pages about its own leaks at a normal end


if __name__ == "__main__":
    main(*sys.argv[1:])
