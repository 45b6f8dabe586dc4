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
"""``gad-verl data import`` of preference files, dialogues, tool calls and pictures: read as meant, or left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_verl import cli
from gad_verl.data.content import OtherPartError, text_of
from gad_verl.errors import GadDataError
from gad_verl.tools.data.importing import ImportOptions, import_file
from gad_verl.tools.data.layouts import LAYOUTS, find_layout
from gad_verl.tools.data.row_values import Unusable, WrongType

Rows = list[dict[str, Any]]
Chat = list[tuple[str, str]]


def imported(folder: Path, rows: Rows, *options: str) -> tuple[list[tuple[Chat, Any]], Counter[str]]:
    """Prompts and teacher texts that an import writes, and the rows left out by reason."""
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = folder / "out.parquet"
    assert cli.main(["data", "import", str(source), "--output", str(output), "--overwrite", *options]) == 0
    card = json.loads((folder / "out.parquet.card.json").read_text(encoding="utf-8"))
    found = [
        ([(m["role"], m["content"]) for m in row["prompt"]], row["teacher_response"])
        for row in parquet.read_table(output).to_pylist()
    ]
    return found, Counter(card["counts"]["rejected"])


def turns(*pairs: tuple[str, Any], keys: tuple[str, str] = ("role", "content")) -> list[dict[str, Any]]:
    return [dict(zip(keys, pair, strict=True)) for pair in pairs]


DIALOGUE = turns(("user", "A?"), ("assistant", "B."), ("user", "C?"))
BEFORE = [("user", "A?"), ("assistant", "B."), ("user", "C?")]
ANSWER = turns(("assistant", "Good."))
BAD = turns(("assistant", "Bad."))


class TestPreferences:
    """Only the wanted answer becomes the teacher's, with the whole chat before it."""

    @pytest.mark.parametrize(
        "row",
        [
            {
                "conversations": turns(("human", "A?"), ("gpt", "B."), ("human", "C?"), keys=("from", "value")),
                "chosen": {"from": "gpt", "value": "Good."},
                "rejected": {"from": "gpt", "value": "Bad."},
            },
            {"messages": DIALOGUE, "chosen": ANSWER[0], "rejected": BAD[0]},
            {"prompt": DIALOGUE, "chosen": ANSWER, "rejected": BAD},
            {"prompt": DIALOGUE, "chosen": "Good.", "rejected": "Bad."},
            {"prompt": "A?", "chosen": DIALOGUE + ANSWER, "rejected": DIALOGUE + BAD},
            {"prompt": "C?", "messages": DIALOGUE + ANSWER, "chosen": DIALOGUE + ANSWER, "rejected": DIALOGUE + BAD},
            {"chosen": DIALOGUE + ANSWER, "rejected": DIALOGUE + BAD},
            {"instruction": "C?", "history": [["A?", "B."]], "chosen": "Good.", "rejected": "Bad."},
            {"prompt": json.dumps(DIALOGUE), "chosen": json.dumps(ANSWER), "rejected": json.dumps(BAD)},
        ],
        ids=["sharegpt", "one turn", "turns", "texts", "whole chats", "all of it", "no prompt", "alpaca", "CSV"],
    )
    def test_pairs_of_every_publisher(self, tmp_path: Path, row: dict[str, Any]) -> None:
        assert imported(tmp_path, [row]) == ([(BEFORE, "Good.")], Counter())

    def test_an_instruction_with_input_and_system_message(self, tmp_path: Path) -> None:
        row = {"instruction": "Add.", "input": "1 2", "system": "Be brief.", "chosen": "3", "rejected": "4"}
        assert imported(tmp_path, [row])[0] == [([("system", "Be brief."), ("user", "Add.\n\n1 2")], "3")]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"prompt": "Q?", "chosen": DIALOGUE + ANSWER}, "another prompt than that of its row"),
            ({"prompt": turns(("user", "Q?")), "chosen": DIALOGUE + ANSWER}, "another prompt"),
            ({"prompt": DIALOGUE, "chosen": DIALOGUE}, "does not end with the assistant"),
            ({"prompt": DIALOGUE + ANSWER, "chosen": "Good."}, "the prompt ends with the assistant"),
            ({"chosen": "\n\nHuman: A?\n\nAssistant: Good."}, "a transcript of several turns in one text"),
            ({"prompt": "\n\nHuman: A?\n\nAssistant:", "chosen": "Good."}, "a transcript"),
            ({"prompt": "Q?", "chosen": None}, "chosen is missing"),
            ({"prompt": "Q?", "chosen": " "}, "chosen is empty"),
            ({"chosen": "Good."}, "the prompt is missing"),
        ],
    )
    def test_pairs_that_are_none_are_left_out(self, row: dict[str, Any], reason: str) -> None:
        with pytest.raises(Unusable, match=reason):
            list(LAYOUTS["preference"].examples({**row, "rejected": "Bad."}))

    def test_a_file_of_pairs_is_not_read_as_one_of_chats(self) -> None:
        columns = ["messages", "chosen", "rejected"]
        assert find_layout(columns, "f").name == "preference"
        with pytest.raises(GadDataError, match="would leave chosen, rejected behind.*the layout preference reads them"):
            find_layout(columns, "f", "sharegpt")
        with pytest.raises(GadDataError, match="several layouts .*gad, preference"):
            find_layout(["prompt", "teacher_response", "chosen", "rejected"], "f")

    @pytest.mark.parametrize("name", ["label", "kto_tag"])
    @pytest.mark.parametrize(("wanted", "unwanted"), [(True, False), ("True", "False"), ("true", "false")])
    def test_unwanted_answers_are_left_out(self, tmp_path: Path, name: str, wanted: Any, unwanted: Any) -> None:
        rows = [
            {"messages": DIALOGUE + ANSWER, name: wanted},
            {"messages": DIALOGUE + BAD, name: unwanted},
            {"messages": DIALOGUE + BAD, name: None},
        ]
        found, rejected = imported(tmp_path, rows)
        assert found == [(BEFORE, "Good.")]
        assert rejected == {f"an unwanted answer ({name} is false)": 1, f"{name} is missing": 1}

    @pytest.mark.parametrize("layout", ["gad", "lmsys", "alpaca", "plain"])
    def test_unwanted_answers_of_other_layouts_too(self, layout: str) -> None:
        answers = {"teacher_response": "Bad.", "output": "Bad.", "response": "Bad."}
        row = {"prompt": "Q?", "content": "Q?", "instruction": "Q?", **answers, "label": False}
        with pytest.raises(Unusable, match="unwanted"):
            list(LAYOUTS[layout].examples(row))

    @pytest.mark.parametrize("value", [0, 1, 3, "spam", 0.5])
    def test_a_label_of_another_meaning_is_an_error_with_its_way_out(self, value: Any) -> None:
        with pytest.raises(WrongType, match="column 'label': expected true or false.*--rename label=class"):
            list(LAYOUTS["plain"].examples({"instruction": "Q?", "response": "A.", "label": value}))


class TestDialogues:
    """Earlier turns and system messages are part of what the teacher answered."""

    @pytest.mark.parametrize("layout", ["alpaca", "plain", "dolly"])
    @pytest.mark.parametrize("system", ["system", "system_prompt"])
    def test_history_and_system_of_single_instructions(self, layout: str, system: str) -> None:
        row = {"instruction": "C?", "input": "", "context": "", "output": "D.", "response": "D.", system: "Be brief."}
        (example,) = LAYOUTS[layout].examples({**row, "history": [["A?", "B."]]})
        assert example.system == "Be brief." and example.messages == DIALOGUE[:2]

    def test_a_template_goes_around_the_last_instruction_alone(self, tmp_path: Path) -> None:
        row = {"instruction": "C?", "output": "D.", "history": [["A?", "B."]]}
        (((*before, last), _),) = imported(tmp_path, [row], "--template", "alpaca")[0]
        assert before == BEFORE[:2] and "### Instruction:\nC?" in last[1]

    @pytest.mark.parametrize("value", ["", "[]", [], None, float("nan")])
    def test_an_empty_history_is_none(self, value: Any) -> None:
        (example,) = LAYOUTS["alpaca"].examples({"instruction": "C?", "output": "D.", "history": value})
        assert example.messages == []

    @pytest.mark.parametrize("value", ["A? B.", [["A?"]], [["A?", None]], 5])
    def test_a_history_that_is_no_pairs_is_an_error(self, value: Any) -> None:
        with pytest.raises(WrongType, match="column 'history'"):
            list(LAYOUTS["alpaca"].examples({"instruction": "C?", "output": "D.", "history": value}))

    def test_a_history_beside_whole_chats_is_an_error(self) -> None:
        row = {"prompt": DIALOGUE, "teacher_response": "D.", "history": [["A?", "B."]]}
        with pytest.raises(WrongType, match="the layout gad does not read.*--rename history=past"):
            list(LAYOUTS["gad"].examples(row))

    def test_roles_of_all_spellings(self, tmp_path: Path) -> None:
        rows = [
            {"prompt": turns(("developer", "S"), ("human", "A?")), "teacher_response": "B."},
            {"prompt": turns(("User", "A?"), ("GPT", "B."), ("human", "C?")), "teacher_response": "D."},
            {"prompt": turns(("narrator", "A?")), "teacher_response": "B."},
        ]
        found, rejected = imported(tmp_path, rows)
        assert found == [([("system", "S"), ("user", "A?")], "B."), (BEFORE, "D.")]
        assert rejected == {"a turn of another role than system, user and assistant": 1}

    def test_an_answer_with_weight_zero_is_not_learned(self, tmp_path: Path) -> None:
        chat = DIALOGUE + ANSWER
        rows = [{"messages": [*chat[:-1], {**chat[-1], "weight": weight}]} for weight in (1, 0)]
        found, rejected = imported(tmp_path, rows)
        assert found == [(BEFORE, "Good.")] and rejected == {"the last answer has weight 0": 1}


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}


class TestMoreThanText:
    """Tools and pictures: the prompt would not have what the answer rests on."""

    @pytest.mark.parametrize(
        "row",
        [
            {"messages": [*DIALOGUE, CALL, *turns(("tool", "12")), *ANSWER]},
            {"messages": [*DIALOGUE, {**CALL, "content": "I look it up."}, *turns(("tool", "12")), *ANSWER]},
            {"messages": [*DIALOGUE, *ANSWER], "tools": '[{"type": "function"}]'},
            {"messages": [*DIALOGUE, *turns(("function_call", "{}"), ("observation", "12")), *ANSWER]},
            {"messages": turns(("user", [{"type": "tool_result", "content": "12"}])) + ANSWER},
        ],
    )
    def test_tool_calls_are_left_out_and_counted(self, tmp_path: Path, row: dict[str, Any]) -> None:
        found, rejected = imported(tmp_path, [row, {"messages": DIALOGUE + ANSWER, "tools": "[]"}])
        assert found == [(BEFORE, "Good.")] and rejected == {"calls or offers of tools": 1}

    @pytest.mark.parametrize(
        "row",
        [
            {"messages": DIALOGUE + ANSWER, "images": ["a.png"]},
            {"messages": DIALOGUE + ANSWER, "image": "a.png"},
            {"messages": turns(("user", [{"type": "text", "text": "What?"}, {"type": "image_url"}])) + ANSWER},
            {"messages": turns(("user", [{"type": "input_audio"}])) + ANSWER},
        ],
    )
    def test_pictures_are_left_out_and_counted(self, tmp_path: Path, row: dict[str, Any]) -> None:
        found, rejected = imported(tmp_path, [row, {"messages": DIALOGUE + ANSWER, "images": []}])
        assert found == [(BEFORE, "Good.")] and rejected == {"pictures, sound or films beside the text": 1}

    def test_text_in_parts_is_put_together(self, tmp_path: Path) -> None:
        parts = [{"type": "text", "text": "Go"}, {"type": "thinking", "thinking": "hm"}, {"text": "od."}]
        found, _ = imported(tmp_path, [{"messages": [*DIALOGUE, {"role": "assistant", "content": parts}]}])
        assert found == [(BEFORE, "Good.")]

    def test_parquet_has_every_key_in_every_turn(self, tmp_path: Path) -> None:
        nothing = {"tool_calls": None, "function_call": None, "weight": None}
        chat = [{**nothing, **turn} for turn in DIALOGUE + ANSWER]
        parquet.write_table(pa.Table.from_pylist([{"messages": chat, "images": []}]), tmp_path / "in.parquet")
        assert import_file(str(tmp_path / "in.parquet"), tmp_path / "out.parquet", ImportOptions()).written == 1


class TestWrittenLists:
    """A list that became Python's text is an error; a text that looks like JSON stays the user's."""

    def test_a_chat_in_pythons_notation_is_named_with_its_row(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = tmp_path / "in.csv"
        source.write_text(f'prompt,teacher_response\n"Q?",A.\n"{turns(("user", "Q?"))}",A.\n', encoding="utf-8")
        output = tmp_path / "out.parquet"
        assert cli.main(["data", "import", str(source), "--output", str(output)]) == 2 and not output.exists()
        error = capsys.readouterr().err
        assert "in.csv, row 1, column 'prompt': a chat in Python's notation" in error and "json.dumps" in error

    @pytest.mark.parametrize(
        "text",
        ['[{"a": 1}] is what?', '[{"a": 1}]', "{'a': 1}", "[1, 2]", "[{name}] hello", '["user", "content"]', "[]"],
    )
    def test_other_texts_stay_the_users(self, tmp_path: Path, text: str) -> None:
        assert imported(tmp_path, [{"prompt": text, "teacher_response": "A."}])[0] == [([("user", text)], "A.")]

    @pytest.mark.parametrize("lists", ["['A.', 'B.']", '["A.", "B."]'])
    def test_a_column_of_lists_that_became_texts_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], lists: str
    ) -> None:
        imported(tmp_path, [{"prompt": "Q?", "teacher_response": lists}] * 3)
        assert "every text of the teacher is a list written as text" in capsys.readouterr().out
        imported(tmp_path, [{"prompt": "Q?", "teacher_response": text} for text in (lists, "A.")])
        assert "warning" not in capsys.readouterr().out


PLAIN = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(lambda text: text.strip())
PARTS = st.lists(
    st.one_of(
        PLAIN,
        st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text"]), "text": PLAIN}),
        st.fixed_dictionaries({"type": st.sampled_from(["image_url", "tool_use", "thinking"]), "text": PLAIN}),
    ),
    max_size=3,
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "human", "assistant", "gpt", "tool", "critic"]),
        "content": st.one_of(PLAIN, st.none(), PARTS),
    },
    optional={"tool_calls": st.sampled_from([None, [], [{"id": "1"}]])},
)
KNOWN = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}


def meaning(turn: dict[str, Any]) -> tuple[str, str] | None:
    """Role and text of a turn, by the words of the documentation; None where it is more or less than a text."""
    role, content = {**KNOWN, "gpt": "assistant"}.get(turn["role"]), turn["content"]
    parts = [content] if isinstance(content, str) else content or []
    kinds = ["text" if isinstance(part, str) else part["type"].removeprefix("input_") for part in parts]
    texts = [part if isinstance(part, str) else part["text"] for part in parts]
    said = "".join(text for text, kind in zip(texts, kinds, strict=True) if kind == "text")
    is_text = set(kinds) <= {"text", "thinking"} and "text" in kinds
    return (role, said) if role is not None and is_text and not turn.get("tool_calls") else None


@given(st.lists(TURN, min_size=1, max_size=4))
def test_a_chat_is_imported_as_it_is_or_left_out(chat: list[dict[str, Any]]) -> None:
    read = [meaning(turn) for turn in chat]
    try:
        (example,) = LAYOUTS["sharegpt"].examples({"messages": chat})
    except Unusable as reason:
        assert str(reason)
        roles = [one[0] if one else None for one in read]
        clean = None not in roles and roles[-2:] == ["user", "assistant"] and roles[:-2] in ([], ["system"])
        assert not clean, reason
    else:
        found = [(m["role"], m["content"]) for m in example.messages] + [("assistant", example.teacher_response)]
        # Nothing is lost but what follows the last answer.
        assert found == read[: len(found)] and all(one and one[0] != "assistant" for one in read[len(found) :])


@given(st.recursive(st.one_of(st.none(), st.integers(), PLAIN), lambda one: st.one_of(st.lists(one), PARTS)))
def test_every_content_is_a_text_or_refused(content: Any) -> None:
    try:
        found = text_of(content)
    except (OtherPartError, TypeError):
        assert not isinstance(content, str) and content is not None
    else:
        assert found is None or isinstance(found, str)
        if isinstance(content, str):
            assert found == content
