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
"""How texts ended: what APIs call it, and what rows say of it.

A text that was cut must not be taught with an end-of-text token, whoever cut it.
"""

from collections.abc import Mapping
from typing import Any

from gad_verl.errors import GadDataError

STOP, LENGTH, CONTENT_FILTER = "stop", "length", "content_filter"
# Where an API gives no reason, and its answer is complete.
UNKNOWN = "unknown"
_FINISH_REASONS = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed", "end"), STOP),
    **dict.fromkeys(
        (
            "length",
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "max_length",
            "model_length",
            "model_context_window_exceeded",
            "context_length_exceeded",
            "token_limit",
            "incomplete",
        ),
        LENGTH,
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "guardrail_intervened",
            "safety",
            "image_safety",
            "recitation",
            "prohibited_content",
            "blocklist",
            "spii",
            "sensitive",
            "language",
            "error_toxic",
        ),
        CONTENT_FILTER,
    ),
}
# Names of an API's enumeration, as its client writes them.
_PREFIX = "finish_reason_"
# The API broke off: it is no end of the text.
BROKEN_OFF = (
    "error",
    "error_limit",
    "insufficient_system_resource",
    "network_error",
    "abort",
    "aborted",
    "cancelled",
    "timeout",
)
_CUT = (LENGTH, CONTENT_FILTER, *BROKEN_OFF)

EXTRA_INFO = "extra_info"
_STOPPED = "stopped_by_length"
# What rows say it in, as columns or in extra_info: a value for all texts of the row, or a list with one for each.
_REASONS = ("finish_reason", "finish_reasons")
MARKS = (*_REASONS, _STOPPED, "finished")
_ANSWERS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def finish_reason(value: Any) -> str:
    """Why a text ended, by one name for all APIs: ``stop``, ``length``, ``content_filter``, ``unknown`` or its own."""
    if not isinstance(value, str) or not value:
        return UNKNOWN
    name = value.strip().lower()
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX).strip()
    return _FINISH_REASONS.get(name, name) or UNKNOWN


def _is_cut(mark: str, value: Any, where: str) -> bool | None:
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    reason = finish_reason(value)
    if mark in _REASONS or reason in (STOP, *_CUT):
        return None if reason == UNKNOWN else reason in _CUT
    # A CSV has texts and numbers.
    said = _ANSWERS.get(str(value).strip().lower())
    if said is None:
        raise GadDataError(f"{where}: {mark}={value!r} is neither true nor false; correct it, or leave it out")
    return said if mark == _STOPPED else not said


def marks_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of how its texts ended, by the names of :data:`MARKS`; a column goes before ``extra_info``."""
    extra = row.get(EXTRA_INFO)
    places = (row, extra if isinstance(extra, Mapping) else {})
    found = {mark: next((place[mark] for place in places if place.get(mark) is not None), None) for mark in MARKS}
    return {mark: value for mark, value in found.items() if value is not None}


def cut_marks(row: Mapping[str, Any], count: int, where: str) -> list[bool | None]:
    """Whether each of the ``count`` texts of a row was cut; None where the row does not say.

    Args:
        row: With its ``extra_info``, or this alone.
        count: Number of the row's texts.
        where: File and row, for the error.

    Raises:
        GadDataError: If a list has another length, or an entry says nothing that is known.
    """
    found: list[bool | None] = [None] * count
    for mark, value in marks_of(row).items():
        values = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(values, list | tuple):
            values = [values] * count
        if len(values) != count:
            raise GadDataError(
                f"{where}: {len(values)} entries of {mark!r} for {count} texts; give one, or one for each text, or "
                "leave it out"
            )
        for place, one in enumerate(values):
            cut = _is_cut(mark, one, where)
            if cut is not None:
                found[place] = cut or bool(found[place])
    return found


def cut_texts(row: Mapping[str, Any], count: int, where: str) -> list[bool]:
    """:func:`cut_marks`; a text of which nothing is said was not cut."""
    return [bool(cut) for cut in cut_marks(row, count, where)]
