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
"""What a row of GAD looks like, and the check of a whole file before anything starts.

========================  ======================================  ===================================================
column                    type                                    meaning
========================  ======================================  ===================================================
``prompt``                list of chat messages                   what the student is asked (``data.prompt_key``)
``teacher_response``      text, or list of texts                  one or several teacher texts (``gad.teacher_key``)
``teacher_messages``      list of messages, or their JSON text    a teacher's trajectory, with ``gad.trajectory.enable``
``tools``                 list of tools, or JSON text, optional   what the teacher could call, to be checked
``images``                list of images, optional                at the places ``<image>`` (``data.image_key``)
``teacher``               text, or list of texts, optional        which teacher, or the teacher of each text
``data_source``           text, optional                          groups the validation metrics
``reward_model``          dict, optional                          ground truth of a verifiable task
``extra_info``            dict, optional                          anything; how the texts ended (``data.endings``)
========================  ======================================  ===================================================
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gad_verl.data.content import is_blank
from gad_verl.data.endings import EXTRA_INFO, MARKS, cut_marks
from gad_verl.data.reading import BadRow, open_file
from gad_verl.errors import GadDataError

_SUFFIXES = (".parquet", ".json", ".jsonl")

# Other names of the roles in data sets and APIs. Chat templates know system, user and assistant: most of them leave a
# message of another role out without a word, some write its name as it is.
ROLES = {
    "system": "system",
    # What the system message is called for newer models of OpenAI.
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


def check_unicode(text: str, where: str) -> None:
    """Raise GadDataError if a text holds half a character, which JSON can spell and nobody can encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise GadDataError(f"{where}: broken Unicode (half of a surrogate pair); mend or remove it") from None


def teacher_texts(value: Any, where: str) -> list[str]:
    """The teacher texts of a row as a list.

    Args:
        value: Content of the teacher column.
        where: File, row and column, for the error.

    Raises:
        GadDataError: If it is neither text nor a list of texts, or a text is empty.
    """
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, bytes) or not isinstance(texts, Sequence | set) and not hasattr(texts, "tolist"):
        raise GadDataError(f"{where}: expected a text or a list of texts, got {type(value).__name__}")
    texts = list(texts)
    if not texts:
        raise GadDataError(f"{where}: the list of teacher texts is empty; remove the row")
    for text in texts:
        if not isinstance(text, str):
            raise GadDataError(f"{where}: expected text, got {type(text).__name__}")
        if is_blank(text):
            raise GadDataError(f"{where}: the teacher text is empty; remove the row (or collect the answer again)")
        check_unicode(text, where)
    return texts


def teacher_names(value: Any, count: int, where: str) -> list[str | None]:
    """Who wrote each of the ``count`` teacher texts of a row.

    Args:
        value: Content of the column: None, one name for all texts, or a list with a name (or None) for each.
        count: Number of the row's teacher texts.
        where: File, row and column, for the error.

    Raises:
        GadDataError: If it is neither a text nor a list, a name is empty, or the list has another length.
    """
    if value is None or isinstance(value, str):
        names = [value] * count
    elif isinstance(value, Sequence) or hasattr(value, "tolist"):
        names = list(value)
        if len(names) != count:
            raise GadDataError(
                f"{where}: {len(names)} names for {count} teacher texts; give one name, or one for each text"
            )
    else:
        raise GadDataError(f"{where}: expected a name or a list of names, got {type(value).__name__}")
    for name in names:
        if name is not None and not isinstance(name, str):
            raise GadDataError(f"{where}: expected the name of a teacher, got {type(name).__name__}")
        if name is not None and not name.strip():
            raise GadDataError(f"{where}: the name of the teacher is empty; remove the column or name the teacher")
    return names


def check_messages(value: Any, where: str) -> None:
    """Raise GadDataError unless ``value`` is a chat that waits for an answer of the assistant."""
    if isinstance(value, str):
        raise GadDataError(
            f"{where}: the prompt is plain text; it must be a list of chat messages such as "
            '[{"role": "user", "content": "..."}]'
        )
    if value is None or not hasattr(value, "__len__") or isinstance(value, dict) or len(value) == 0:
        raise GadDataError(f"{where}: the prompt must be a non-empty list of chat messages, got {value!r:.80}")
    for message in value:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise GadDataError(f"{where}: a chat message needs the keys 'role' and 'content', got {message!r:.80}")
        if not isinstance(message["content"], str):
            raise GadDataError(
                f"{where}: the content of a message must be text (images are in a column of their own, at the places "
                f"<image>), got {type(message['content']).__name__}"
            )
        check_unicode(message["content"], where)
        _check_role(message["role"], where)
    if value[-1]["role"] == "assistant":
        raise GadDataError(
            f"{where}: the last message is the assistant's; the prompt must end before the answer (gad-verl data "
            "import takes whole chats apart)"
        )


def _check_role(role: Any, where: str) -> None:
    if not isinstance(role, str) or not role.strip():
        raise GadDataError(f"{where}: the role of a message must be text such as 'user', got {role!r:.80}")
    instead = ROLES.get(role.lower())
    # "developer" is what APIs call it; whether the student's template knows it, its rendering tells.
    if instead is not None and role not in (instead, "developer"):
        raise GadDataError(
            f"{where}: the role {role!r} is {instead!r} in chat templates: write that (gad-verl data import does)"
        )


def chat_id(messages: Sequence[Mapping[str, Any]]) -> str:
    """Fingerprint of a chat by roles and contents, images among them: the same in every file and process."""
    content = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=True, default=_fingerprint)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _fingerprint(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def _check_extra_info(value: Any, where: str) -> None:
    # verl's data set asks it for keys, whatever it is.
    if value is not None and not isinstance(value, Mapping):
        remedy = "Read it by json.loads" if isinstance(value, str) else "Put it into a dict"
        raise GadDataError(
            f"{where}, column {EXTRA_INFO!r}: expected a dict, got {type(value).__name__}. {remedy}, or leave the "
            "column out"
        )


def column_names(path: str | Path) -> list[str]:
    """Columns of a data file (of all rows, for JSON).

    Raises:
        GadDataError: If the file is not readable.
    """
    return open_file(path).columns


def check_file(
    path: str | Path,
    prompt_key: str,
    teacher_key: str,
    settings: tuple[str, str] = ("data.prompt_key", "gad.teacher_key"),
    more_columns: Mapping[str, str] | None = None,
    check_row: Callable[[Mapping[str, Any], str], None] | None = None,
    read_texts: Callable[[Any, str], list[str]] = teacher_texts,
) -> int:
    """Check every row of a data file.

    Args:
        path: The file.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher texts.
        settings: What the user calls these two keys, for the error.
        more_columns: Further columns that must be there, with what the user calls each.
        check_row: Called with each row (of the columns above, and what says how texts ended) and its place, after the
            other checks.
        read_texts: Reads the column of the teacher, of trajectories
            :func:`gad_verl.data.trajectory_messages.trajectory_texts`.

    Returns:
        The number of rows.

    Raises:
        GadDataError: Names the file, the row (counted from 0) and the column, and the remedy.
    """
    path = Path(path).expanduser()
    if path.suffix not in _SUFFIXES:
        raise GadDataError(f"{path}: a data file must end in one of {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise GadDataError(f"{path}: no such data file (data.train_files / data.val_files)")
    wanted = {prompt_key: settings[0], teacher_key: settings[1]} | dict(more_columns or {})
    source = open_file(path)
    optional = [name for name in (EXTRA_INFO, *MARKS) if name in source.columns and name not in wanted]
    for key, setting in wanted.items():
        if key not in source.columns:
            remedy = (
                "turn the file into rows with it (gad-verl data import)" if key in (prompt_key, teacher_key) else ""
            )
            raise GadDataError(
                f"{path} has no column {key!r}; it has {', '.join(source.columns)}. Set {setting} to the right one, or "
                f"{remedy or 'add it'}"
            )
    count = 0
    for row in source.rows([*wanted, *optional]):
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        check_messages(row.get(prompt_key), f"{path}, row {count}, column {prompt_key!r}")
        texts = read_texts(row.get(teacher_key), f"{path}, row {count}, column {teacher_key!r}")
        _check_extra_info(row.get(EXTRA_INFO), f"{path}, row {count}")
        cut_marks(row, len(texts), f"{path}, row {count}")
        if check_row is not None:
            check_row(row, f"{path}, row {count}")
        count += 1
    return count
