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
"""Answers on disk: what is put is there after a SIGKILL, and a file that does not fit is refused in one line."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gad_verl.errors import GadDataError
from gad_verl.tools.api.requests import ChatAnswer, request_key
from gad_verl.tools.api.store import AnswerStore


def answer(key: str, text: str = "yes") -> ChatAnswer:
    return ChatAnswer(key, text, "stop", 3, None, "model", "2025-11-14T00:00:00+00:00")


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=())))
@example(text="cut in the middle \ud83d")
def test_every_text_comes_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with AnswerStore(tmp_path_factory.mktemp("store") / "a.sqlite") as store:
        store.put(answer("k", text))
        # Half a surrogate pair is no character; everything else is kept to the byte.
        assert store.get("k").text == text.encode("utf-8", "replace").decode("utf-8")


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=())))
@example(text="cut in the middle \ud83d")
def test_whatever_an_api_says_besides_is_kept(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Servers cut what they quote in the middle of an emoji, in reasons and in names too."""
    known = text.encode("utf-8", "replace").decode("utf-8")
    with AnswerStore(tmp_path_factory.mktemp("store") / "a.sqlite") as store:
        store.put_rejected("refused", text)
        store.put(ChatAnswer("k", "yes", text, 3, None, text, "2025-11-14T00:00:00+00:00"))
        assert (store.rejection("refused"), store.get("k").finish_reason, store.get("k").model) == (known,) * 3


def test_reopened_it_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.sqlite"
    with AnswerStore(path, {"model": "m"}) as store:
        store.put_rejected("b", "too long")
        store.put(answer("b"))
        store.put(answer("a", "1"))
        store.put(answer("a", "2"))
        store.put_rejected("c", "too long")
    with AnswerStore(path, {"model": "m"}) as store:
        assert list(store.keys()) == ["a", "b"] and len(store) == 2
        assert store.get("a") == answer("a", "2") and store.get("c") is None
        assert "b" in store and "c" not in store
        assert (store.rejection("b"), store.rejection("c")) == (None, "too long")
    assert [file.name for file in path.parent.iterdir()] == ["a.sqlite"]


def test_a_sigkill_loses_no_answer(tmp_path: Path) -> None:
    code = """
import sys
from gad_verl.tools.api.requests import ChatAnswer
from gad_verl.tools.api.store import AnswerStore
store = AnswerStore(sys.argv[1])
for number in range(10**6):
    store.put(ChatAnswer(str(number), "x" * 500, "stop", 1, 1, "m", "t"))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
    path = tmp_path / "a.sqlite"
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
        told = [process.stdout.readline() for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        told += process.stdout.read().splitlines(keepends=True)
        process.wait()
        last = max(int(line) for line in told if line.endswith("\n"))
        with AnswerStore(path) as store:
            assert {str(number) for number in range(last + 1)} <= set(store.keys())


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = """
import sys
from gad_verl.tools.api.store import AnswerStore
store = AnswerStore(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""
    path = tmp_path / "a.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    try:
        with pytest.raises(GadDataError, match="another process"):
            AnswerStore(path)
    finally:
        process.kill()
        process.wait()
    AnswerStore(path).close()


def test_other_settings_are_named(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "a.sqlite", {"model": "none", "temperature": 9}) as store:
        store.put_rejected("k", "bad temperature")
    # Without an answer there is nothing to mix.
    with AnswerStore(tmp_path / "a.sqlite", {"model": "one", "temperature": 0.3, "stop": None}) as store:
        assert store.rejection("k") is None
        store.put(answer("k"))
    AnswerStore(tmp_path / "a.sqlite").close()
    with pytest.raises(GadDataError) as error:
        AnswerStore(tmp_path / "a.sqlite", {"model": "one", "temperature": 0.7, "seed": 1})
    assert "temperature was 0.3, is 0.7" in str(error.value) and "seed was null, is 1" in str(error.value)
    assert "model" not in str(error.value) and "\n" not in str(error.value)


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as db:
        db.execute("CREATE TABLE thesis (chapter)")
    db.close()
    before = (tmp_path / "a.sqlite").read_bytes()
    with pytest.raises(GadDataError, match="something else"):
        AnswerStore(tmp_path / "a.sqlite")
    assert (tmp_path / "a.sqlite").read_bytes() == before
    with sqlite3.connect(tmp_path / "a.sqlite") as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("thesis",)]


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b"PAR1" + bytes(5000)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(GadDataError, match="damaged, or not written by gad-verl"):
        AnswerStore(path)
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with AnswerStore(path) as store:
        for number in range(200):
            store.put(answer(f"{number:04}", "x" * 300))
    content = bytearray(path.read_bytes())
    content[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(GadDataError, match="damaged"):
        AnswerStore(path)


def test_a_folder_or_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GadDataError, match="cannot be opened"):
        AnswerStore(tmp_path)
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(GadDataError, match="cannot be written"):
            store.put(answer("k", "x" * 10**6))
        assert store.get("k") is None


def test_keys_depend_on_content_alone() -> None:
    chat = [{"role": "user", "content": "é"}]
    one = request_key(chat, {"a": 1, "b": 2}, 0)
    assert one == request_key([{"content": "é", "role": "user"}], {"b": 2, "a": 1}, 0)
    others = {request_key(chat, {"a": 1}, 0), request_key(chat, {"a": 1, "b": 2}, 1), request_key([], {}, 0), one}
    assert len(others) == 4
