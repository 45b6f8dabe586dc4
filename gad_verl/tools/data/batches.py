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
"""Replies of an OpenAI-compatible API as it wrote them: the output of a batch, or a reply beside what was asked.

A batch is two files. The answers are in the output, what was asked in the input, and ``custom_id`` joins them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from gad_verl.data.content import OtherPartError, is_blank, text_of
from gad_verl.data.reading import BadRow, Source, open_file
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.data.chats import TOOLS, refuse_more_than_text
from gad_verl.tools.data.row_values import Row, Unusable

ID, REPLY, CHOICES = "custom_id", "response", "choices"
FAILED = "failed"
# What a reply is turned into: the layout `batch` reads these.
COLUMNS = ["id", "prompt", "teacher_response", "finish_reason", "teacher", FAILED]
_REQUESTS = ("body", "params", "request")
_LOOKED_AT = 100


def open_replies(source: Source, requests: Path | None) -> Source:
    """Replies as rows with prompt and text; any other source as it is.

    Args:
        source: The input.
        requests: The file that was sent as a batch; None where the rows say themselves what was asked.

    Raises:
        GadDataError: It holds requests alone, or replies without what was asked.
        GadConfigError: ``requests`` is given for a source that is no batch.
    """
    if not _are_replies(source):
        if ID in source.columns and set(source.columns) & {"body", "params"}:
            raise GadDataError(
                f"{source.name} holds what was asked in a batch, and no answers: import the output of the batch, with "
                f"--requests {source.name}"
            )
        if requests is not None:
            raise GadConfigError(
                f"--requests {requests}: {source.name} is no output of a batch (it has {', '.join(source.columns)}); "
                "leave it out"
            )
        return source
    asked = None if requests is None else _requests(requests)
    first = next((row for row in source.rows() if isinstance(row, dict)), None)
    if asked is None and first is not None and _messages(_request(first)) is None:
        raise GadDataError(
            f"{source.name} holds the answers of a batch, and not what was asked: name the file that was sent by "
            "--requests FILE.jsonl"
        )

    def rows(wanted: Any = None) -> Iterator[dict[str, Any] | BadRow]:
        for row in source.rows():
            yield row if isinstance(row, BadRow) else _flat(row, asked)

    return replace(source, columns=COLUMNS, rows=rows)


def _are_replies(source: Source) -> bool:
    """By the values: other data sets have columns of these names, such as the choices of a question."""
    columns = set(source.columns)
    if {ID, REPLY} <= columns:
        return True
    rows = islice(source.rows(), _LOOKED_AT) if columns & {REPLY, CHOICES} else ()
    return any(isinstance(row, dict) and _is_reply(row.get(REPLY, row)) for row in rows)


def _is_reply(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    body = value["body"] if isinstance(value.get("body"), dict) else value
    answers = body.get(CHOICES) or body.get("output")
    return isinstance(answers, list) and bool(answers) and isinstance(answers[0], dict)


def _requests(path: Path) -> dict[str, Row]:
    """The requests of a batch by their ``custom_id``."""
    found: dict[str, Row] = {}
    for number, row in enumerate(open_file(path).rows()):
        if isinstance(row, BadRow):
            raise GadDataError(row.message)
        request = _request(row)
        if not isinstance(row.get(ID), str) or _messages(request) is None:
            raise GadDataError(
                f"--requests {path}, row {number}: expected a request of a batch, with 'custom_id' and a 'body' that "
                f"has 'messages'; it has {', '.join(map(str, row))}"
            )
        if row[ID] in found:
            raise GadDataError(f"--requests {path}, row {number}: the custom_id {row[ID]!r} came before")
        found[row[ID]] = request
    return found


def _request(row: Row) -> Row:
    """What was asked, wherever the row has it: it may be wrapped more than once."""
    request = row
    for _ in _REQUESTS:
        inner = next((request[name] for name in _REQUESTS if isinstance(request.get(name), dict)), None)
        if inner is None:
            return request
        request = inner
    return request


def _messages(request: Row) -> Any:
    """The chat of a request, a text for one message; None where there is none."""
    asked = next((request[name] for name in ("messages", "input", "prompt") if request.get(name)), None)
    before = request.get("instructions")
    if asked is None or not isinstance(before, str) or not before:
        return asked
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return [{"role": "system", "content": before}, *turns]


def _flat(row: Row, asked: Mapping[str, Row] | None) -> dict[str, Any]:
    """A reply as a row of :data:`COLUMNS`; ``failed`` says why there is no answer in it."""
    flat: dict[str, Any] = dict.fromkeys(COLUMNS) | {"id": row.get(ID)}
    try:
        if asked is None:
            request = _request(row)
        elif row.get(ID) in asked:
            request = asked[row[ID]]
        else:
            raise Unusable("no request has its custom_id")
        refuse_more_than_text(request)
        body = _body(row)
        texts, reasons = zip(*_answers(body), strict=True)
        flat |= {"prompt": _messages(request), "teacher": body.get("model")}
        flat |= {"teacher_response": list(texts), "finish_reason": list(reasons)}
        if len(texts) == 1:
            flat |= {"teacher_response": texts[0], "finish_reason": reasons[0]}
    except Unusable as reason:
        flat[FAILED] = str(reason)
    return flat


def _body(row: Row) -> Row:
    """What the API replied.

    Raises:
        Unusable: The request failed.
    """
    reply = row.get(REPLY) if isinstance(row.get(REPLY), dict) else row
    assert isinstance(reply, dict)
    body = reply.get("body") if REPLY in row and isinstance(reply.get("body"), dict) else reply
    status = reply.get("status_code", 200)
    error = row.get("error") or reply.get("error") or body.get("error")
    if error or status != 200:
        code = error.get("code") or error.get("type") if isinstance(error, dict) else None
        raise Unusable(f"the request failed ({code or status})")
    return body


def _answers(body: Row) -> list[tuple[str, str | None]]:
    """Texts and how they ended; empty ones too, unless all are.

    Raises:
        Unusable: There is none.
    """
    if isinstance(body.get("output"), list):
        parts = [item for item in body["output"] if isinstance(item, dict) and item.get("type") == "message"]
        details = body.get("incomplete_details") or {}
        replies = [({"content": [part for one in parts for part in one.get("content") or ()]}, details.get("reason"))]
    else:
        choices = [choice for choice in body.get(CHOICES) or () if isinstance(choice, dict)]
        replies = [
            (choice.get("message") or {"content": choice.get("text")}, choice.get("finish_reason"))
            for choice in sorted(choices, key=lambda choice: choice.get("index") or 0)
        ]
    if not replies:
        raise Unusable("the reply has no answer")
    answers = [(_text(message), reason) for message, reason in replies]
    if all(is_blank(text) for text, _ in answers):
        _say_why_empty([message for message, _ in replies])
    return answers


def _text(message: Row) -> str:
    try:
        return text_of(message.get("content")) or ""
    except OtherPartError as other:
        raise Unusable("a refusal" if other.kind == "refusal" else f"a part of the kind {other.kind}") from None
    except TypeError:
        raise Unusable("the reply has no answer") from None


def _say_why_empty(messages: list[Row]) -> None:
    if any(message.get("refusal") for message in messages):
        raise Unusable("a refusal")
    if any(message.get("tool_calls") or message.get("function_call") for message in messages):
        raise Unusable(TOOLS)
    raise Unusable("the answer is empty")
