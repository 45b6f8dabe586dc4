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
"""The commands of ``gad-verl``, a module each.

A module offers ``add_to(commands)``, which registers its parser with ``set_defaults(run=...)``; what is heavy it
imports inside ``run``, so that ``gad-verl --help`` answers at once. ``gad_verl.cli`` lists the modules.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

Options = TypeVar("Options")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name a run's configuration, as ``verl.trainer.main_ppo`` takes them."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for verl.trainer.main_ppo")
    parser.add_argument("--config-name", help="such as gad_cpu (default: gad_trainer)")
    parser.add_argument("--config-path", metavar="FOLDER", help="folder of the configuration, absolute")


def file_path(text: str) -> Path:
    """A file or a folder, as the ``type`` of an option: of ``--output=~/x`` a shell leaves the ``~`` as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # The home of nobody.
        return Path(text)


def positive(text: str) -> int:
    """A whole number from 1, as the ``type`` of an option."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0, as the ``type`` of an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def template_options(text: str) -> dict[str, Any]:
    """What a chat template is given, as JSON, as the ``type`` of an option."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object such as {{"enable_thinking": false}}')
    return value


def chosen(kind: type[Options], arguments: argparse.Namespace, **other: object) -> Options:
    """A dataclass of settings: fields that have the name of an option take what was given, and the other ones."""
    names = {entry.name for entry in dataclasses.fields(kind)} & vars(arguments).keys()
    return kind(**{name: getattr(arguments, name) for name in names} | other)
