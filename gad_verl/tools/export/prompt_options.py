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
"""How a student was asked in its training: options of its template, such as a switch for thinking, and its thoughts.

A checkpoint of a run has them in the record of the run, an exported student in ``gad_prompt.json``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gad_verl.config.thinking import HIDDEN
from gad_verl.record import read_run
from gad_verl.record.files import read_json
from gad_verl.tools.export.checkpoint import Checkpoint

PROMPT_FILE = "gad_prompt.json"
_KEY = "chat_template_kwargs"
_THINKING, _PROCESSOR = "thinking", "mm_processor_kwargs"


@dataclass(frozen=True)
class PromptOptions:
    """What is known of a student's template options.

    Args:
        values: ``data.apply_chat_template_kwargs`` of its run; empty if none is known.
        source: Where they stand; None where nothing tells how the student was trained.
        thinking: ``gad.thinking`` of its run, as far as it was not left out; empty if none is known.
        processor: ``data.mm_processor_kwargs`` of its run; empty if none is known.
    """

    values: Mapping[str, Any]
    source: Path | None
    thinking: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hides_thoughts(self) -> bool:
        """Whether the student thinks, and its answers alone were read."""
        return self.thinking.get("mode") == HIDDEN


def write_prompt_options(
    folder: Path,
    values: Mapping[str, Any],
    thinking: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> None:
    """Write ``gad_prompt.json`` into a folder."""
    content = {_KEY: dict(values)} | ({_THINKING: dict(thinking)} if thinking else {})
    content |= {_PROCESSOR: dict(processor)} if processor else {}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / PROMPT_FILE).write_text(text + "\n", encoding="utf-8")


def find_prompt_options(checkpoint: Checkpoint) -> PromptOptions:
    """The template options of the run that a checkpoint comes from."""
    if not checkpoint.is_verl:
        file = checkpoint.folder / PROMPT_FILE
        found = read_json(file)
        values = None if found is None else found.get(_KEY)
        if found is None or not isinstance(values, dict):
            return PromptOptions({}, None)
        return PromptOptions(values, file, _section(found, _THINKING), _section(found, _PROCESSOR))
    run = checkpoint.path.absolute().parent
    config = (read_run(run) or {}).get("config")
    if not isinstance(config, dict):
        return PromptOptions({}, None)
    data = config.get("data") or {}
    values = data.get("apply_chat_template_kwargs") or {}
    return PromptOptions(values, run, _section(config.get("gad") or {}, _THINKING), _section(data, _PROCESSOR))


def _section(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = found.get(key)
    return section if isinstance(section, dict) else {}
