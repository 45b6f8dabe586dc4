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
"""Both divergences between a student and an open teacher: per text into a file, per prompt into the figures."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from gad_verl.core.divergence import token_kl, token_log_probabilities
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.record.files import read_json, to_json, write_atomically
from gad_verl.tools.evaluation.open_teacher import OpenTeacher, Reader
from gad_verl.tools.evaluation.responses import drop_torn_line
from gad_verl.tools.evaluation.scored_texts import ScoredText
from gad_verl.tools.evaluation.scores import SCORES, STUDENT, TEACHER, Divergence, Score, read_scores, summarize_scores
from gad_verl.tools.evaluation.scoring import BYTES, LoadedModel, LogitsFile, OneModel, batches

TEACHER_SETTINGS = "teacher.json"
_NOTES = ("teacher",)
# Without logits to keep, a batch is what an interruption costs.
_TEXTS = 256
_OTHER = {STUDENT: TEACHER, TEACHER: STUDENT}


def measure_divergence(
    texts: Sequence[ScoredText],
    teacher: OpenTeacher,
    output: Path,
    load: Callable[[str], LoadedModel],
) -> Divergence:
    """Let both models read what they have not read yet, and sum up.

    Args:
        texts: All of them.
        teacher: Whom the student is compared with.
        output: Folder of the evaluation; each text is in its ``divergence.jsonl`` as soon as both have read it.
        load: Loads the model of a reader.

    Raises:
        GadConfigError: If the folder has figures of another teacher, or the space is not there.
        GadCheckpointError: If a model cannot be loaded, or a divergence is not finite.
    """
    _claim(output, teacher.settings)
    file = output / SCORES
    drop_torn_line(file)
    digests = {text.key: text.digest for text in texts}
    # Responses may have been removed and sampled again since.
    done = {score.key: score for score in read_scores(file) if digests.get(score.key) == score.digest}
    # Long texts first: what does not fit the memory fails at once.
    missing = sorted((text for text in texts if text.key not in done), key=lambda text: -len(text.answer_ids[STUDENT]))
    with file.open("a", encoding="utf-8") as handle, _progress(len(texts), len(done)) as bar:

        def keep(score: Score) -> None:
            handle.write(json.dumps(asdict(score)) + "\n")
            handle.flush()
            done[score.key] = score

        readable = []
        for text in missing:
            if _can_be_read(text, teacher.readers):
                readable.append(text)
            else:
                keep(_score(text, None, {}))
                bar.update(2)
        with OneModel(load) as models:
            _Pair(teacher, models, output, keep, bar.update).read(readable)
    return summarize_scores([done[text.key] for text in texts], len(teacher.readers[STUDENT].prompts), teacher.settings)


def _progress(texts: int, done: int) -> "tqdm[Any]":
    return tqdm(total=2 * texts, initial=2 * done, desc="KL", unit="reading")


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    file = folder / TEACHER_SETTINGS
    before = read_json(file)
    if before is not None and read_scores(folder / SCORES):
        differing = [name for name in settings if name not in _NOTES and before.get(name) != settings[name]]
        if differing:
            changes = ", ".join(f"{name}: {before.get(name)!r} there, {settings[name]!r} now" for name in differing)
            raise GadConfigError(
                f"{folder} holds divergences of other settings ({changes}); remove {folder / SCORES} to measure anew"
            )
        return
    # Lines without the settings that belong to them are nobody's.
    (folder / SCORES).unlink(missing_ok=True)
    write_atomically(file, to_json(dict(settings)))


def _can_be_read(text: ScoredText, readers: Mapping[str, Reader]) -> bool:
    return all(token < reader.width for who, reader in readers.items() for token in text.answer_ids[who])


class _Pair:
    """Both models over the texts, in batches."""

    def __init__(
        self,
        teacher: OpenTeacher,
        models: OneModel,
        output: Path,
        keep: Callable[[Score], None],
        advance: Callable[[int], object],
    ) -> None:
        self._teacher = teacher
        self._models = models
        self._output = output
        self._keep = keep
        self._advance = advance
        self._temperatures = {who: reader.temperature for who, reader in teacher.readers.items()}
        self._width = teacher.readers[STUDENT].width

    def read(self, texts: Sequence[ScoredText]) -> None:
        """Both read them; a text is kept as soon as the second has."""
        if self._teacher.exact:
            tokens = int(self._teacher.options.scratch_gib * 2**30) // (self._width * BYTES)
            cut, read = batches(texts, STUDENT, None, tokens), self._by_tokens
        else:
            cut, read = batches(texts, STUDENT, _TEXTS, None), self._by_text
        for batch in cut:
            # The one that has just read the last batch begins with this one: a model less to load.
            first = self._models.who or STUDENT
            read(batch, first, _OTHER[first])

    def _by_tokens(self, batch: Sequence[ScoredText], first: str, second: str) -> None:
        tokens = sum(len(text.answer_ids[first]) for text in batch)
        with LogitsFile(self._output, self._width, tokens) as stored:
            seen = [self._read(text, first, stored.write) for text in batch]
            stored.rewind()
            for text, log_p in zip(batch, seen, strict=True):
                kl: list[float] = []

                def compare(logits: Tensor, author: str = text.author, kl: list[float] = kl) -> None:
                    both = {first: stored.read(len(logits)).to(logits.device), second: logits}
                    sides = author, _OTHER[author]
                    logits_of, at = [both[who] for who in sides], [self._temperatures[who] for who in sides]
                    kl.append(token_kl(*logits_of, *at).sum().item())

                other_log_p = self._read(text, second, compare)
                self._keep(_score(text, sum(kl), {first: log_p, second: other_log_p}))

    def _by_text(self, batch: Sequence[ScoredText], first: str, second: str) -> None:
        seen = [self._read(text, first) for text in batch]
        for text, log_p in zip(batch, seen, strict=True):
            self._keep(_score(text, None, {first: log_p, second: self._read(text, second)}))

    def _read(self, text: ScoredText, who: str, use: Callable[[Tensor], None] = lambda logits: None) -> float:
        """Log-probability of a text under one model; ``use`` gets the logits of some tokens at a time."""
        total = 0.0
        for logits, ids in self._models.get(who).pieces(text):
            use(logits)
            total += token_log_probabilities(logits, ids, self._temperatures[who]).sum().item()
        self._advance(1)
        return total


def _score(text: ScoredText, kl: float | None, log_p: Mapping[str, float]) -> Score:
    if not all(math.isfinite(value) for value in (kl or 0.0, *log_p.values())):
        raise GadCheckpointError(
            f"prompt {text.prompt}: the divergence is not finite. A model's logits are no numbers, or it rules out a "
            "token that the other one may write; leave --teacher-model out"
        )
    tokens = len(text.answer_ids[STUDENT])
    return Score(*text.key, text.digest, tokens, text.finished, kl, log_p.get(STUDENT), log_p.get(TEACHER))
