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
"""The student's answers before it learned anything: one a prompt, kept for the whole run and for other tools.

The file is one of conversational preferences as TRL reads them (``prompt``, ``chosen``, ``rejected``), beside the
checkpoints. Lines are only appended; a checkpoint remembers how many bytes belong to it.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.data.schema import chat_id
from gad_verl.errors import GadCheckpointError

logger = logging.getLogger(__name__)

PAIRS_FILE = "soda_pairs.jsonl"


@dataclass(frozen=True)
class SnapshotAnswer:
    """What the student answered.

    Args:
        text: Its answer.
        finished: Whether it ended by itself.
    """

    text: str
    finished: bool


class Snapshot:
    """Answers by prompt.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._size = folder / PAIRS_FILE, 0
        self._answers: dict[str, SnapshotAnswer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, messages: Sequence[Any]) -> SnapshotAnswer | None:
        """To a prompt; None where none was taken."""
        return self._answers.get(chat_id(messages))

    def add(self, pairs: Sequence[tuple[list[dict], str, SnapshotAnswer]]) -> int:
        """Keep prompt, teacher's text and answer of each pair; returns how many prompts are new.

        The first answer to a prompt stays.
        """
        lines = []
        for messages, teacher, answer in pairs:
            if chat_id(messages) in self._answers:
                continue
            self._answers[chat_id(messages)] = answer
            line = {
                "prompt": [dict(message) for message in messages],
                "chosen": [{"role": "assistant", "content": teacher}],
                "rejected": [{"role": "assistant", "content": answer.text}],
                "rejected_finished": answer.finished,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        content = "".join(lines).encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
            # What a killed run wrote behind its checkpoint is written again.
            file.truncate(self._size)
            file.seek(self._size)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(content)
        return len(lines)

    def state_dict(self) -> dict[str, Any]:
        """How much of the file belongs to a checkpoint."""
        return {"size": self._size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the answers again.

        Raises:
            GadCheckpointError: If the file is shorter than it was, or damaged.
        """
        self._size = state["size"]
        content = self._path.read_bytes()[: self._size] if self._path.is_file() else b""
        try:
            if len(content) < self._size:
                raise ValueError(f"{len(content)} of {self._size} bytes are there")
            # Not splitlines(): a text may hold characters that it takes for the end of a line.
            rows = [json.loads(line) for line in content.split(b"\n") if line]
            self._answers = {
                chat_id(row["prompt"]): SnapshotAnswer(row["rejected"][0]["content"], row["rejected_finished"])
                for row in rows
            }
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise GadCheckpointError(
                f"{self._path}: the snapshot of the student's answers is not what the checkpoint was made with "
                f"({error}). Restore the file, or start anew with trainer.resume_mode=disable and another "
                "trainer.default_local_dir"
            ) from None
