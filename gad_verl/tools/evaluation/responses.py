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
"""Responses on disk: one line each as soon as it exists, and the settings that all lines of a folder share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import read_json, read_json_lines, to_json, write_atomically

RESPONSES = "responses.jsonl"
SETTINGS = "settings.json"
# Said for people; moved files with the same content are the same.
_NOTES = ("model", "data")
# Every settings file of ours has them: other programs have a settings.json too.
_OURS = {"weights", "rows"}


@dataclass(frozen=True)
class Response:
    """One response of a checkpoint.

    Args:
        prompt: Number of the prompt in the data file, from 0.
        sample: Number of the response to that prompt, from 0.
        prompt_id: Fingerprint of the chat (:attr:`gad_verl.tools.evaluation.rows.Row.prompt_id`).
        text: Without its end-of-text token, and without thoughts where they are hidden.
        finish_reason: "stop" or "length"; "thoughts" where it never came to its answer, and the text is empty.
        prompt_tokens: After a cut from the left.
        response_tokens: As sampled, the end-of-text token included.
        token_ids: The same; None in folders of gad-verl that did not write them.
        thought_tokens: Of them, those of thoughts; None where thoughts are not hidden.
        turns, calls, invalid_calls: Of a trajectory with tools; None of others.
    """

    prompt: int
    sample: int
    prompt_id: str
    text: str
    finish_reason: str
    prompt_tokens: int
    response_tokens: int
    token_ids: list[int] | None = None
    thought_tokens: int | None = None
    turns: int | None = None
    calls: int | None = None
    invalid_calls: int | None = None

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.finish_reason == "stop"

    @property
    def key(self) -> tuple[int, int]:
        """Prompt and sample."""
        return self.prompt, self.sample


def read_responses(path: Path) -> list[Response]:
    """The whole lines of a file; none if it does not exist. Nothing is changed.

    Raises:
        GadDataError: If a line is no response.
    """
    responses = []
    for number, _, line in read_json_lines(path):
        try:
            responses.append(Response(**(line or {})))
        except TypeError:
            raise GadDataError(f"{path}, line {number}: no response of gad-verl evaluate") from None
    return responses


def drop_torn_line(path: Path) -> None:
    """Cut off the line of a JSONL file that an interruption tore, so that another one can follow."""
    if path.is_file():
        whole = b"".join(line + b"\n" for _, line, _ in read_json_lines(path))
        if whole != path.read_bytes():
            write_atomically(path, whole)


class ResponseFile:
    """``responses.jsonl`` of a folder, open for more; a line torn by an interruption is cut off.

    Use as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESPONSES
        self.responses = {response.key: response for response in read_responses(self.path)}
        drop_torn_line(self.path)
        # Made by the first response: what fails before leaves no empty file.
        self._handle: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.close()

    def append(self, response: Response) -> None:
        """Write a response; it survives the end of the process from here on."""
        content = asdict(response)
        for name in ("thought_tokens", "turns", "calls", "invalid_calls"):
            if content[name] is None:
                del content[name]
        if self._handle is None:
            self._handle = self.path.open("a", encoding="utf-8")
        self._handle.write(json.dumps(content, ensure_ascii=False) + "\n")
        self._handle.flush()
        self.responses[response.key] = response


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make ``folder`` the one of these settings, or check that it is. Settings without any response bind nobody.

    Raises:
        GadConfigError: If it holds responses of other settings (the differing ones are named), or is no folder.
        GadDataError: If it holds something else.
    """
    file = folder / SETTINGS
    if file.is_file() and read_responses(folder / RESPONSES):
        before = read_settings(file)
        differing = differing_settings(before, settings)
        if differing:
            changes = ", ".join(f"{name}: {before.get(name)!r} there, {settings.get(name)!r} now" for name in differing)
            raise GadConfigError(f"{folder} holds responses of other settings ({changes}); name another --output")
        return
    is_ours = _OURS <= (read_json(file) or {}).keys()
    if not is_ours and folder.is_dir() and any(not path.name.endswith(".partial") for path in folder.iterdir()):
        raise GadDataError(f"{folder} is not empty and no folder of gad-verl evaluate; name another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GadConfigError(f"--output {folder} cannot be made a folder: {error.strerror}") from None
    write_atomically(file, to_json(dict(settings)))


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that make other responses; a folder of before a setting existed has none of it."""
    names = sorted({*before, *now})
    return [name for name in names if name not in _NOTES and (before.get(name) or None) != (now.get(name) or None)]


def read_settings(file: Path) -> dict[str, Any]:
    """The settings of a folder.

    Raises:
        GadDataError: If the file is damaged.
    """
    settings = read_json(file)
    if settings is None:
        raise GadDataError(f"{file} is damaged; remove its folder or name another --output")
    return settings
