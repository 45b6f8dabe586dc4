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
"""Wrappers around an instruction: the text of the user's turn."""

import re
from dataclasses import dataclass
from pathlib import Path

from gad_verl.errors import GadConfigError

_FIELD = re.compile(r"\{(instruction|input)\}")


@dataclass(frozen=True)
class Template:
    """A text around instruction and input.

    Args:
        name: For the card.
        plain: Text with ``{instruction}``, for rows without an input.
        with_input: Text with ``{instruction}`` and ``{input}``, for rows that have one.
    """

    name: str
    plain: str
    with_input: str

    def render(self, instruction: str, context: str = "") -> str:
        """The user's turn. Braces in the values stay as they are."""
        values = {"instruction": instruction, "input": context}
        return _FIELD.sub(lambda match: values[match[1]], self.with_input if context.strip() else self.plain)


NONE = Template("none", "{instruction}", "{instruction}\n\n{input}")

# The wrapper of the Stanford Alpaca data, word for word: models are evaluated with exactly this text.
ALPACA = Template(
    "alpaca",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
)

BUILT_IN = {template.name: template for template in (NONE, ALPACA)}


def load_template(name: str) -> Template:
    """A built-in template, or one from a UTF-8 text file with ``{instruction}`` and, if it likes, ``{input}``.

    Where the file has no ``{input}``, a row's input follows the instruction after an empty line; where it has one, a
    row without an input leaves nothing in its place.

    Raises:
        GadConfigError: If there is no such template or file, or ``{instruction}`` is missing.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError:
        raise GadConfigError(f"--template {name}: neither one of {', '.join(BUILT_IN)} nor a readable file") from None
    except UnicodeDecodeError:
        raise GadConfigError(f"--template {name}: the file is not UTF-8") from None
    if "{instruction}" not in text:
        raise GadConfigError(f"--template {name}: the file has no {{instruction}}")
    if "{input}" in text:
        return Template(path.name, text, text)
    return Template(path.name, text, text.replace("{instruction}", "{instruction}\n\n{input}"))
