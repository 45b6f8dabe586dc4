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
"""What is asked of whom: teachers, sampling, what is dropped, what is asked again."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.requests import check_json
from gad_verl.tools.teacher.prompts import Framing

ASSIGNMENTS = ("split", "all")
# The responses of the paper end there, and a teacher without a limit has a price without one.
DEFAULT_MAX_TOKENS = 1536
DROPPABLE = ("duplicate-prompt", "duplicate-answer", "refusal", "length")

_ENDPOINT_KEYS = tuple(entry.name for entry in fields(Endpoint))
_TEACHER_KEYS = ("name", "weight", "sampling", "price", *_ENDPOINT_KEYS)
_FILE_KEYS = ("teachers", "assign", "examples", "sampling")
_PRICE_KEYS = ("prompt", "completion")

# The client's own part of a request's body.
_RESERVED = {"model": "model", "messages": "the prompts", "stream": "--stream", "n": "--samples"}
_LOOKS_LIKE_A_KEY = re.compile(r"^(?:sk|hf|gsk|xai|pk|rk)[-_][A-Za-z0-9_-]{12,}$|^Bearer ", re.IGNORECASE)


@dataclass(frozen=True)
class Teacher:
    """One teacher.

    Attributes:
        name: Goes into the column ``teacher``.
        endpoint: Where it is asked.
        sampling: Temperature and the like, as the API calls them.
        weight: Share of the prompts it gets, among several with ``assign: split``.
        price: Per million tokens of prompt and of answer; None if unknown.
    """

    name: str
    endpoint: Endpoint
    sampling: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    price: tuple[float, float] | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost; 0 where no price is known."""
        prompt, completion = self.price or (0.0, 0.0)
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6


@dataclass(frozen=True)
class CollectSettings:
    """Everything about a collection but prompts and output.

    Attributes:
        teachers: At least one, names all different.
        assign: ``split`` gives each prompt to one teacher, by weight; ``all`` to every one.
        samples: Answers per prompt and teacher.
        framing: What stands around a prompt.
        student_prompt: ``asked``: the student gets what the teacher gets; ``given``: the prompt alone.
        ask_again: Marks of answers that are asked for again, with the next seed.
        ask_again_times: How often at most.
        ask_again_warmer: Added to the temperature with every time, where one is set.
        drop: Of :data:`DROPPABLE`, what is left out of the output; empty answers and those cut by a filter always are.
    """

    teachers: tuple[Teacher, ...]
    assign: str = "split"
    samples: int = 1
    framing: Framing = Framing()
    student_prompt: str = "asked"
    ask_again: tuple[str, ...] = ("empty",)
    ask_again_times: int = 2
    ask_again_warmer: float = 0.0
    drop: tuple[str, ...] = ("duplicate-prompt",)

    def __post_init__(self) -> None:
        if not self.teachers:
            raise GadConfigError("no teacher: set --base-url and --model, or teachers in the settings file")
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise GadConfigError(f"two teachers have one name; the names are {', '.join(names)}")
        if self.assign not in ASSIGNMENTS:
            raise GadConfigError(f"assign: {self.assign!r} is not one of {', '.join(ASSIGNMENTS)}")
        for name in ("ask_again_times", "ask_again_warmer"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise GadConfigError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        for teacher in self.teachers:
            _check_sampling(teacher.sampling, f"teacher {teacher.name}")

    def identity(self) -> dict[str, Any]:
        """What changes the answers. The store of a collection refuses to mix two of them.

        The base URL is not part of it: the same model may be served from another place on another day.
        """
        framing = self.framing
        # Flat, so that an error can name what differs.
        teachers = {
            f"{teacher.name}: {name}": value
            for teacher in self.teachers
            for name, value in {"model": teacher.endpoint.model, "weight": teacher.weight, **teacher.sampling}.items()
        }
        return {
            **teachers,
            "assign": self.assign,
            "ask_again_warmer": self.ask_again_warmer,
            "system": framing.system,
            "template": [framing.template.plain, framing.template.with_input],
            "examples": list(framing.examples),
        }


def read_settings_file(path: Path) -> dict[str, Any]:
    """A YAML file with several teachers. Its keys stand in ``docs/teacher.md``.

    Raises:
        GadConfigError: Unreadable, an unknown key, a wrong type, or something that looks like an API key.
    """
    import yaml

    try:
        content = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GadConfigError(f"{path}: the settings file cannot be read: {error}") from None
    except yaml.YAMLError as error:
        # The message of the parser would quote the line, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise GadConfigError(f"{path}{line}: the settings file is no YAML") from None
    if not isinstance(content, dict):
        raise GadConfigError(f"{path}: the settings file must be a mapping with the key teachers")
    _refuse_keys(content, path)
    _known(content, _FILE_KEYS, f"{path}")
    teachers = content.get("teachers")
    if not isinstance(teachers, list) or not teachers or not all(isinstance(teacher, dict) for teacher in teachers):
        raise GadConfigError(f"{path}: teachers must be a list of mappings, each with base_url and model")
    for number, teacher in enumerate(teachers):
        where = f"{path}, teacher {number}"
        _known(teacher, _TEACHER_KEYS, where)
        for name in ("base_url", "model"):
            if not isinstance(teacher.get(name), str):
                raise GadConfigError(f"{where}: {name} is missing, or no text")
        _known(_mapping(teacher, "price", where), _PRICE_KEYS, f"{where}, price")
        _mapping(teacher, "sampling", where)
    _mapping(content, "sampling", f"{path}")
    examples = content.get("examples") or []
    for message in examples if isinstance(examples, list) else [examples]:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise GadConfigError(f"{path}: examples must be a list of messages with role and content")
        if not all(isinstance(value, str) for value in message.values()):
            raise GadConfigError(f"{path}: role and content of an example must be text")
    return content


def teachers_of(content: Mapping[str, Any], sampling: Mapping[str, Any], **limits: Any) -> tuple[Teacher, ...]:
    """The teachers of a settings file.

    Args:
        content: What :func:`read_settings_file` gave.
        sampling: Overrides the file's; from the command line.
        limits: Of the endpoint, for teachers that set none; from the command line.
    """
    teachers = []
    for entry in content["teachers"]:
        endpoint = {**limits, **{name: entry[name] for name in _ENDPOINT_KEYS if name in entry}}
        prices = entry.get("price")
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise GadConfigError(f"teacher {entry.get('name', entry['model'])}: weight must be a positive number")
        teachers.append(
            Teacher(
                name=str(entry.get("name", entry["model"])),
                endpoint=Endpoint(**endpoint),
                sampling=merged_sampling(content.get("sampling"), entry.get("sampling"), sampling),
                weight=float(weight),
                price=None if prices is None else check_price([prices.get(name) for name in _PRICE_KEYS]),
            )
        )
    return tuple(teachers)


def merged_sampling(*parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Sampling, later parts before earlier ones, with a limit of the answer where none sets one."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part or {}
    if not merged.keys() & {"max_tokens", "max_completion_tokens"}:
        merged["max_tokens"] = DEFAULT_MAX_TOKENS
    return merged


def check_price(values: Sequence[Any]) -> tuple[float, float]:
    """Two prices per million tokens, prompt and answer."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < float("inf") for v in values):
        raise GadConfigError("a price needs two numbers, prompt and completion, per million tokens")
    return float(values[0]), float(values[1])


def _check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    for name, instead in _RESERVED.items():
        if name in sampling:
            raise GadConfigError(f"{where}: sampling must not hold {name!r}; it is set by {instead}")
    check_json(sampling, f"{where}: sampling:")
    if not isinstance(sampling.get("seed", 0), int):
        raise GadConfigError(f"{where}: seed must be a whole number")
    temperature = sampling.get("temperature")
    if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
        # It is counted with where something is asked again.
        raise GadConfigError(f"{where}: temperature must be a number, not {temperature!r}")


def _refuse_keys(value: Any, path: Path) -> None:
    """Raise where any text in the file looks like a secret; it is not repeated."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if str(name).lower() in ("api_key", "apikey", "key", "token", "authorization"):
                raise GadConfigError(
                    f"{path}: {name} does not belong into a file; put the key into an environment variable and its "
                    "name into api_key_env"
                )
            _refuse_keys(inner, path)
    elif isinstance(value, list):
        for inner in value:
            _refuse_keys(inner, path)
    elif isinstance(value, str) and _LOOKS_LIKE_A_KEY.match(value):
        raise GadConfigError(
            f"{path}: holds something that looks like an API key; put it into an environment variable and the "
            "variable's name into api_key_env"
        )


def _known(content: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in content:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
            raise GadConfigError(f"{where}: unknown key {name!r}; {hint}")


def _mapping(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = content.get(name) or {}
    if not isinstance(value, dict):
        raise GadConfigError(f"{where}: {name} must be a mapping")
    return value
