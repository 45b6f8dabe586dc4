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
"""Responses of a checkpoint to held-out prompts, under training's conventions of text.

Prompts are rendered and cut, and responses decoded, by :class:`gad_verl.data.tokens.SequenceBuilder`, as the training
does. Every response is on disk before the next batch begins; an interrupted run asks only for what is missing.
"""

import gc
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gad_verl.config import ThinkingConfig
from gad_verl.config.thinking import HIDDEN, NONE
from gad_verl.data.thinking import marks_of, thinking_switch
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import SequenceBuilder, stop_token_ids
from gad_verl.errors import GadConfigError
from gad_verl.tools.evaluation.engines import Engine, Job, resolve_engine
from gad_verl.tools.evaluation.responses import Response, ResponseFile, claim_folder
from gad_verl.tools.evaluation.rows import Row, digest
from gad_verl.tools.export.checkpoint import Checkpoint, load_tokenizer
from gad_verl.tools.export.prompt_options import PromptOptions, find_prompt_options
from gad_verl.tools.export.weights import export_part

if TYPE_CHECKING:
    from gad_verl.data.image_prompts import ImagePrompts
    from gad_verl.tools.evaluation.tool_turns import ToolTurns

logger = logging.getLogger(__name__)

# With the fingerprint of the weights: an export of another checkpoint must never be taken for this one.
_EXPORT = ".exported_{}"


@dataclass(frozen=True)
class GenerationSettings:
    """What decides the responses, apart from checkpoint and prompts.

    Args:
        max_prompt_length: Longer prompts lose tokens on the left.
        max_response_length: Tokens, the end-of-text token included.
        samples: Responses per prompt.
        temperature: 0 is greedy.
        top_p: Nucleus mass, 1.0 is off.
        top_k: Highest ranks kept, -1 is off.
        seed: Of the sampling.
        dtype: Precision to compute in, a name of torch.
        chat_template_kwargs: What the chat template is given, such as a switch for thinking; None takes what the
            student's training gave it (:mod:`gad_verl.tools.export.prompt_options`).
        thinking: "hidden" (of a response the answer alone is looked at), "none" (all of it), or None: as in the
            student's training.
        mm_processor_kwargs: How images are read, such as their largest size; None: as in the student's training.

    Raises:
        GadConfigError: If a value cannot work.
    """

    max_prompt_length: int = 2048
    max_response_length: int = 1536
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int = 0
    dtype: str = "float32"
    chat_template_kwargs: Mapping[str, Any] | None = None
    thinking: str | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("max_prompt_length", "max_response_length", "samples"):
            if getattr(self, name) < 1:
                raise GadConfigError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise GadConfigError(f"--temperature must be a number from 0; got {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise GadConfigError(f"--top-p must be above 0 and at most 1; got {self.top_p}")
        if self.thinking not in (None, NONE, HIDDEN):
            raise GadConfigError(f"--thinking must be {NONE} or {HIDDEN}; got {self.thinking!r}")
        if self.samples > 1 and self.temperature == 0:
            raise GadConfigError("--samples above 1 needs a --temperature above 0: greedy responses are all the same")


@dataclass(frozen=True)
class Compute:
    """How it is computed; does not decide the responses, but for rounding between engines.

    Args:
        engine: "auto", "vllm" or "hf".
        batch_size: Prompts at the same time; None takes 16 (hf) or 256 (vllm).
        tensor_parallel: GPUs per model, vLLM only.
        memory_share: Share of the GPU's memory that vLLM takes.
        trust_remote_code: Run code that lies in the checkpoint's folder.
        keep_export: Keep the Hugging Face folder made of verl's shards.
    """

    engine: str = "auto"
    batch_size: int | None = None
    tensor_parallel: int = 1
    memory_share: float = 0.9
    trust_remote_code: bool = False
    keep_export: bool = False


def build_sequences(
    checkpoint: Checkpoint, settings: GenerationSettings, trust_remote_code: bool = False
) -> SequenceBuilder:
    """Encoder and decoder of the checkpoint's tokenizer, which renders prompts as the training did.

    Args:
        checkpoint: The student.
        settings: What decides the responses.
        trust_remote_code: Run code that the tokenizer brings.

    Raises:
        GadCheckpointError: If there is no tokenizer.
        GadConfigError: If the tokenizer has no EOS or no chat template.
    """
    tokenizer = load_tokenizer(checkpoint.config_folder, trust_remote_code)
    given = settings.chat_template_kwargs
    options = find_prompt_options(checkpoint) if given is None else PromptOptions(given, None)
    builder = SequenceBuilder(
        tokenizer,
        settings.max_prompt_length,
        settings.max_response_length,
        stop_token_ids(tokenizer, _generation_config(checkpoint.config_folder)),
        dict(options.values),
    )
    if given is None and options.source is None and (switch := thinking_switch(builder)) is not None:
        logger.warning(
            "%s: nothing tells with which options of the chat template it was trained, so prompts let it think: name "
            "them with --chat-template-kwargs, such as '{\"%s\": false}'",
            checkpoint.path,
            switch,
        )
    return builder


def find_thoughts(
    checkpoint: Checkpoint, settings: GenerationSettings, builder: SequenceBuilder
) -> ThoughtReader | None:
    """Takes the checkpoint's responses apart where its thoughts are hidden; None where all of a response is looked at.

    Args:
        checkpoint: The student.
        settings: What decides the responses.
        builder: Of :func:`build_sequences`.
    """
    options = find_prompt_options(checkpoint)
    if settings.thinking == NONE or (settings.thinking is None and not options.hides_thoughts):
        return None
    known = {name: options.thinking.get(name) for name in ("open", "close")}
    marks = marks_of(ThinkingConfig(HIDDEN, **known), builder.tokenizer.chat_template)
    logger.info("%s: thoughts between %r and %r are hidden", checkpoint.path, marks.open, marks.close)
    return ThoughtReader(builder, marks)


def _generation_config(folder: Path) -> Any | None:
    from transformers import GenerationConfig

    return GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None


def generate(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    output: Path,
    settings: GenerationSettings,
    compute: Compute,
    builder: SequenceBuilder,
    data: dict[str, Any],
    thoughts: ThoughtReader | None = None,
    tools: "ToolTurns | None" = None,
    images: "ImagePrompts | None" = None,
) -> list[Response]:
    """All responses, sorted by prompt and sample, from ``output`` as far as they are there.

    Args:
        checkpoint: The student.
        rows: The prompts.
        output: Folder of ``responses.jsonl`` and ``settings.json``.
        settings: What decides the responses.
        compute: How to compute them.
        builder: Of :func:`build_sequences`.
        data: What is noted about the data file.
        thoughts: Of :func:`find_thoughts`.
        tools: Rolls trajectories with tools out; None asks for single answers.
        images: Reads the prompts of rows with images.

    Raises:
        GadConfigError: If ``output`` belongs to other settings, or the engine cannot run this.
        GadCheckpointError: If the checkpoint cannot be exported.
    """
    engine_name = resolve_engine(compute.engine, checkpoint.config_folder, images is not None)
    if images is not None:
        # Before the folder is there: it keeps to the settings that it was begun with.
        for number, row in enumerate(rows):
            if row.images:
                images.check(row.chat, _place(number))
    claim_folder(
        output,
        {
            "model": str(checkpoint.path),
            "weights": checkpoint.fingerprint(),
            **data,
            "prompts": len(rows),
            "rows": digest(rows),
            "engine": engine_name,
            **{name: value for name, value in asdict(settings).items() if name != "mm_processor_kwargs"}
            | {
                "chat_template_kwargs": builder.chat_template_kwargs,
                "thinking": None if thoughts is None else [thoughts.marks.open, thoughts.marks.close],
            }
            | ({} if images is None else {"mm_processor_kwargs": images.processor_kwargs})
            | ({} if tools is None else {"tools": tools.settings()}),
        },
    )
    with ResponseFile(output) as file:
        # Images are processed here for their tokens, and again with their batch: all pixels at once would be large.
        shown = tqdm(rows, desc="Reading prompts", unit="prompt", delay=2, disable=images is None)
        jobs = [
            Job(number, sample, ids, row.images)
            for number, row in enumerate(shown)
            if (left := [one for one in range(settings.samples) if (number, one) not in file.responses])
            for ids in [_prompt_ids(row, number, builder, images)]
            for sample in left
        ]
        if jobs:
            # Long prompts first: what does not fit the memory fails at once, and a batch holds similar lengths.
            jobs.sort(key=lambda job: -len(job.prompt_ids))
            folder = student_folder(checkpoint, output, compute.trust_remote_code)
            engine = _open_engine(engine_name, folder, settings, compute, builder, jobs, images)
            _run(engine, jobs, rows, file, builder, thoughts, tools)
            del engine
            # The model's memory is wanted back now: teacher, features and judge come next.
            gc.collect()
        if not compute.keep_export:
            remove_export(checkpoint, output)
        return [file.responses[key] for key in sorted(file.responses)]


def _prompt_ids(row: Row, number: int, builder: SequenceBuilder, images: "ImagePrompts | None") -> list[int]:
    if not row.images:
        return builder.prompt(row.messages)
    assert images is not None, "evaluate opens a reader for rows with images"
    return images.read(row.chat, _place(number))[0]


def _place(number: int) -> str:
    return f"row {number} of the data"


def student_folder(checkpoint: Checkpoint, output: Path, trust_remote_code: bool = False) -> Path:
    """A Hugging Face folder of the student: its own, or one that is exported into ``output``.

    Args:
        checkpoint: The student.
        output: Of the evaluation.
        trust_remote_code: Run code that lies in the checkpoint's folder.

    Raises:
        GadCheckpointError: If the checkpoint cannot be exported.
    """
    if not checkpoint.is_verl:
        return checkpoint.folder
    folder = _export(checkpoint, output)
    # One that an interrupted run left there is whole, and of the same weights.
    if not folder.is_dir():
        export_part(checkpoint.path, "student", folder, trust_remote_code=trust_remote_code)
    return folder


def remove_export(checkpoint: Checkpoint, output: Path) -> None:
    """Remove what :func:`student_folder` has exported."""
    if checkpoint.is_verl:
        shutil.rmtree(_export(checkpoint, output), ignore_errors=True)


def _export(checkpoint: Checkpoint, output: Path) -> Path:
    return output / _EXPORT.format(checkpoint.fingerprint())


def _open_engine(
    name: str,
    folder: Path,
    settings: GenerationSettings,
    compute: Compute,
    builder: SequenceBuilder,
    jobs: list[Job],
    images: "ImagePrompts | None",
) -> Engine:
    from gad_verl.tools.evaluation import engines

    positions = max(len(job.prompt_ids) for job in jobs) + settings.max_response_length
    engines.check_positions(folder, positions)
    if name == "vllm":
        return engines.VLLMEngine(folder, settings, compute, builder, positions)
    return engines.HFEngine(folder, settings, compute, builder, images)


def _run(
    engine: Engine,
    jobs: list[Job],
    rows: Sequence[Row],
    file: ResponseFile,
    builder: SequenceBuilder,
    thoughts: ThoughtReader | None,
    tools: "ToolTurns | None",
) -> None:
    done = len(file.responses)
    with tqdm(total=done + len(jobs), initial=done, desc="Generating", unit="response") as bar:
        for job, token_ids in engine.run(jobs) if tools is None else tools.run(engine, jobs, rows):
            read = None if thoughts is None else thoughts.read(job.prompt_ids, token_ids)
            answer_ids = token_ids if read is None else read.answer_ids
            text, finished = ("", False) if answer_ids is None else builder.student_text(answer_ids)
            unfinished, counts = "thoughts" if answer_ids is None else "length", dict[str, int]()
            if tools is not None:
                turns = tools.read(job, token_ids)
                text, finished = turns.text, turns.finished
                counts = {"turns": turns.turns, "calls": turns.calls, "invalid_calls": turns.invalid_calls}
            file.append(
                Response(
                    prompt=job.prompt,
                    sample=job.sample,
                    prompt_id=rows[job.prompt].prompt_id,
                    # Half of a surrogate pair is no text that UTF-8 could hold.
                    text=text.encode("utf-8", "replace").decode("utf-8"),
                    finish_reason="stop" if finished else unfinished,
                    prompt_tokens=len(job.prompt_ids),
                    response_tokens=len(token_ids),
                    token_ids=token_ids,
                    thought_tokens=None if read is None else read.num_thoughts,
                    **counts,
                )
            )
            bar.update()
