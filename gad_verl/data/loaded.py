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
"""Data files as a run loads them: whether verl's reader makes of them what the check has read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets

from gad_verl.data.reading import one_line
from gad_verl.data.schema import check_messages, teacher_texts
from gad_verl.errors import GadDataError

_TEXT = ("string", "large_string", "string_view")


def load_file(path: str | Path) -> datasets.Dataset:
    """A file as ``RLHFDataset`` of verl reads it, from the same cache.

    Raises:
        GadDataError: Names the file, and what the reader says.
    """
    path = Path(path).expanduser()
    kind = "parquet" if path.suffix == ".parquet" else "json"
    try:
        return datasets.load_dataset(kind, data_files=str(path))["train"]
    except Exception as error:
        # Of many kinds; all of them are for the user to mend.
        reason = one_line(error.__cause__ or error)
        raise GadDataError(
            f"{path}: datasets, with which verl reads it, cannot load the file: {reason}. Save it as parquet"
        ) from None


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in _TEXT


def _inner(feature: Any) -> Any:
    """What a list holds; None for what is no list."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


def _is_chat(feature: Any) -> bool:
    message = _inner(feature)
    return isinstance(message, dict) and all(_is_text(message.get(name)) for name in ("role", "content"))


def _check_values(
    path: str,
    loaded: datasets.Dataset,
    prompt_key: str,
    teacher_key: str,
    read_texts: Callable[[Any, str], list[str]],
) -> None:
    """Look at every row of columns whose type alone does not tell that they are texts."""
    prompt, teacher = loaded.features[prompt_key], loaded.features[teacher_key]
    checks: dict[str, tuple[Callable[[Any, str], Any], Any]] = {}
    if not _is_chat(prompt):
        checks[prompt_key] = (check_messages, prompt)
    if not _is_text(teacher) and not _is_text(_inner(teacher)):
        checks[teacher_key] = (read_texts, teacher)
    for key, (check, feature) in checks.items():
        for number, value in enumerate(loaded[key]):
            try:
                check(value, f"{path}, row {number}, column {key!r}")
            except GadDataError as error:
                raise GadDataError(
                    f"{error}. The file says otherwise, but datasets, with which verl reads it, makes of the column "
                    f"{feature}: save the file as parquet, which keeps texts as texts"
                ) from None


def _check_alike(paths: Sequence[str], loaded: Sequence[datasets.Dataset]) -> None:
    """Check that the files can be put together, as verl does it."""
    try:
        datasets.concatenate_datasets(list(loaded))
    except (ValueError, TypeError) as error:
        for path, other in zip(paths[1:], loaded[1:], strict=True):
            try:
                datasets.concatenate_datasets([loaded[0], other])
            except (ValueError, TypeError):
                first, second = loaded[0].features, other.features
                differing = [name for name in first if name in second and first[name] != second[name]]
                for name in differing:
                    kinds = f"{first[name]} in {paths[0]} and {second[name]} in {path}"
                    raise GadDataError(
                        f"the files cannot be read together, because the column {name!r} is {kinds}. Write the column "
                        "with one type in all files (by one library), or leave it out if nothing reads it"
                    ) from None
        raise GadDataError(f"the files {', '.join(paths)} cannot be read together: {one_line(error)}") from None


def check_loaded(
    paths: Sequence[str],
    prompt_key: str,
    teacher_key: str,
    read_texts: Callable[[Any, str], list[str]] = teacher_texts,
) -> None:
    """Load files as the run will, and check that prompts and teacher texts are still texts, and the files alike.

    The rows themselves were checked before (:func:`gad_verl.data.schema.check_file`): a JSON reader that guesses types
    makes timestamps of texts that are dates.

    Args:
        paths: Files that are read together.
        prompt_key: Column of the prompts.
        teacher_key: Column of the teacher texts.
        read_texts: Reads that column.

    Raises:
        GadDataError: Names the files, the row and the column, and the remedy.
    """
    loaded = [load_file(path) for path in paths]
    for path, one in zip(paths, loaded, strict=True):
        _check_values(path, one, prompt_key, teacher_key, read_texts)
    _check_alike(paths, loaded)
