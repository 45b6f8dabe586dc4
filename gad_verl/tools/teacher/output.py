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
"""The answers of a store as a parquet file of GAD's schema, and the card that says what is in it."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gad_verl.errors import GadDataError, GadEndpointError
from gad_verl.record.files import plain
from gad_verl.tools.api.requests import ChatAnswer
from gad_verl.tools.api.store import AnswerStore
from gad_verl.tools.data.importing import MESSAGES
from gad_verl.tools.data.writing import RowWriter, card_path, describe_file, outputs
from gad_verl.tools.teacher.marks import EMPTY, LENGTH, REFUSAL, is_useless, marks_of
from gad_verl.tools.teacher.plan import Outcome, Plan
from gad_verl.tools.teacher.prompts import Prompt
from gad_verl.tools.teacher.settings import Teacher

SHOWN_REJECTIONS = 5
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def output_schema(samples: int, has_images: bool = False) -> pa.Schema:
    """Schema of the file. With several samples per prompt the columns of an answer are lists.

    Args:
        samples: Answers of a row.
        has_images: Whether rows have a column of images, as data sets of the Hub have them.
    """

    def per_answer(kind: pa.DataType) -> pa.DataType:
        return kind if samples == 1 else pa.list_(kind)

    extra = [
        ("index", pa.int64()),
        ("id", pa.string()),
        ("duplicate_of", pa.int64()),
        ("model", per_answer(pa.string())),
        ("finish_reason", per_answer(pa.string())),
        ("prompt_tokens", per_answer(pa.int64())),
        ("completion_tokens", per_answer(pa.int64())),
        ("attempts", per_answer(pa.int64())),
        ("stopped_by_length", per_answer(pa.bool_())),
        ("refusal", per_answer(pa.bool_())),
        ("duplicate_answer", per_answer(pa.bool_())),
    ]
    return pa.schema(
        [
            ("prompt", MESSAGES),
            *([("images", IMAGES)] if has_images else []),
            ("teacher_response", per_answer(pa.string())),
            ("teacher", pa.string()),
            ("data_source", pa.string()),
            ("extra_info", pa.struct(extra)),
        ]
    )


@dataclass
class Counts:
    """What the card says of the answers; filled while the rows are made."""

    wanted: int = 0
    given: int = 0
    kept: int = 0
    asked_again: int = 0
    missing: int = 0
    without_token_counts: int = 0
    empty_by_length: int = 0
    marked: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    rows_by_teacher: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)


class Rows:
    """The rows of a collection, in the order of the prompts, and their counts.

    Args:
        plan: Prompts and settings.
        store: Where the answers are.
        allow_missing: Take what there is where another attempt was wanted and has not come.
    """

    def __init__(self, plan: Plan, store: AnswerStore, allow_missing: bool = False) -> None:
        self.counts = Counts()
        self.prompts = self.duplicates = 0
        self.tokens = {teacher.name: [0, 0] for teacher in plan.settings.teachers}
        self.lengths: dict[str, list[int]] = {"characters": [], "completion_tokens": []}
        self._plan = plan
        self._store = store
        self._allow_missing = allow_missing
        self._seen: set[bytes] = set()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        settings = self._plan.settings
        for prompt in self._plan.prompts:
            self.prompts += 1
            if prompt.occurrence:
                self.duplicates += 1
                if "duplicate-prompt" in settings.drop:
                    continue
            for teacher in self._plan.teachers_of(prompt):
                if (row := self._row(prompt, teacher)) is not None:
                    self.counts.rows_by_teacher[teacher.name] += 1
                    yield row

    def _row(self, prompt: Prompt, teacher: Teacher) -> dict[str, Any] | None:
        settings = self._plan.settings
        kept: list[dict[str, Any]] = []
        for sample in range(settings.samples):
            outcome = self._plan.outcome(prompt, teacher, sample, self._store)
            self.counts.wanted += 1
            if (answer := self._count(teacher, outcome)) is not None:
                described = self._describe(answer, len(outcome.attempts))
                if described is not None:
                    kept.append(described)
        if not kept:
            return None
        extra: dict[str, Any] = {
            name: kept[0][name] if settings.samples == 1 else [one[name] for one in kept] for name in kept[0]
        }
        text = extra.pop("text")
        extra |= {"index": prompt.index, "id": prompt.id}
        extra["duplicate_of"] = prompt.first_index if prompt.occurrence else None
        shown = {"images": [{"bytes": image, "path": None} for image in prompt.images]}
        return {
            "prompt": list(prompt.asked if settings.student_prompt == "asked" else prompt.given),
            **(shown if self._plan.prompts.has_images else {}),
            "teacher_response": text,
            "teacher": teacher.name,
            "data_source": prompt.data_source,
            "extra_info": extra,
        }

    def _count(self, teacher: Teacher, outcome: Outcome) -> ChatAnswer | None:
        counts = self.counts
        for answer in outcome.attempts:
            counts.without_token_counts += answer.completion_tokens is None
            self.tokens[teacher.name][0] += answer.prompt_tokens or 0
            self.tokens[teacher.name][1] += answer.completion_tokens or 0
        if outcome.answer is None or not (outcome.is_over or self._allow_missing):
            if outcome.rejected is None:
                counts.missing += 1
            else:
                counts.rejections[outcome.rejected] += 1
            return None
        counts.given += 1
        counts.asked_again += len(outcome.attempts) - 1
        counts.finish_reasons[outcome.answer.finish_reason] += 1
        counts.models[outcome.answer.model] += 1
        return outcome.answer

    def _describe(self, answer: ChatAnswer, attempts: int) -> dict[str, Any] | None:
        """The columns of one answer; None where it is dropped."""
        counts, settings = self.counts, self._plan.settings
        marks = list(marks_of(answer))
        text = answer.text.strip()
        counts.empty_by_length += EMPTY in marks and LENGTH in marks
        if not is_useless(marks):
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest in self._seen:
                marks.append("duplicate-answer")
            self._seen.add(digest)
        counts.marked.update(marks)
        for mark in marks:
            if is_useless((mark,)) or mark in settings.drop:
                counts.dropped[mark] += 1
                return None
        counts.kept += 1
        self.lengths["characters"].append(len(text))
        if answer.completion_tokens is not None:
            self.lengths["completion_tokens"].append(answer.completion_tokens)
        return {
            "text": text,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "attempts": attempts,
            "stopped_by_length": LENGTH in marks,
            "refusal": REFUSAL in marks,
            "duplicate_answer": "duplicate-answer" in marks,
        }


def write_output(plan: Plan, store: AnswerStore, output: Path, allow_missing: bool) -> dict[str, Any]:
    """Write the parquet file and its card; both appear whole or not at all.

    Returns:
        The card.

    Raises:
        GadEndpointError: Answers are missing, and that is not allowed.
        GadDataError: No answer is usable.
    """
    rows = Rows(plan, store, allow_missing)
    # Where a file of this name may not be overwritten has been decided before anything was asked.
    with outputs(overwrite=True) as files:
        temporary = files.add(output)
        files.add(card_path(output))
        schema = output_schema(plan.settings.samples, plan.prompts.has_images)
        with RowWriter(temporary, schema) as writer:
            for row in rows:
                writer.write(row)
        counts = rows.counts
        if counts.missing and not allow_missing:
            raise GadEndpointError(
                f"{counts.missing} of {counts.wanted} answers are missing; the others are kept in {store.path}. The "
                "same command asks for the missing ones again; --allow-missing writes the file without them"
            )
        if not counts.kept:
            raise GadDataError(f"no answer can be used ({_reasons(counts)}); nothing was written{_remedy(counts)}")
        card = _card(plan, rows, temporary, output)
        files.write_card(card_path(output), card)
    return card


def _reasons(counts: Counts) -> str:
    reasons = {**counts.dropped, "rejected": counts.rejections.total(), "missing": counts.missing}
    return ", ".join(f"{name}: {number}" for name, number in reasons.items() if number)


def _remedy(counts: Counts) -> str:
    """What the API said of what it refused, and what became of empty answers."""
    told = ""
    if counts.rejections:
        told += f". The API says: {counts.rejections.most_common(1)[0][0]}"
    if counts.empty_by_length:
        told += (
            f". {counts.empty_by_length} empty answers were stopped by their length: a model that thinks first needs a "
            "larger --max-tokens"
        )
    return told


def _card(plan: Plan, rows: Rows, written: Path, output: Path) -> dict[str, Any]:
    source, counts = plan.prompts.source, rows.counts
    described = {"name": source.name, **source.details} if source.path is None else describe_file(source.path)
    return {
        "command": "teacher collect",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": describe_file(written, output.name) | {"rows": counts.rows_by_teacher.total()},
        "prompts": described | {"rows": rows.prompts, "limit": plan.prompts.limit, "duplicates": rows.duplicates},
        "answers": vars(counts)
        | {
            "rejected": counts.rejections.total(),
            "rejections": dict(counts.rejections.most_common(SHOWN_REJECTIONS)),
        },
        "lengths": {name: _spread(values) for name, values in rows.lengths.items()},
        "tokens": {
            teacher.name: {
                "prompt": rows.tokens[teacher.name][0],
                "completion": rows.tokens[teacher.name][1],
                "cost": round(teacher.cost(*rows.tokens[teacher.name]), 6) if teacher.price else None,
            }
            for teacher in plan.settings.teachers
        },
        # No key is among them, only the names of their variables.
        "settings": plain(plan.settings),
    }


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    """Mean and percentiles; None where nothing was counted."""
    if not values:
        return None
    shares = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "max": 100}
    found = dict(zip(shares, np.percentile(values, [*shares.values()]).tolist(), strict=True))
    return {"mean": round(statistics.fmean(values), 2), **found}
