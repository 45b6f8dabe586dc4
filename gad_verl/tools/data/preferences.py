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
"""Files of preferences: a wanted and an unwanted answer beside each other (DPO), or answers with a mark (KTO).

Only what was wanted is a teacher's text. An unwanted answer never becomes one.
"""

from typing import Any

from gad_verl.tools.data.chats import Messages, checked_turns, history_of, prompt_of, read_turns
from gad_verl.tools.data.row_values import Row, Unusable, WrongType, is_missing, list_of_objects, optional_text, parsed
from gad_verl.tools.data.row_values import text as needed_text

CHOSEN = "chosen"
LABELS = ("label", "kto_tag")
# Where the prompt of a pair may stand, the first that is there.
PROMPTS = ("conversations", "messages", "prompt", "instruction", "question")
_TRANSCRIPT = ("\n\nHuman:", "Human:", "\n\nH:", "[INST]", "<|im_start|>", "<|user|>")
_TRUE, _FALSE = ("true", "yes"), ("false", "no")


def refuse_unwanted(row: Row) -> None:
    """Raise Unusable for an answer that its row marks as unwanted (``label``, ``kto_tag``: true or false).

    Raises:
        WrongType: The mark is something else: then it says nothing about wanted and unwanted.
    """
    for name in LABELS:
        if name not in row:
            continue
        value = row[name]
        if is_missing(value):
            raise Unusable(f"{name} is missing")
        said = value.strip().lower() if isinstance(value, str) else value
        if said is False or said in _FALSE:
            raise Unusable(f"an unwanted answer ({name} is false)")
        if said is not True and said not in _TRUE:
            raise WrongType(
                f"column {name!r}: expected true or false, whether the answer is wanted, got {value!r:.40}. If it "
                f"means something else, rename it: --rename {name}=class"
            )


def chosen_pair(row: Row) -> tuple[Messages, str]:
    """Prompt and wanted answer of a row with ``chosen``: a text, one turn, or the whole chat.

    Raises:
        Unusable, WrongType: There is no such pair in the row, or two that contradict each other.
    """
    answer = row.get(CHOSEN)
    if is_missing(answer):
        raise Unusable(f"{CHOSEN} is missing")
    answer = parsed(answer, CHOSEN) if isinstance(answer, str) and answer.lstrip().startswith(("[{", "{")) else answer
    if isinstance(answer, dict):
        answer = [answer] if answer.keys() & {"from", "role"} else str(row[CHOSEN])
    if not isinstance(answer, list):
        written = needed_text(row, CHOSEN)
        if written.startswith(_TRANSCRIPT):
            raise Unusable(f"{CHOSEN} is a transcript of several turns in one text")
        return checked_turns(_prompt(row)), written
    turns = read_turns(list_of_objects({CHOSEN: answer}, CHOSEN), CHOSEN)
    if turns[-1]["role"] != "assistant":
        raise Unusable(f"{CHOSEN} does not end with the assistant")
    *before, last = turns
    prompt = _before(row, before, last)
    return checked_turns(prompt), needed_text({CHOSEN: last["content"]}, CHOSEN)


def _before(row: Row, before: Messages, last: dict[str, str]) -> Messages:
    """The chat before the wanted answer, from the prompt's column and from the turns before it in ``chosen``."""
    name = _prompt_column(row)
    if not before:
        return _prompt(row)
    if name is None:
        return before
    value = parsed(row[name], name)
    if isinstance(value, list):
        given = read_turns(list_of_objects({name: value}, name), name)
        if given in (before, [*before, last]):
            return before
        if given[-1]["role"] == "user" and before[0]["role"] != "system" and given[0]["role"] == "system":
            before = [given[0], *before]
        if given == before:
            return before
    elif any(turn["role"] == "user" and turn["content"].strip() == str(value).strip() for turn in before):
        return before
    raise Unusable(f"{CHOSEN} continues another prompt than that of its row")


def _prompt_column(row: Row) -> str | None:
    return next((name for name in PROMPTS if not is_missing(row.get(name))), None)


def _prompt(row: Row) -> Messages:
    name = _prompt_column(row)
    if name is None:
        raise Unusable("the prompt is missing")
    if name in ("instruction", "question"):
        parts = [needed_text(row, name), optional_text(row, "input")]
        asked = {"role": "user", "content": "\n\n".join(part for part in parts if part)}
        return [*history_of(row), asked]
    value: Any = row[name]
    if isinstance(value, str) and value.startswith(_TRANSCRIPT):
        raise Unusable(f"{name} is a transcript of several turns in one text")
    return prompt_of(row, name)
