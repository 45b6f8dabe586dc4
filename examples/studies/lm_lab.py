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
"""What all runs of ``lm_language.py`` share: sizes, models, instructions as tokens, judging, and states on the disk.

Another study takes the same training with a :class:`Lab` of its own, which says what is trained on and how a student is
judged (``teacher_lab.py``).
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language import HELD_OUT
from lm_model import Ids, Learner, Packed, log_probs, pack, sample
from lm_task import KINDS, SHARES, make_splits
from study_common import keep_settings, save_tensors
from torch import Tensor

from gad_verl.core.trust import is_held_out
from gad_verl.data.tokens import SequenceBuilder

logger = logging.getLogger("studies.lm_language")

SAVE_S = 240.0  # between two states of a run on the disk
COVER = 8  # answers among which different valid ones are counted
SLIP = 0.01  # share of answers that the teacher of KL(student, teacher) gets wrong
# That of the model begins with a system message of twenty tokens.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Paused(Exception):  # noqa: N818  # nothing went wrong
    """The time is over; the state of the run is on the disk."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Args:
        train, validation, test: Instructions of a seed, one teacher text each.
        start: Updates of SeqKD before all arms, and ``every`` so many the likelihood is looked at.
        passes: Of the warmup of D over the answers of the student of the start.
        batch, n: Instructions of an update or a step, answers to each.
        steps: Of the adversarial stage; SeqKD that goes on and SODA have as many updates.
        equal_time: Updates of SeqKD meant to take as long as the new objective with the warmup of D; its table says how
            nearly they did.
        checkpoints: Of SeqKD that goes on, up to ``steps`` and again up to ``equal_time``.
        limit: Tokens of an answer.
    """

    train: int = 640
    validation: int = 96
    test: int = 240
    start: int = 120
    every: int = 20
    passes: int = 3
    batch: int = 16
    n: int = 4
    steps: int = 50
    equal_time: int = 400
    checkpoints: int = 4
    limit: int = 24


def quiet_loading() -> None:
    """Models are loaded for every run: without a bar and a report on the head each time."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


class Lab:
    """What all runs share.

    Args:
        student: Folder of the model.
        work: Folder of what the arms of a seed share and of interrupted runs.
        sizes: See :class:`Sizes`.
        dtype: Of the weights that compute.
        deadline: Of time.monotonic, after which a run pauses.

    Raises:
        GadConfigError: If the work folder is of other sizes, or another type: what is there would be gone on with.
    """

    # Of the names of training instructions, those that never train D.
    held_out_share = HELD_OUT

    def __init__(
        self,
        student: Path,
        work: Path,
        sizes: Sizes | None = None,
        dtype: torch.dtype = torch.bfloat16,
        deadline: float = math.inf,
    ) -> None:
        from transformers import AutoTokenizer

        self.folder, self.work, self.dtype, self.deadline = student, work, dtype, deadline
        self.sizes = sizes or Sizes()
        tokenizer = AutoTokenizer.from_pretrained(student)
        tokenizer.chat_template = CHAT_TEMPLATE
        self.builder = SequenceBuilder(tokenizer, 256, self.sizes.limit)
        self.end = self.builder.eos_token_id
        keep_settings(work / "settings.json", self.settings())

    def settings(self) -> dict[str, Any]:
        """What a work folder is of."""
        return {**asdict(self.sizes), "dtype": str(self.dtype)}

    def corpus(self, seed: int) -> "Texts":
        """What is trained on in the runs of a seed."""
        return Corpus(self, seed)

    def judge(self, student: Any, corpus: Any) -> dict[str, Any]:
        """What is known about a student at the end; ``corpus`` is one of :meth:`corpus`."""
        return judge(student, corpus, self.sizes.limit)

    def prompt(self, text: str) -> list[int]:
        """Token ids of an instruction as the student is asked."""
        return self.builder.prompt([{"role": "user", "content": text}])

    def of_seed(self, seed: int, name: str) -> Path:
        """A file of a seed."""
        folder = self.work / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def student(self) -> Learner:
        """The model, its weights as they are in the folder."""
        from transformers import AutoModelForCausalLM

        # Eager: with masks of packed rows it is several times faster on a CPU than fused attention.
        return Learner(AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.dtype, attn_implementation="eager"))

    def discriminator(self, seed: int) -> Learner:
        """The same model with a fresh scalar head, as the trainer on verl loads it; the head stays in float32."""
        from transformers import AutoConfig

        from gad_verl.discriminator.model import load_discriminator, prepare_config

        config = AutoConfig.from_pretrained(self.folder)
        prepare_config(config, None)
        module = load_discriminator(self.folder, config, torch.float32, fresh_head=True, seed=seed)
        module.set_attn_implementation("eager")
        module.base_model.to(self.dtype)
        return Learner(module)


class Texts:
    """Instructions and the teacher's texts as token ids.

    Args:
        lab: Has the tokenizer.
        train, validation: Instruction and text of each.
        names: Of the training instructions; those of one name are held out from D together.
    """

    def __init__(
        self, lab: Lab, train: Sequence[tuple[Ids, Ids]], validation: Sequence[tuple[Ids, Ids]], names: Sequence[str]
    ) -> None:
        self.builder, self.end, self.held_out_share = lab.builder, lab.end, lab.held_out_share
        self.prompts = [list(prompt) for prompt, _ in train]
        self.teachers = [list(text) for _, text in train]
        self.validation = validation
        self.name(names)

    def name(self, names: Sequence[str]) -> None:
        """Another text for each training instruction, which decides whether it is held out."""
        self.names = list(names)
        self.held_out = torch.tensor([is_held_out(name, self.held_out_share) for name in self.names])

    def text(self, ids: Ids) -> str | None:
        """Of a sampled answer; None where it has no end."""
        text, finished = self.builder.student_text(ids)
        return text if finished else None

    def reread(self, ids: Ids) -> list[int]:
        """A sampled answer as D reads it; a token stands for one without any."""
        return self.builder.student_response(ids).token_ids or [self.end]

    def pack(self, rows: Sequence[int], answers: Sequence[Sequence[Ids]]) -> Packed:
        """Training instructions with some answers each."""
        return pack([self.prompts[row] for row in rows], answers, self.end)

    def valid(self, rows: Sequence[int], answers: Sequence[Sequence[Ids]]) -> Tensor:
        """Which answers to training instructions are valid, (G, n) bool; without an oracle those with an end."""
        return torch.tensor([[self.text(ids) is not None for ids in some] for some in answers])


class Corpus(Texts):
    """The instructions of a seed, which an oracle judges."""

    def __init__(self, lab: Lab, seed: int) -> None:
        sizes = lab.sizes
        self.splits = make_splits(sizes.train, sizes.validation, sizes.test, seed)
        train, validation = (
            [(lab.prompt(row.prompt), lab.builder.response(row.teacher).token_ids) for row in part]
            for part in (self.splits.train, self.splits.validation)
        )
        super().__init__(lab, train, validation, [row.prompt for row in self.splits.train])
        self.test_prompts = [lab.prompt(row.prompt) for row in self.splits.test]

    def answer(self, text: str) -> list[int]:
        """A whole text with its end token."""
        return self.builder.response(text).token_ids

    def valid(self, rows: Sequence[int], answers: Sequence[Sequence[Ids]]) -> Tensor:
        """Which answers to training instructions are valid, (G, n) bool."""
        judged = [
            [(text := self.text(ids)) is not None and self.splits.train[row].judge(text) is not None for ids in some]
            for row, some in zip(rows, answers, strict=True)
        ]
        return torch.tensor(judged)


# ------------------------------------------------------ judging ------------------------------------------------------


@torch.no_grad()
def validation_loss(student: Any, corpus: Texts, batch: int = 32) -> float:
    """Nats a token of the teacher's validation texts."""
    total, tokens = 0.0, 0
    for begin in range(0, len(corpus.validation), batch):
        part = corpus.validation[begin : begin + batch]
        prompts, answers = [prompt for prompt, _ in part], [[text] for _, text in part]
        found = log_probs(student, pack(prompts, answers, corpus.end))
        total, tokens = total - found.sum().item(), tokens + len(found)
    return total / tokens


@torch.no_grad()
def phrasing_log_probs(student: Any, corpus: Corpus, batch: int = 32) -> np.ndarray:
    """Log-probability (test, 3) of each valid answer to each test instruction."""
    rows, parts = corpus.splits.test, []
    for begin in range(0, len(rows), batch):
        part = rows[begin : begin + batch]
        answers = [[corpus.answer(text) for text in row.valid] for row in part]
        packed = pack(corpus.test_prompts[begin : begin + batch], answers, corpus.end)
        parts.append(packed.per_answer(log_probs(student, packed)))
    return torch.cat(parts).double().numpy()


def exact_figures(found: np.ndarray) -> dict[str, np.ndarray]:
    """What the probabilities of the valid answers say about each instruction, without sampling.

    Args:
        found: (P, 3) log-probabilities.

    Returns:
        ``valid``, the probability of a valid answer at temperature 1; ``covered``, how many different valid answers are
        expected among :data:`COVER`; ``kl_teacher_student`` in nats, exact; ``kl_student_teacher``, of what the oracle
        sees (which phrasing, or none) and a teacher that slips once in a hundred: the KL of whole texts is larger, and
        infinite for a teacher that never slips. (P,) each.
    """
    share, mass = np.array(SHARES), np.exp(found)
    # bfloat16 can make the sum a little more than 1.
    mass = mass / np.maximum(1.0, mass.sum(1, keepdims=True))
    none = np.maximum(1 - mass.sum(1), 0.0)
    all_, wanted = np.column_stack([mass, none]), np.append((1 - SLIP) * share, SLIP)
    return {
        "valid": mass.sum(1),
        "covered": (1 - (1 - mass) ** COVER).sum(1),
        "kl_teacher_student": (share * (np.log(share) - found)).sum(1),
        "kl_student_teacher": (all_ * np.log(np.maximum(all_, 1e-300) / wanted)).sum(1),
    }


def judge(student: Any, corpus: Corpus, limit: int, batch: int = 60) -> dict[str, Any]:
    """Validity at temperature 1 and greedy, coverage, both KLs; by kind, by phrasing and by prompt."""
    found = phrasing_log_probs(student, corpus)
    figures = exact_figures(found)
    greedy = []
    for begin in range(0, len(corpus.test_prompts), batch):
        answers = sample(student, corpus.test_prompts[begin : begin + batch], 1, limit, corpus.end, None)
        for row, (ids,) in zip(corpus.splits.test[begin : begin + batch], answers, strict=True):
            text = corpus.text(ids)
            greedy.append(float(text is not None and row.judge(text) is not None))
    by_prompt = {name: values.tolist() for name, values in figures.items()} | {"greedy": greedy}
    kinds = np.array([row.kind for row in corpus.splits.test])
    return {
        "validation_loss": validation_loss(student, corpus),
        **{name: float(np.mean(values)) for name, values in by_prompt.items()},
        "phrasings": np.exp(found).mean(0).tolist(),
        "kinds": {kind: float(figures["valid"][kinds == kind].mean()) for kind in KINDS if kind in kinds},
        "by_prompt": {name: [round(value, 3) for value in values] for name, values in by_prompt.items()},
    }


# -------------------------------------------- runs that can be interrupted --------------------------------------------


class Dice:
    """A generator of random numbers whose place can be kept."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["state"])


class Loop:
    """Steps of a run whose state goes to the disk every few minutes.

    Args:
        lab: Has the deadline.
        path: Of the state.
        parts: Objects with a state.
        history: Plain values that steps change; ``train_s``, the seconds of the steps, is added.
    """

    def __init__(self, lab: Lab, path: Path, parts: Mapping[str, Any], history: dict[str, Any]) -> None:
        self.lab, self.path, self.parts = lab, path, parts
        self.history = {"train_s": 0.0, **history}
        self.done = 0
        if path.is_file():
            saved = torch.load(path, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved["parts"][name])
            self.history, self.done = saved["history"], saved["done"]

    def _save(self) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save_tensors({"parts": parts, "history": self.history, "done": self.done}, self.path)

    def run(self, total: int, step: Callable[[int], None], after: Callable[[int], None] = lambda number: None) -> None:
        """Go on up to step ``total``; the time of ``after``, which looks at what there is, is not counted.

        Raises:
            Paused: After the deadline of the lab.
        """
        saved = time.monotonic()
        while self.done < total:
            if time.monotonic() > self.lab.deadline:
                self._save()
                raise Paused
            clock = time.process_time()
            step(self.done + 1)
            self.history["train_s"] += time.process_time() - clock
            self.done += 1
            after(self.done)
            if self.done % 10 == 0 or self.done == total:
                logger.info("%s: step %d of %d", self.path, self.done, total)
            if time.monotonic() - saved > SAVE_S:
                self._save()
                saved = time.monotonic()
        self.path.unlink(missing_ok=True)
