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
"""Two models read the same texts one after the other: never both in memory, the first one's logits on the disk."""

import gc
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gad_verl.core.divergence import one_end
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.tools.evaluation.open_teacher import Reader
from gad_verl.tools.evaluation.scored_texts import ScoredText
from gad_verl.tools.evaluation.shared_prefix import SharedPrefix

# Tokens of an answer at a time: 75 MiB in single precision at a vocabulary of 150,000.
TOKENS = 128
BYTES = 4  # of a logit on the disk


class LoadedModel:
    """A causal language model that says how likely each token of an answer is.

    Args:
        model: Of transformers, in eval mode.
        reader: What it reads.
        who: "student" or "teacher".
    """

    def __init__(self, model: Any, reader: Reader, who: str) -> None:
        self._model = model
        self._reader = reader
        self.who = who
        # Most models can be asked for the logits of the answer alone; the prompt's would be the larger part.
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._unread = SharedPrefix(model, reader.prompts, self._keeps)

    @torch.inference_mode()
    def pieces(self, text: ScoredText, tokens: int = TOKENS) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits behind each prefix of the answer, some tokens at a time.

        Yields:
            Shape ``(tokens, width)``, single precision, all ends as one; and the token ids, shape ``(tokens,)``.

        Raises:
            GadCheckpointError: If the model has less logits than its configuration says.
        """
        prompt, answer = text.prompt_ids[self.who], text.answer_ids[self.who]
        if not answer:
            return
        # No padding, one text at a time: what is computed depends on nothing but the text.
        unread, behind = self._unread([*prompt, *answer[:-1]])
        kept = {"logits_to_keep": len(answer)} if self._keeps else {}
        read = torch.tensor([unread], device=self._model.device)
        logits = self._model(input_ids=read, **behind, **kept).logits[0, -len(answer) :, : self._reader.width]
        if logits.shape[-1] < self._reader.width:
            raise GadCheckpointError(
                f"the {self.who}'s model gives {logits.shape[-1]} logits a token, its config.json says "
                f"{self._reader.width} or more"
            )
        ids = torch.tensor(answer, device=logits.device)
        for start in range(0, len(answer), tokens):
            piece = logits[start : start + tokens].float()
            yield one_end(piece, self._reader.ends, self._reader.temperature), ids[start : start + tokens]


class OneModel:
    """Of several models the one that is needed, loaded; the one before it is dropped first. A context manager.

    Args:
        load: Loads a model by the name of its reader.
    """

    def __init__(self, load: Callable[[str], LoadedModel]) -> None:
        self._load = load
        self._loaded: LoadedModel | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    @property
    def who(self) -> str | None:
        """Whose is loaded."""
        return self._loaded.who if self._loaded is not None else None

    def get(self, who: str) -> LoadedModel:
        """The model of ``who``; the caller keeps no reference to another one."""
        if self._loaded is None or self._loaded.who != who:
            self._drop()
            self._loaded = self._load(who)
        return self._loaded

    def _drop(self) -> None:
        if self._loaded is not None:
            self._loaded = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


class LogitsFile:
    """Logits on the disk, read in the order in which they were written. Gone with the process. A context manager.

    Args:
        folder: Where there is space.
        width: Columns.
        tokens: How many rows will be written.

    Raises:
        GadConfigError: If there is less space than that.
    """

    def __init__(self, folder: Path, width: int, tokens: int) -> None:
        needed, free = tokens * width * BYTES, shutil.disk_usage(folder).free
        if needed > free:
            raise GadConfigError(
                f"logits of {needed / 2**30:.1f} GiB do not fit {folder}, where {free / 2**30:.1f} GiB are free: lower "
                "--teacher-scratch or name another --output"
            )
        self._width = width
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, logits: Tensor) -> None:
        """Append rows, shape ``(tokens, width)``."""
        self._file.write(logits.contiguous().cpu().numpy().tobytes())

    def rewind(self) -> None:
        """Read from the beginning."""
        self._file.seek(0)

    def read(self, tokens: int) -> Tensor:
        """The next rows, shape ``(tokens, width)``."""
        content = self._file.read(tokens * self._width * BYTES)
        return torch.frombuffer(bytearray(content), dtype=torch.float32).view(tokens, self._width)


def batches(
    texts: Sequence[ScoredText], who: str, most_texts: int | None, most_tokens: int | None
) -> list[list[ScoredText]]:
    """Texts in their order, cut into batches of so many texts and tokens at most, but of one text at least."""
    cut: list[list[ScoredText]] = []
    tokens = 0
    for text in texts:
        own = len(text.answer_ids[who])
        too_long = most_tokens is not None and tokens + own > most_tokens
        if not cut or too_long or len(cut[-1]) == most_texts:
            cut.append([])
            tokens = 0
        cut[-1].append(text)
        tokens += own
    return cut
