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
"""Checks that a row brings with it: instructions, a number, tests of code. Each answer passes or fails.

A row's checks are a list of objects, or the same as JSON text::

    [{"kind": "punctuation:no_comma"},
     {"kind": "length_constraints:number_words", "num_words": 50, "relation": "at least"},
     {"kind": "number", "value": "1/3", "tolerance": 0.001},
     {"kind": "tests", "code": "assert double(2) == 4", "seconds": 5}]

The columns of IFEval fit as they are: the names in ``instruction_id_list``, the arguments in ``kwargs``.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gad_verl.errors import GadDataError
from gad_verl.tools.evaluation.code_tests import CodeLimits, passes_tests
from gad_verl.tools.evaluation.instruction_rules import RULES, follows
from gad_verl.tools.evaluation.number_answers import is_number

NUMBER, TESTS = "number", "tests"
IFEVAL_NAMES, IFEVAL_ARGUMENTS = "instruction_id_list", "kwargs"


@dataclass(frozen=True)
class Check:
    """One check of a row.

    Args:
        kind: ``number``, ``tests``, or a rule of :mod:`gad_verl.tools.evaluation.instruction_rules`.
        arguments: Of that kind.
    """

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Look whether the check can be made: with an empty answer, since a model may write for hours before the first.

        Raises:
            GadDataError: It cannot.
        """
        if self.kind != TESTS:
            self.passes("")
            return
        limits = {name: value for name, value in self.arguments.items() if name != "code"}
        try:
            CodeLimits(**limits)
        except TypeError as error:
            raise GadDataError(f"the check {self.kind!r} cannot be made with {limits}: {error}") from None
        if not isinstance(self.arguments.get("code"), str):
            raise GadDataError(f"the check {self.kind!r} needs code: Python statements that test the answer's")

    def passes(self, text: str) -> bool:
        """Whether an answer passes.

        Raises:
            GadDataError: The check cannot be made.
        """
        arguments = dict(self.arguments)
        try:
            if self.kind == NUMBER:
                return is_number(text, **arguments)
            if self.kind == TESTS:
                return passes_tests(text, arguments.pop("code"), CodeLimits(**arguments))
        except (TypeError, KeyError) as error:
            raise GadDataError(f"the check {self.kind!r} cannot be made with {dict(self.arguments)}: {error}") from None
        return follows(text, self.kind, arguments)


def _objects(value: object, where: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise GadDataError(f"{where}: {value[:60]!r} is no JSON") from None
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise GadDataError(f"{where}: expected a list of checks, got {str(value)[:60]!r}")
    return list(value)


def _mapping(value: object, where: str) -> dict[str, Any]:
    """The arguments of one instruction: an object, the same as JSON text, or nothing."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            raise GadDataError(f"{where}: {value[:60]!r} is no JSON") from None
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise GadDataError(f"{where}: expected objects with the arguments of a rule, got {str(value)[:60]!r}")
    return dict(value)


def checks_of(
    record: Mapping[str, Any], column: str, where: str, left_out: Counter[str] | None = None
) -> tuple[Check, ...]:
    """The checks of a row of data; none where the column holds none.

    Args:
        record: The row.
        column: Of the checks, or ``instruction_id_list``.
        where: File and row, for messages.
        left_out: Counts the kinds of IFEval that no rule checks, each time that a row has one; they are no error then.

    Raises:
        GadDataError: Names the row and what is wrong.
    """
    if column not in record:
        raise GadDataError(f"{where}: there is no column {column!r} (--checks); it has {', '.join(record)}")
    value = record[column]
    if value is None or (isinstance(value, float) and value != value):
        return ()
    place = f"{where}, column {column!r}"
    items = _objects(value, place)
    if column == IFEVAL_NAMES:
        arguments = _objects(record.get(IFEVAL_ARGUMENTS) or [{}] * len(items), f"{where}, column 'kwargs'")
        if len(arguments) != len(items):
            raise GadDataError(f"{where}: {len(items)} instructions with {len(arguments)} objects of kwargs")
        found = [
            Check(str(name), _mapping(some, f"{where}, column {IFEVAL_ARGUMENTS!r}"))
            for name, some in zip(items, arguments, strict=True)
        ]
    else:
        found = []
        for item in items:
            if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
                raise GadDataError(f"{place}: expected objects with a kind, got {str(item)[:60]!r}")
            # A file of rows fills what an object lacks with nulls.
            some = {name: one for name, one in item.items() if name != "kind" and one is not None}
            found.append(Check(item["kind"], some))
    known = {NUMBER, TESTS, *RULES}
    if column == IFEVAL_NAMES and left_out is not None:
        left_out.update(check.kind for check in found if check.kind not in known)
        found = [check for check in found if check.kind in known]
    for check in found:
        if check.kind not in known:
            raise GadDataError(f"{place}: no rule checks {check.kind!r}; known: {', '.join(sorted(known))}")
        try:
            check.validate()
        except GadDataError as error:
            raise GadDataError(f"{place}: {error}") from None
    return tuple(found)


def passed_share(checks: Sequence[Check], text: str) -> float | None:
    """Share of the checks that an answer passes; None without any."""
    return sum(check.passes(text) for check in checks) / len(checks) if checks else None
