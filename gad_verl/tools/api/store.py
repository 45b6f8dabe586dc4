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
"""Answers on disk, each the moment it has arrived."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gad_verl.errors import GadDataError
from gad_verl.tools.api.requests import ChatAnswer

# "GADa", in the header of the file: tells our files from other SQLite files.
APPLICATION_ID = 0x47414461
FORMAT = 1
# Seconds between two flushes to the disk itself.
FLUSH_S = 2.0

_TABLES = """
CREATE TABLE settings (content TEXT NOT NULL);
CREATE TABLE answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER,
    completion_tokens INTEGER, model TEXT NOT NULL, created_utc TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE rejected (key TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""


def _as_utf8(value: Any) -> Any:
    """Half of a surrogate pair is no text that UTF-8 could hold."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, ensure_ascii=True)


class AnswerStore:
    """A SQLite file of answers. One process at a time holds it.

    Every :meth:`put` is a transaction in a write-ahead log that the operating system has when it returns: a SIGKILL
    loses no answer that was put. The log is flushed to the disk every :data:`FLUSH_S` seconds, and at the end: a power
    cut loses the last seconds. (A flush at every answer took 3 to 6 ms each, in which nothing else is sent.)

    Args:
        path: The file; it is made, with its folder, where it is missing.
        settings: What must not be mixed in one file (model, sampling, ...), as JSON types. They are stored at the
            first opening and compared at every later one. None compares nothing.

    Raises:
        GadDataError: The file was made with other settings, is damaged, is no such file, or another process holds it.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path).expanduser()
        self._flushed_at = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise GadDataError(f"{self.path}: cannot be opened: {error}") from None
        try:
            self._open(settings)
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise GadDataError(
                    f"{self.path}: another process is writing its answers there; wait for it or end it"
                ) from None
            raise GadDataError(f"{self.path}: cannot be opened: {error}") from None
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise GadDataError(
                f"{self.path}: damaged, or not written by gad-verl ({error}); move it away to collect anew"
            ) from None
        except BaseException:
            self._db.close()
            raise

    def _open(self, settings: Mapping[str, Any] | None) -> None:
        db = self._db
        # The lock is the system's own: it ends with the process, however that ends.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Looked at before anything is set: the mode of the journal stays with the file.
        is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise GadDataError(f"{self.path}: a database of something else; choose another output or move it away")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        if is_new:
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)
            db.execute("INSERT INTO settings VALUES (?)", (_canonical(settings or {}),))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
            return
        db.execute("COMMIT")
        if (found := db.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
            raise GadDataError(f"{self.path}: format {found}, this gad-verl reads {FORMAT}; use the one that wrote it")
        if (state := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise GadDataError(f"{self.path}: damaged ({state}); move it away to collect anew")
        if settings is not None:
            self._compare(settings)

    def _compare(self, settings: Mapping[str, Any]) -> None:
        content = _canonical(settings)
        stored = self._db.execute("SELECT content FROM settings").fetchone()[0]
        if stored == content:
            return
        if not len(self):
            # Nothing to mix: a first run that ended before its first answer.
            self._write(("UPDATE settings SET content = ?", (content,)), ("DELETE FROM rejected", ()))
            return
        before, now = json.loads(stored), json.loads(content)
        differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        changes = ", ".join(f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in differing)
        raise GadDataError(
            f"{self.path}: holds answers that were collected with other settings ({changes}); choose another output, "
            "set them back, or move the file away"
        )

    def put(self, answer: ChatAnswer) -> None:
        """Store an answer; no kill of the process loses it from then on. A second one under its key replaces it.

        Raises:
            GadDataError: The disk is full, or the file cannot be written.
        """
        row = (answer.key, answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens)
        self._write(
            ("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, answer.model, answer.created_utc)),
            ("DELETE FROM rejected WHERE key = ?", (answer.key,)),
        )

    def put_rejected(self, key: str, reason: str) -> None:
        """Note that the API refuses this request for good, and why."""
        self._write(("INSERT OR REPLACE INTO rejected VALUES (?, ?)", (key, reason)))

    def noted(self, name: str, value: str) -> str:
        """What is noted under a name: ``value`` from now on, where nothing is. For stores opened without settings."""
        notes = json.loads(self._db.execute("SELECT content FROM settings").fetchone()[0])
        if name not in notes:
            self._write(("UPDATE settings SET content = ?", (_canonical({**notes, name: value}),)))
        return str(notes.get(name, value))

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._db.execute(statement, tuple(map(_as_utf8, values)))
            self._db.execute("COMMIT")
            if time.monotonic() - self._flushed_at >= FLUSH_S:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._flushed_at = time.monotonic()
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise GadDataError(f"{self.path}: an answer cannot be written: {error}") from None

    def get(self, key: str) -> ChatAnswer | None:
        """The answer under a key, or None."""
        row = self._db.execute("SELECT * FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else ChatAnswer(*row)

    def rejection(self, key: str) -> str | None:
        """Why the API refused the request under a key, or None."""
        row = self._db.execute("SELECT reason FROM rejected WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def keys(self) -> Iterator[str]:
        """The keys of all answers, in their order."""
        with closing(self._db.execute("SELECT key FROM answers ORDER BY key")) as rows:
            for (key,) in rows:
                yield key

    def __contains__(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        """Let the file go; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
