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
"""Checks of training rows beyond the schema: what the settings of teachers and curriculum need of each."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gad_verl.config import GadConfig
from gad_verl.core.curriculum import as_difficulty
from gad_verl.core.trust import held_out_above
from gad_verl.data.endings import cut_texts
from gad_verl.data.images import MARK
from gad_verl.data.schema import chat_id, check_file, teacher_names, teacher_texts
from gad_verl.data.trajectory_messages import trajectory_texts

logger = logging.getLogger(__name__)


class TrainingRowChecks:
    """Looks at each training row, then at all of them together.

    Args:
        gad_config: The settings.
    """

    def __init__(self, gad_config: GadConfig) -> None:
        self._teacher_key, self._overlong = gad_config.teacher_key, gad_config.teacher_overlong
        self._read_texts = trajectory_texts if gad_config.trajectory.enable else teacher_texts
        self._mix = gad_config.teachers.build()
        self._name_column = gad_config.teachers.column if self._mix.needs_names else None
        curriculum = gad_config.curriculum
        self._difficulty_column = (
            curriculum.column if curriculum.enabled and curriculum.difficulty == "column" else None
        )
        self._teachers: dict[tuple[str | None, ...], str] = {}
        self._texts = self._cut = 0
        self._trust, self._prompt_key = gad_config.trust, ""
        # Of the prompts that are held out first; rows that share a prompt are one.
        self._first: set[float] = set()

    @property
    def columns(self) -> dict[str, str]:
        """Columns that must be there, with the setting that asks for each."""
        columns = {self._name_column: "gad.teachers.column", self._difficulty_column: "gad.curriculum.column"}
        return {column: setting for column, setting in columns.items() if column is not None}

    def check_files(self, paths: list[str], prompt_key: str) -> int:
        """Check every row of the files; returns their number.

        Raises:
            GadDataError: Names the file, the row and the column.
        """
        self._texts = self._cut = 0
        self._prompt_key = prompt_key
        self._first.clear()
        rows = sum(
            check_file(
                Path(path),
                prompt_key,
                self._teacher_key,
                more_columns=self.columns,
                check_row=self._check_row,
                read_texts=self._read_texts,
            )
            for path in paths
        )
        if self._cut and self._overlong == "cut":
            logger.warning(
                "%d of %d teacher texts were cut when they were written, as their rows say: they are taught without an "
                "end-of-text token. gad.teacher_overlong=drop leaves their rows out",
                self._cut,
                self._texts,
            )
        return rows

    def _check_row(self, row: Mapping[str, Any], where: str) -> None:
        texts = self._read_texts(row.get(self._teacher_key), where)
        if self._trust.enabled:
            prompt = chat_id(row[self._prompt_key])
            if any(MARK in message["content"] for message in row[self._prompt_key]):
                # The images, which are part of a prompt, are not read here; those of each row count as others.
                prompt += where
            self._first.add(held_out_above(prompt, self._trust.seed))
            if len(self._first) > math.ceil(1.5 * self._trust.least_prompts):
                self._first.remove(max(self._first))
        self._texts += len(texts)
        self._cut += sum(cut_texts(row, len(texts), where))
        if self._difficulty_column is not None:
            column = self._difficulty_column
            as_difficulty(row.get(column), f"{where}, column {column!r}")
        if self._name_column is not None:
            names = teacher_names(row.get(self._name_column), len(texts), f"{where}, column {self._name_column!r}")
            self._teachers.setdefault(tuple(names), where)

    @property
    def first_held_out(self) -> list[float]:
        """The values of ``gad.trust.held_out_fraction`` above which one more prompt of the rows is held out, in order.

        Of half more prompts than are needed for any trust, or of all that there are; empty where nothing is held out.
        """
        return sorted(self._first)

    @property
    def read_texts(self) -> Callable[[Any, str], list[str]]:
        """Reads the column of the teacher."""
        return self._read_texts

    def check_together(self, first_step: int, last_step: int) -> None:
        """Check that the mixture of teachers works for every row that was checked, at every step of the run.

        Raises:
            GadConfigError, GadDataError: See :meth:`gad_verl.core.teacher_mix.TeacherMix.check_rows`.
        """
        self._mix.check_rows(self._teachers, first_step, last_step)
