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
"""An open teacher that plays a black box in ``teacher_language.py``, and how far a student is from it.

The teacher is told a hidden context; its texts are samples at temperature 1 and all that the training sees. The judging
also looks at its probabilities: next token by next token where both models have one vocabulary, else those of texts.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_model import Ids, answer_logits, pack, read_prefix
from torch import Tensor

from gad_verl.core.divergence import one_end, token_kl, token_log_probabilities
from gad_verl.data.tokens import Messages, SequenceBuilder, stop_token_ids
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.tools.evaluation.open_teacher import framed, same_vocabulary

MAX_CONTEXT = 4096
# For a base model: each text on a line of its own, so that its tokens are the same as without anything before it.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Q: ' + message['content'] + '\nA:\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)


class Ended:
    """A model whose answers are over at any of some tokens, which are one to it.

    It has what ``lm_model.sample`` and ``answer_logits`` ask of a model.

    Args:
        module: A language model.
        ends: The first one stands for all of them.
        width: Tokens of the vocabulary; what is beyond pads the output layer.
        temperature: Of its answers, which divides the logits.
    """

    def __init__(self, module: Any, ends: Sequence[int], width: int, temperature: float = 1.0) -> None:
        self.module, self.ends, self.width, self.temperature = module, tuple(ends), width, temperature
        self.config, self.base_model, self.parameters = module.config, module.base_model, module.parameters

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]:
        """The output layer."""
        head = self.module.get_output_embeddings()
        return lambda hidden: one_end(head(hidden)[..., : self.width].float() / self.temperature, self.ends)


class Teacher:
    """An open model and its hidden context.

    Args:
        folder: Of the model, with its tokenizer. One without a chat template is asked in :data:`PLAIN_TEMPLATE` and
            has answered at the end of a line.
        student: Its tokenizer.
        context: A system message and examples, which the student is not told.
        questions: All that it will be asked.
        limit: Tokens of an answer.
        dtype: Of the weights.

    Raises:
        GadConfigError: If a prompt is too long, or the model has no output layer to look at.
    """

    def __init__(
        self,
        folder: Path,
        student: SequenceBuilder,
        context: Messages,
        questions: Sequence[str],
        limit: int,
        dtype: torch.dtype,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        plain = not tokenizer.chat_template
        if plain:
            tokenizer.chat_template = PLAIN_TEMPLATE
        texts = [*questions, *(message["content"] for message in context)]
        self.exact = same_vocabulary(student.tokenizer, tokenizer, texts)
        own = {*stop_token_ids(tokenizer, module.generation_config), *_turn_end(tokenizer)}
        own |= set(_with_newline(tokenizer)) if plain else set()
        students = {student.eos_token_id, *(_with_newline(student.tokenizer) if plain else ())}
        widths = _width(module, tokenizer), len(student.tokenizer)
        if self.exact:
            # An answer is over at a token that ends it for one of the two: until there both can write it.
            own, students, widths = own | students, own | students, (min(widths),) * 2
        self.end = student.eos_token_id if self.exact else int(tokenizer.eos_token_id)
        self._student_ends, self._student_width = _first(student.eos_token_id, students, widths[1]), widths[1]
        self.model = Ended(module, _first(self.end, own, widths[0]), widths[0])
        self.builder = SequenceBuilder(tokenizer, MAX_CONTEXT, limit, frozenset({self.end}))
        _check_logits(module, folder)
        asked = [self.builder.prompt(framed([{"role": "user", "content": text}], context)) for text in questions]
        longest = max(map(len, asked))
        if longest >= MAX_CONTEXT:
            raise GadConfigError(f"{folder}: a prompt with its context has {longest} tokens; at most {MAX_CONTEXT - 1}")
        # Read once for all of them; something has to be left of each.
        common = os.path.commonprefix([prompt[:-1] for prompt in asked])
        self.prefix = read_prefix(self.model, common) if common else None
        self._asked = {text: prompt[len(common) :] for text, prompt in zip(questions, asked, strict=True)}

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """What is asked, behind the prefix."""
        return [self._asked[text] for text in questions]

    def student(self, module: Any, temperature: float = 1.0) -> Ended:
        """A student whose answers end where the teacher's do."""
        return Ended(module, self._student_ends, self._student_width, temperature)

    def reading(self, text: str, finished: bool) -> list[int]:
        """A text in the teacher's own tokens; a token stands for one without any."""
        return self.builder.response(text, finished, MAX_CONTEXT).token_ids or [self.end]


def _turn_end(tokenizer: Any) -> set[int]:
    """The special token behind an answer in the chat template: not every folder names it among those that end one."""
    answer = "Aha"
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
    behind = tokenizer.apply_chat_template(chat, tokenize=False).rpartition(answer)[2]
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return set(ids[:1]) & {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _with_newline(tokenizer: Any) -> list[int]:
    return [number for number in tokenizer.get_vocab().values() if "\n" in tokenizer.decode([number])]


def _width(module: Any, tokenizer: Any) -> int:
    return min(max(tokenizer.get_vocab().values()) + 1, module.get_output_embeddings().weight.shape[0])


def _first(end: int, ends: set[int], width: int) -> list[int]:
    return [end, *sorted(token for token in ends - {end} if token < width)]


@torch.no_grad()
def _check_logits(module: Any, folder: Path) -> None:
    """Some models scale or cap what their output layer gives, which :class:`Ended` does not."""
    ids = torch.tensor([[1, 2, 3]])
    hidden = module.base_model(input_ids=ids, use_cache=False).last_hidden_state
    expected, found = module(input_ids=ids, use_cache=False).logits, module.get_output_embeddings()(hidden)
    if not torch.allclose(expected.float(), found.float(), atol=1e-2, rtol=1e-2):
        raise GadConfigError(f"{folder}: its logits are not those of its output layer; take another model as teacher")


@torch.no_grad()
def divergences(
    teacher: Teacher,
    student: Ended,
    students: SequenceBuilder,
    asked: tuple[Sequence[Ids], Sequence[Ids]],
    answers: tuple[Sequence[Sequence[Ids]], Sequence[Sequence[Ids]]],
    batch: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """KL(S, T) over the student's answers and KL(T, S) over the teacher's, in nats an answer.

    Args:
        teacher: With its context.
        student: See :meth:`Teacher.student`.
        students: Has the student's tokenizer.
        asked: P prompts in the student's tokens, and what the teacher is asked (:meth:`Teacher.prompts`).
        answers: Of the student and of the teacher, each in its own tokens, to each of the P prompts.
        batch: Prompts at a time.

    Returns:
        (P,) each, means over the answers to a prompt. Where vocabularies differ a text's difference of
        log-probabilities stands for the sum of its tokens' divergences: the same mean, more noise, maybe negative.

    Raises:
        GadCheckpointError: If one of them is not finite.
    """
    found = []
    for begin in range(0, len(asked[0]), batch):
        part = slice(begin, begin + batch)
        own, taught = answers[0][part], answers[1][part]
        mine = [[*some, *others] for some, others in zip(own, taught, strict=True)]
        theirs = mine
        if not teacher.exact:
            mine = [
                [*some, *(_reread(students, *teacher.builder.student_text(ids)) for ids in others)]
                for some, others in zip(own, taught, strict=True)
            ]
            theirs = [
                [*(teacher.reading(*students.student_text(ids)) for ids in some), *others]
                for some, others in zip(own, taught, strict=True)
            ]
        packed = pack(asked[0][part], mine, students.eos_token_id)
        other = pack(asked[1][part], theirs, teacher.end)
        logits, known = answer_logits(student, packed), answer_logits(teacher.model, other, teacher.prefix)
        count = len(own[0])
        if teacher.exact:
            first = packed.owner % packed.last.shape[1] < count
            values = torch.empty(len(packed.owner), dtype=torch.float64)
            values[first] = token_kl(logits[first], known[first])
            values[~first] = token_kl(known[~first], logits[~first])
            sums = packed.per_answer(values)
        else:
            sums = packed.per_answer(token_log_probabilities(logits, packed.tokens))
            sums = sums - other.per_answer(token_log_probabilities(known, other.tokens))
            sums[:, count:] *= -1
        found.append(torch.stack([sums[:, :count].mean(1), sums[:, count:].mean(1)]))
    both = torch.cat(found, 1).numpy()
    if not np.isfinite(both).all():
        raise GadCheckpointError("a divergence is not finite: the logits of student or teacher are no numbers")
    return both[0], both[1]


def _reread(students: SequenceBuilder, text: str, finished: bool) -> list[int]:
    return students.response(text, finished, MAX_CONTEXT).token_ids or [students.eos_token_id]
