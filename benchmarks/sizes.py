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
"""The discriminator's update at the sizes of real students: schemes A, B, C, and prompts that a group shares.

python benchmarks/sizes.py schemes 0.5b            # writes results/gpu_schemes_0.5b.json on a GPU
python benchmarks/sizes.py sharing 0.5b            # on torch's attention, and on flash attention where it is

Random weights in the shapes of Qwen2.5 (and "tiny", which shows on a CPU that it runs), with gradient checkpointing.
Scheme A scores the n responses in a pass of their own and reads the teacher's text n times; C is gad_verl.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import Ratio, alternate, machine, one_rank, peak_bytes, result_file, write
from device import this_device
from schemes import Schemes, Shape, build_worker, random_groups

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    | {"intermediate_size": 128, "vocab_size": 512},
    "0.5b": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    | {"intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True},
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
    | {"intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True},
    "7b": {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    | {"intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False},
}
LARGE = "7b"
COLUMNS = {
    "schemes": {
        "ragged": "ragged lengths",
        "time_c_over_a": "time C / A",
        "time_b_over_a": "time B / A",
        "memory_c_over_a": "peak memory C / A",
        "tokens_per_second_c": "tokens a second, C",
    },
    "sharing": {
        "prompt": "prompt tokens",
        "time_shared_over_apart": "time shared / apart, both sdpa",
        "memory_shared_over_apart": "peak memory shared / apart",
        "time_flash_shared_over_flash": "time shared / apart, both flash attention",
        "memory_flash_shared_over_flash": "peak memory",
    },
}
ROLLOUTS = 8


def build_random(size: str, folder: Path) -> Path:
    """A random Qwen2 in bfloat16 with the byte tokenizer of the tests; one that is there is kept."""
    from tiny_model import build_tokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if (folder / "config.json").exists():
        return folder
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    shape = {"max_position_embeddings": 32768, **SIZES[size]}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    # Drawn where it is fast, and gone from there before anything is measured.
    with torch.device(this_device().name):
        model = Qwen2ForCausalLM._from_config(Qwen2Config(**shape, **ends), dtype=torch.bfloat16)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    if this_device().is_gpu:
        torch.cuda.empty_cache()
    return folder


def worker_of(given: argparse.Namespace, folder: Path, share: str, attention: str) -> Any:
    """The discriminator's worker; of the largest size, Adam's moments do not fit beside it on one card."""
    large = {"optimizer": "SGD", "model_dtype": "bf16"} if given.size == LARGE else {}
    packed = attention.startswith("flash_attention")
    return build_worker(folder, True, packed, share_prompt=share, attention=attention, max_tokens=given.tokens, **large)


def measure(calls: dict[str, Any], repeats: int, name: str) -> dict[str, dict[str, Any]]:
    """Seconds of each repeat, in turns, and the peak memory of one more call."""
    seconds = alternate(calls, repeats, name)
    return {key: {"seconds": seconds[key], "peak_gib": peak_bytes(call) / 2**30} for key, call in calls.items()}


def over(found: dict[str, dict[str, Any]], above: str, below: str) -> dict[str, Any]:
    """Time and memory of one over those of another."""
    return {
        f"time_{above}_over_{below}": Ratio.of(found[above]["seconds"], found[below]["seconds"]),
        f"memory_{above}_over_{below}": found[above]["peak_gib"] / max(found[below]["peak_gib"], 1e-9),
    }


def schemes(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A, B and C on equal and on ragged lengths."""
    worker = worker_of(given, folder, "never", this_device().attention)
    rows = []
    for ragged in (False, True):
        shape = Shape(given.prompts, ROLLOUTS, given.prompt[0], given.response, given.response)
        groups = random_groups(shape, ragged=ragged)
        made = Schemes(worker, groups)
        # Both before an update, which moves the scores.
        difference = (made.score_rollouts() - made.c()[0]).abs().max().item()
        found = measure({"a": made.a, "b": made.b, "c": made.c}, given.repeats, f"{given.size} ragged={ragged}")
        tokens = sum(len(row) for group in groups for row in group.rows())
        seconds = sorted(found["c"]["seconds"])[given.repeats // 2]
        rows.append(
            {"ragged": ragged, **over(found, "c", "a"), **over(found, "b", "a")}
            | {"tokens_per_second_c": tokens / seconds, "rewards_differ_by": difference, "measured": found}
        )
    return rows


def sharing(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Shared prompts against rows apart, on torch's attention and on flash attention where it is."""
    variants = {"shared": ("always", "sdpa"), "apart": ("never", "sdpa")}
    if this_device().packs_rows:
        variants |= {"flash_shared": ("always", this_device().attention), "flash": ("never", this_device().attention)}
    workers = {name: worker_of(given, folder, *variant) for name, variant in variants.items()}
    rows = []
    for prompt in given.prompt:
        shape = Shape(given.prompts, ROLLOUTS, prompt, given.response, given.response)
        groups = random_groups(shape, ragged=True)
        calls = {name: Schemes(worker, groups).c for name, worker in workers.items()}
        found = measure(calls, given.repeats, f"{given.size} prompt={prompt}")
        row: dict[str, Any] = {"prompt": prompt, **over(found, "shared", "apart")}
        flash = ("time_flash_shared_over_flash", "memory_flash_shared_over_flash")
        row |= over(found, "flash_shared", "flash") if "flash" in found else dict.fromkeys(flash, "no flash attention")
        rows.append(row | {"measured": found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("schemes", "sharing"))
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt", type=int, nargs="+", help="tokens of a prompt (default: 256; sharing: up to 2048)")
    parser.add_argument("--response", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32768, help="of a micro-batch")
    parser.add_argument("--repeats", type=int, default=5, help="alternating repeats (default: 5)")
    parser.add_argument("--models", type=Path, help="folder in which the random models stay (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    given.prompt = given.prompt or ([256] if given.what == "schemes" else [256, 1024, 2048])
    with tempfile.TemporaryDirectory() as temporary, one_rank(threads=torch.get_num_threads()):
        folder = build_random(given.size, (given.models or Path(temporary)) / f"qwen2_{given.size}")
        rows = {"schemes": schemes, "sharing": sharing}[given.what](given, folder)
    settings = {"size": given.size, "rollouts": ROLLOUTS, "prompts": given.prompts, "response": given.response}
    settings |= {"tokens_of_a_micro_batch": given.tokens, "repeats": given.repeats}
    write(
        given.output or result_file(f"{given.what}_{given.size}.json"),
        rows,
        settings | machine(torch.get_num_threads()),
    )
    for row in rows:
        shown = {key: str(value) for key, value in row.items() if key != "measured"}
        sys.stdout.write(f"{given.what} {given.size} {this_device().attention}: {json.dumps(shown)}\n")


if __name__ == "__main__":
    main()
