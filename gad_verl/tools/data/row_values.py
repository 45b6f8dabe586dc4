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
"""Values of a row of any layout: what is needed, what may lack, and what is written in another form than it is."""

import json
import re
from collections.abc import Mapping
from typing import Any

from gad_verl.data.content import is_blank

Row = Mapping[str, Any]

# What pandas writes of a column of lists into CSV: Python, in which JSON cannot be read without guessing.
_PYTHON_TURNS = re.compile(r"\[?\s*\{\s*(?=.*'(?:role|from|content|value)'\s*:)'.*\}\s*\]?", re.DOTALL)
_LIST_OF_TEXTS = re.compile(r"\[\s*(['\"]).*\1\s*\]", re.DOTALL)


class Unusable(Exception):
    """A row that cannot be trained on. Its message is the reason, the same for all rows of the kind."""


class WrongType(Exception):
    """A value of another type than the layout has. Its message names the column."""


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or the NaN of pandas."""
    return value is None or isinstance(value, float) and value != value


def text(row: Row, name: str) -> str:
    """A needed text; an empty one makes the row unusable."""
    value = row.get(name)
    if is_missing(value):
        raise Unusable(f"{name} is missing")
    if not isinstance(value, str):
        raise WrongType(f"column {name!r}: expected text, got {type(value).__name__}")
    if is_blank(value):
        raise Unusable(f"{name} is empty")
    return value


def optional(row: Row, *names: str) -> str | None:
    """The first of several optional texts; numbers become text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value):
            return str(value)
    return None


def optional_text(row: Row, name: str) -> str:
    """A text that may lack; empty then."""
    value = row.get(name)
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise WrongType(f"column {name!r}: expected text, got {type(value).__name__}")
    return value


def is_written_list(value: str) -> bool:
    """Whether a text is a list of texts as JSON or Python write it."""
    return _LIST_OF_TEXTS.fullmatch(value.strip()) is not None


def parsed(value: Any, name: str) -> Any:
    """A list or an object that stands in the cell as JSON text, as in CSV; anything else as it is.

    Raises:
        WrongType: It is a chat written as Python text.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            if _PYTHON_TURNS.fullmatch(value.strip()):
                raise WrongType(
                    f"column {name!r}: a chat in Python's notation, as pandas.to_csv writes it, instead of JSON: save "
                    "the data as parquet or JSONL, or write the column by json.dumps"
                ) from None
    return value


def list_of_objects(row: Row, name: str) -> list[dict[str, Any]]:
    """A needed list of objects, as a list or as JSON text."""
    value = row.get(name)
    if is_missing(value):
        raise Unusable(f"{name} is missing")
    value = parsed(value, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise WrongType(f"column {name!r}: expected a list of objects, got {type(value).__name__}")
    if not value:
        raise Unusable(f"{name} is empty")
    return value
