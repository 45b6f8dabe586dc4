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
"""The curriculum as a sampler of verl's training data, and the figures of the rows that it sorts by."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from gad_verl.config.data import CurriculumConfig
from gad_verl.core.curriculum import Curriculum, CurriculumDraw, as_difficulty
from gad_verl.data.dataset import GadDataset
from gad_verl.data.images import MARK
from gad_verl.data.schema import chat_id, teacher_texts

_ROWS_AT_ONCE = 1000


def row_keys(dataset: GadDataset) -> list[str]:
    """A text for each row by which it is found again in other data: its prompt, and its number among equal prompts."""
    seen: Counter[str] = Counter()
    keys = []
    for batch in dataset.dataframe.select_columns([dataset.prompt_key]).iter(_ROWS_AT_ONCE):
        for messages in batch[dataset.prompt_key]:
            key = chat_id(messages)
            keys.append(f"{key}/{seen[key]}" if seen[key] else key)
            seen[key] += 1
    return keys


def prompt_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """The key of a prompt as a rollout saw it: images, which are parts there, are marks in the file."""

    def text(content: Any) -> str:
        if isinstance(content, str):
            return content
        return "".join(part["text"] if part.get("type") == "text" else MARK for part in content)

    return chat_id([{"role": message["role"], "content": text(message["content"])} for message in messages])


def row_difficulty(dataset: GadDataset, config: CurriculumConfig, teacher_key: str) -> np.ndarray | None:
    """Difficulty of each row: a column, or the mean length of its teacher texts. None where it is learned.

    Raises:
        GadDataError: If a value of the column is no finite number.
    """
    if config.difficulty == "margin":
        return None
    column = config.column if config.difficulty == "column" else teacher_key
    values: list[float] = []
    for batch in dataset.dataframe.select_columns([column]).iter(_ROWS_AT_ONCE):
        for value in batch[column]:
            where = f"row {len(values)} of the training data, column {column!r}"
            if config.difficulty == "column":
                values.append(as_difficulty(value, where))
                continue
            texts = teacher_texts(value, where)
            if config.difficulty == "teacher_tokens":
                encoded = dataset.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                values.append(float(np.mean([len(ids) for ids in encoded])))
            else:
                values.append(float(np.mean([len(text) for text in texts])))
    return np.array(values)


class CurriculumSampler(Sampler[int]):
    """Yields the rows that a curriculum draws, step by step; a pass has as many whole steps as the data set.

    Its state belongs to that of the data loader that reads it (``StatefulDataLoader``). The loader must run in the
    process of the trainer (``num_workers=0``): rows that are fetched ahead would not know what was learned meanwhile.

    Args:
        curriculum: Draws the rows of each step.
    """

    def __init__(self, curriculum: Curriculum) -> None:
        self.curriculum = curriculum
        self.last_draw: CurriculumDraw | None = None
        self._waiting: list[int] = []
        self._yielded = 0
        self._resuming = False

    def __len__(self) -> int:
        size = self.curriculum.batch_size
        return self.curriculum.num_rows // size * size

    def __iter__(self) -> Iterator[int]:
        # The loader makes iterators that it throws away: nothing happens before the first row is asked for.
        if self._resuming:
            self._resuming = False
        else:
            self._yielded = 0
        while self._yielded < len(self):
            if not self._waiting:
                self.last_draw = self.curriculum.draw()
                self._waiting = list(self.last_draw.rows)
            self._yielded += 1
            yield self._waiting.pop(0)

    def state_dict(self) -> dict[str, Any]:
        """State of the curriculum and the place in the pass."""
        place = {"waiting": list(self._waiting), "yielded": self._yielded, "batch_size": self.curriculum.batch_size}
        return {"curriculum": self.curriculum.state_dict(), **place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``; with other rows or another batch size, at the beginning of a pass."""
        same_rows = self.curriculum.load_state_dict(state["curriculum"])
        # Checkpoints of older versions do not say it.
        size = state.get("batch_size", self.curriculum.batch_size)
        self._resuming = same_rows and size == self.curriculum.batch_size
        self._waiting = list(state["waiting"]) if self._resuming else []
        self._yielded = int(state["yielded"]) if self._resuming else 0
