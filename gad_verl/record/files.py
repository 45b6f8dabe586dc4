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
"""Files that are whole or not there, lines of JSON that a kill may have cut off, and what JSON can hold of a value."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError, GadDataError

# Nested deeper than this nothing is that a program of ours writes, and much that reads values calls itself.
_DEEPEST = 100


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place at the end; an error leaves what was there.

    Args:
        path: File or folder to write. A folder that is there already must be empty.

    Example:
        >>> with replaced(folder / "state.pt") as temporary:  # doctest: +SKIP
        ...     torch.save(state, temporary)
    """
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_apart(
    written: Mapping[str, Path | None], read: Mapping[str, str | Path | None], in_place: tuple[str, str] | None = None
) -> None:
    """Refuse outputs that would replace what is read, or one another.

    Args:
        written: Files to write, by what the user calls them; None for those that are not asked for.
        read: Files to read, the same way. What is no file (a data set of a hub, a built-in template) is passed over.
        in_place: An output that may replace an input: the names of the two.

    Raises:
        GadConfigError: Names both and the remedy.
    """
    # Links, "~" and ".." can spell one file in two ways.
    places = {name: os.path.realpath(os.path.expanduser(path)) for name, path in written.items() if path is not None}
    inputs = {name: os.path.expanduser(path) for name, path in read.items() if path is not None}
    outputs_at: dict[str, str] = {}
    for name, place in places.items():
        if place in outputs_at:
            raise GadConfigError(f"{written[name]} is named for two outputs, {outputs_at[place]} and {name}")
        outputs_at[place] = name
        for other, path in inputs.items():
            # The same file under two names where the disk knows no capitals.
            is_same = os.path.isfile(path) and (
                place == os.path.realpath(path) or (os.path.exists(place) and os.path.samefile(place, path))
            )
            if is_same and (name, other) != in_place:
                raise GadConfigError(f"{name} {written[name]} would replace {other}: name another file")


def follow_umask(folder: Path) -> None:
    """Give the files in a folder the mode of any new file: safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~mask)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file that is the old or the new one at any time.

    Args:
        path: Its folder is there already.
        content: A text is written in UTF-8. Half of a surrogate pair, which a tokenizer can leave behind, is no UTF-8;
            it becomes a question mark.
    """
    with replaced(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", errors="replace"))


def read_json_lines(path: Path) -> list[tuple[int, bytes, dict[str, Any] | None]]:
    """The lines of a JSONL file that are not empty; none if there is no such file.

    A last line that is being written, or that a kill cut off, is left out.

    Returns:
        Number from 1, the line itself without its end, and the object in it: None where it holds none.

    Raises:
        GadDataError: If the file cannot be read.
    """
    try:
        # Not splitlines(): a text may hold characters that it takes for the end of a line.
        pieces = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GadDataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise GadDataError(f"{str(path)!r} cannot be read: no file has such a name ({error})") from None
    found = []
    for number, piece in enumerate(pieces, start=1):
        value = json_object(piece)
        if piece.strip() and (value is not None or number < len(pieces)):
            found.append((number, piece, value))
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file, or no object in it."""
    try:
        return json_object(path.read_bytes())
    except (OSError, ValueError):
        # A ValueError: a name with a null byte, or with half of a character, which no file has.
        return None


def json_object(text: bytes) -> dict[str, Any] | None:
    """The object that a text holds; None for any other text, also for one that is nested beyond reason."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and is_shallow(value) else None


def is_shallow(value: Any, levels: int = _DEEPEST) -> bool:
    """Whether what JSON gave is nested at most so deep: no more than anything sensible is, and than Python calls."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(is_shallow(one, levels - 1) for one in inner)


def to_json(value: Any) -> str:
    """Indented JSON of any result, for a file."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The same out of what JSON knows: numbers that are not finite become None, unknown objects their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        # Not asdict(): it makes counts of pairs out of a Counter.
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if type(value).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        return plain(OmegaConf.to_container(value, resolve=True))
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist())
    return str(value)
