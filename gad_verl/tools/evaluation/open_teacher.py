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
"""An open model in the place of the black-box teacher: what it is asked, and whether it can be compared token by token.

Everything that can be refused is refused here, before any model is loaded.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadCheckpointError, GadConfigError, GadDataError
from gad_verl.tools.evaluation.engines import check_positions, read_config
from gad_verl.tools.evaluation.generation import GenerationSettings, build_sequences
from gad_verl.tools.evaluation.rows import Row
from gad_verl.tools.evaluation.scores import STUDENT, TEACHER
from gad_verl.tools.export.checkpoint import Checkpoint, find_checkpoint

Messages = tuple[dict[str, str], ...]

# An API does not cut what it is asked, and a text is to be read to its end.
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class TeacherOptions:
    """An open teacher as the user names it.

    Args:
        model: Hugging Face folder.
        context: File of what the teacher alone is told (:func:`read_context`); None for nothing.
        temperature: At which its texts were sampled.
        scratch_gib: Space on the disk for the logits of the first model.

    Raises:
        GadConfigError: If a value cannot work.
    """

    model: Path
    context: Path | None = None
    temperature: float = 1.0
    scratch_gib: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise GadConfigError(
                f"--teacher-temperature must be above 0; got {self.temperature}: a greedy teacher has no distribution"
            )
        if not 0 < self.scratch_gib < math.inf:
            raise GadConfigError(f"--teacher-scratch must be above 0 GiB; got {self.scratch_gib}")


@dataclass(frozen=True)
class Reader:
    """What one of the two models reads, and how.

    Args:
        builder: Of its tokenizer, without limits.
        prompts: Token ids of each row's prompt.
        temperature: By which its logits are divided.
        width: So many columns of its logits are tokens; the others pad.
        ends: Tokens that end an answer, all of them below ``width``.
    """

    builder: SequenceBuilder
    prompts: Sequence[list[int]]
    temperature: float
    width: int
    ends: tuple[int, ...]


@dataclass(frozen=True)
class OpenTeacher:
    """A teacher beside a student, checked.

    Args:
        options: What the user said.
        folder: Of its weights.
        exact: Whether both have one vocabulary, so that each token can be compared. Both readers have the same columns
            and the same ends then.
        readers: Of student and teacher.
        settings: What decides the figures, besides the responses.
    """

    options: TeacherOptions
    folder: Path
    exact: bool
    readers: Mapping[str, Reader]
    settings: Mapping[str, Any]


def open_teacher(
    options: TeacherOptions,
    student: Checkpoint,
    builder: SequenceBuilder,
    rows: Sequence[Row],
    settings: GenerationSettings,
    trust_remote_code: bool = False,
) -> OpenTeacher:
    """Check everything and render what the teacher is asked. No model is loaded.

    Args:
        options: The teacher.
        student: Whom it is compared with.
        builder: The student's (:func:`gad_verl.tools.evaluation.generation.build_sequences`).
        rows: The prompts with the teacher's texts.
        settings: Of the student's responses.
        trust_remote_code: Run code that the tokenizers bring.

    Raises:
        GadConfigError: If the responses are no samples of the student's distribution, or a file, a template or a length
            does not fit.
        GadCheckpointError: If the folder has no language model or no tokenizer.
        GadDataError: If the context cannot be read.
    """
    _check_sampling(settings)
    folder = options.model.expanduser()
    if not (folder / "config.json").is_file():
        raise GadConfigError(f"--teacher-model {folder}: no Hugging Face folder (it has no config.json)")
    teacher = find_checkpoint(folder)
    _check_language_model(folder)
    context = read_context(options.context) if options.context is not None else ()
    unlimited = replace(settings, max_prompt_length=_NO_LIMIT, max_response_length=_NO_LIMIT)
    # What the student's template is given is not the teacher's business: it has a template of its own.
    teachers = replace(unlimited, chat_template_kwargs=None)
    builders = (
        build_sequences(student, unlimited, trust_remote_code),
        build_sequences(teacher, teachers, trust_remote_code),
    )
    asked = _teacher_prompts(builders[1], rows, context, folder)
    exact = same_vocabulary(*(builder.tokenizer for builder in builders), [row.teacher for row in rows])
    longest = settings.max_response_length
    if not exact:
        # The student's answers are counted in the teacher's tokens once they are there.
        longest = max(len(builders[1].response(row.teacher, row.teacher_finished).token_ids) for row in rows)
    check_positions(folder, max(map(len, asked)) + longest, "--teacher-model")
    widths = [_width(builder, place) for builder, place in zip(builders, (student.config_folder, folder), strict=True)]
    stops = [builder.stop_ids for builder in builders]
    if exact:
        # An answer is over at a token that ends it for one of the two: until there both can write it.
        widths, stops = [min(widths)] * 2, [stops[0] | stops[1]] * 2
    prompts = [builder.prompt(row.messages) for row in rows], asked
    temperatures = settings.temperature, options.temperature
    ends = [tuple(sorted(token for token in own if token < width)) for own, width in zip(stops, widths, strict=True)]
    readers = map(Reader, builders, prompts, temperatures, widths, ends)
    decisive = {
        "teacher": str(folder),
        "weights": teacher.fingerprint(),
        "context": hashlib.sha256(json.dumps(context).encode()).hexdigest()[:16] if context else None,
        "temperature": options.temperature,
        "exact": exact,
        "student": student.fingerprint(),
        "student_temperature": settings.temperature,
        "dtype": settings.dtype,
    }
    return OpenTeacher(options, folder, exact, dict(zip((STUDENT, TEACHER), readers, strict=True)), decisive)


def read_context(file: Path) -> Messages:
    """What the teacher alone is told: a text is its system message, a ``.json`` file a list of chat messages.

    Of a list, the system message stands first if there is one; the others are examples that stand before the prompt.

    Raises:
        GadDataError: If the file is missing, empty or of another form.
    """
    file = file.expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise GadDataError(f"--teacher-context {file} cannot be read: {reason}") from None
    if not text:
        raise GadDataError(f"--teacher-context {file} is empty: write the teacher's system message into it")
    if file.suffix != ".json":
        return ({"role": "system", "content": text},)
    try:
        messages = [{"role": message["role"], "content": message["content"]} for message in json.loads(text)]
        fits = messages and all(isinstance(part, str) for message in messages for part in message.values())
        fits = fits and all(message["role"] != "system" for message in messages[1:])
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise GadDataError(
            f"--teacher-context {file}: expected a JSON list of messages with role and content, a system message first"
        )
    return tuple(messages)


def framed(messages: Sequence[dict[str, str]], context: Messages) -> Messages:
    """The chat that the teacher is asked; a chat with a system message keeps it, as in ``gad-verl teacher collect``."""
    head, rest = tuple(context[:1]), tuple(messages)
    if not head or head[0]["role"] != "system":
        head = ()
    examples = context[len(head) :]
    if rest[0]["role"] == "system":
        head, rest = rest[:1], rest[1:]
    return (*head, *examples, *rest)


def same_vocabulary(student: Any, teacher: Any, texts: Sequence[str]) -> bool:
    """Whether two tokenizers have the same tokens under the same ids and cut the texts in the same way."""
    if student.get_vocab() != teacher.get_vocab():
        return False
    encoded = [tokenizer(list(texts), add_special_tokens=False)["input_ids"] for tokenizer in (student, teacher)]
    return encoded[0] == encoded[1]


def _check_sampling(settings: GenerationSettings) -> None:
    if settings.temperature == 0:
        raise GadConfigError(
            "--teacher-model compares distributions, and greedy answers are no sample of one: add --temperature 1 "
            "(and --samples), with an --output of its own"
        )
    if settings.top_p != 1 or settings.top_k > 0:
        raise GadConfigError(
            "--teacher-model needs answers from the student's whole distribution: --top-p 1 and --top-k -1, with an "
            "--output of its own"
        )


def _check_language_model(folder: Path) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    read_config(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        # The folder brings its own code; only running it could tell more.
        return
    try:
        known = type(AutoConfig.from_pretrained(folder)) in MODEL_FOR_CAUSAL_LM_MAPPING
    except Exception as error:  # of many kinds; all of them say what is wrong with the file
        message = " ".join(str(error).split())[:300]
        raise GadCheckpointError(f"--teacher-model {folder}: its config.json cannot be used: {message}") from None
    if not known:
        raise GadCheckpointError(f"--teacher-model {folder} is no language model that predicts the next token")


def _teacher_prompts(builder: SequenceBuilder, rows: Sequence[Row], context: Messages, folder: Path) -> list[list[int]]:
    asked = [framed(row.messages, context) for row in rows]
    if context and all(chat == row.messages for chat, row in zip(asked, rows, strict=True)):
        raise GadConfigError(
            "--teacher-context would reach no prompt: every chat has a system message of its own, which it keeps"
        )
    try:
        return [builder.prompt(chat) for chat in asked]
    except GadDataError as error:
        # The template's own words: it may refuse a role, or an order of roles.
        raise GadConfigError(f"--teacher-model {folder}: {error}") from None


def _width(builder: SequenceBuilder, folder: Path) -> int:
    """Tokens that the tokenizer has and the model can give; what is beyond pads one of them."""
    tokens = max(builder.tokenizer.get_vocab().values()) + 1
    return min(tokens, int(read_config(folder).get("vocab_size") or tokens))
