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
"""``gad-verl data normalize``: what is cut, what stays, and that twice is once."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vlm import picture

from gad_verl import cli
from gad_verl.data.content import is_blank
from gad_verl.data.refusals import is_refusal
from gad_verl.errors import GadConfigError
from gad_verl.record.files import plain
from gad_verl.tools.data.cleaning import STEPS, clean, strip_template, strip_thinking
from gad_verl.tools.data.normalizing import BESIDE_TEXTS, Change, NormalizeOptions, normalize_file, show_change
from gad_verl.tools.teacher.output import output_schema

ALL = tuple(STEPS)

MARKS = [
    "<think>",
    "</think>",
    "<thinking>",
    "</thinking>",
    "<|im_end|>",
    "<|im_start|>assistant",
    "</s>",
    "<s>",
    "[/INST]",
    "### Response:",
    "### Instruction:",
    "<|eot_id|>",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<end_of_turn>",
    "Assistant:",
    "\n",
    "\r\n",
    "\n\n\n\n\n",
    "  ",
    "\t",
    "e\u0301",
    "\u0958",
    "\u00a0",
    "word",
    ".",
]
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=5)), max_size=12).map("".join)


@given(TEXTS, st.sets(st.sampled_from(ALL)))
@settings(max_examples=300, deadline=None)
def test_twice_is_once(text: str, steps: set[str]) -> None:
    chosen = tuple(name for name in ALL if name in steps)
    once = clean(text, chosen)
    twice = clean(once.text, chosen)
    assert twice.text == once.text and twice.changed == ()
    assert (once.text == text) == (once.changed == ())


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Hi.\r\nThere. \n", "Hi.\nThere."),
        ("<think>\nHm, so\n</think>\n\nHi.", "Hi."),
        ("<THINK></THINK><think>again</think>Hi.", "Hi."),
        ("Hm, so I say hi.\n</think>\n\nHi.", "Hi."),
        ("Hm, so I say hi.</think>\n\nHi.", "Hi."),
        ("Hm, so I say hi.</think>\nHi.", "Hi."),
        ("\n</think>\n\nHi.", "Hi."),
        ("</think>Why?\n  </think> \nHi.", "Hi."),
        ("```py\nx = 1\n```\nso 1\n</think>\n\nHi.", "Hi."),
        ("<think>never ends", ""),
        ("Hi.<|im_end|>", "Hi."),
        ("<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>", "Hi."),
        ("<s>[INST] Hi. [/INST]</s>", "Hi."),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|>", "Hi."),
        ("<s>Hi.</s>", "Hi."),
        ("<s> Hi.</s><|im_end|>", "Hi."),
        ("Hi.</s></s>\n", "Hi."),
        ("Assistant: Hi.\n\nNote: see the user manual: page 3.", "Hi.\n\nNote: see the user manual: page 3."),
        ("### Response:\nHi.\n\n### Instruction:", "Hi."),
        ("### Response:\nHi.", "Hi."),
        ("Hi.\n\n### Instruction:", "Hi."),
        ("ASSISTANT: Hi.", "Hi."),
        ("<start_of_turn>model\nHi.<end_of_turn>", "Hi."),
        ("Cafe\u0301", "Caf\u00e9"),
        ("a  \nb\n\n\n\n\nc", "a\nb\n\n\nc"),
    ],
)
def test_marks_go(text: str, cleaned: str) -> None:
    assert clean(text, ALL).text == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "The chat ends with <|im_end|> in ChatML.",
        "In HTML, <s>struck</s> text is old.",
        "<s>old</s> price",
        "The <S>old</S>",
        "<s>old</s> and <s>older</s>",
        "The price was <s>10</s>",
        "<s>a</s>, not <s>b</s>.",
        "Use the tag <s>",
        "Assistant: hello\nUser: hi",
        "Assistant: hello\n\n**Customer:** hi\nAssistant: How can I help?",
        "Assistant: Hello.\nHuman: Hello.",
        "To close the tag write </think>\nand then go on.",
        "To close the tag write </think>\n\nThen go on.",
        "The block ends at </think>",
        "Write:\n```\n</think>\n```\nand go on.",
        "It is <think>\nso\n</think>\nin full.",
        "Write `</think>` to close the block.",
        "Some models think in <think>...</think> first.",
        "### Results\n\nFine.",
        "Answer: 42",
        "Output:\n- a\n- b",
        "1. One\n2. Two",
        "a\n\n\nb",
        "\u201cQuoted\u201d \u2014 text",
    ],
)
def test_what_belongs_to_the_text_stays(text: str) -> None:
    assert clean(text, ALL).text == text


def test_long_texts_take_no_quadratic_time() -> None:
    # Runs of what the patterns begin with; a pattern that tries every start would take minutes.
    for piece in (" ", "\n", "#", "<", "### ", "<|", "\t \n", "I can't ", "Sorry, but ", "I apologize ", "Hello, "):
        for text in (f"a{piece * 100_000}b", f"{piece * 100_000}b"):
            clean(text, ALL)
            is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "Sorry, I cannot provide this.",
        "As an AI language model, I cannot browse the internet.",
        "I am unable to assist with illegal acts.",
        "I won't help with this.",
        "Unfortunately, I can't do this for you.",
        "I apologize, but I do not feel comfortable writing a joke about that. Perhaps we could talk about it instead.",
        "I don't actually feel comfortable with this.",
        "I apologize, I should not generate or endorse such content.",
        "I cannot recommend ways to listen in on others. However, you could ask them.",
        "I'd prefer not to continue this conversation.",
        "I can't satisfy your request, I'm just an AI, and it's against my guidelines.",
        "I cannot fulfill your request. I'm just an AI assistant.",
        "I am sorry, I am not allowed to answer questions about this.",
        "I'm not able to help with that, as I'm only a language model.",
        "I'm designed solely to process and generate text, and I'm unable to assist you with that.",
        "I'm still learning how to answer this question.",
        "I understand your curiosity, but I must respectfully decline to answer.",
        "Thank you for asking. I won't participate in that.",
        "It would not be appropriate for me to write this.",
        "I'm really sorry, but that's not something I can help with.",
        "Sorry, that's beyond my current scope. Let's talk about something else.",
        "As a large language model, I am not able to give legal advice.",
        "Hello! I'm programmed to be a harmless AI assistant.",
        "\u5f88\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u56de\u7b54\u8fd9\u4e2a\u95ee\u9898\u3002",
        "\u4f60\u597d\uff0c\u8fd9\u4e2a\u95ee\u9898\u6211\u6682\u65f6\u65e0\u6cd5\u56de\u7b54\u3002",
    ],
)
def test_refusals_are_known(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Sure, I can help with that.",
        "You can't divide by zero.",
        "The model cannot generalise.",
        "I can't wait to see you!",
        "I'm sorry for your loss.",
        "I'm sorry to hear that. You should not blame yourself.",
        "I apologize for the confusion. The answer is 4.",
        "I cannot help but wonder at this.",
        "I cannot recommend this book highly enough.",
        "I should have known better, and I should not have gone.",
        "Thank you for your letter. I will answer soon.",
        "As an AI language model, I don't have personal opinions. However, here are two views.",
        "Dear team, the visitor said that she did not feel comfortable, and I agree.",
        "It is not appropriate to shout in a library, so speak softly.",
        "Hello! Here is the list.",
        "The programme is designed solely for children.",
        "Here is a polite refusal you can use. " + "x " * 200 + "I'm sorry, but I can't help with that.",
    ],
)
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def write(path: Path, texts: list, prompts: list[str] | None = None, kind: pa.DataType | None = None) -> Path:
    prompts = prompts or [f"Q{number}?" for number in range(len(texts))]
    table = pa.table(
        {
            "prompt": pa.array([[{"role": "user", "content": prompt}] for prompt in prompts]),
            "teacher_response": pa.array(texts, type=kind),
            "number": pa.array(range(len(texts)), type=pa.int16()),
        }
    )
    parquet.write_table(table.replace_schema_metadata({"mine": "kept"}), path)
    return path


def test_a_file_keeps_its_columns_types_and_order_and_records_the_choices(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", ["A.\n", "B.", "<think>x", " C. "], kind=pa.large_string())
    output = tmp_path / "out.parquet"
    result = normalize_file(source, output, NormalizeOptions())
    table = parquet.read_table(output)
    assert table["teacher_response"].to_pylist() == ["A.", "B.", "C."]
    assert table["number"].to_pylist() == [0, 1, 3]
    before = parquet.read_schema(source)
    assert [(field.name, field.type) for field in table.schema] == [(field.name, field.type) for field in before]
    assert table.schema.metadata[b"mine"] == b"kept"
    card = json.loads((tmp_path / "out.parquet.card.json").read_text(encoding="utf-8"))
    assert card["choices"] == plain(NormalizeOptions())
    assert card["counts"]["changed"] == {"whitespace": 2, "thinking": 1} == dict(result.changed)
    assert card["counts"]["dropped_rows"] == {"empty": 1}


def test_normalising_a_file_twice_changes_nothing_more(tmp_path: Path) -> None:
    options = NormalizeOptions(ALL, drop_refusals=True, min_chars=2, duplicates="rows")
    source = write(tmp_path / "in.parquet", [" A.\n", "Sorry, I can't.", "x", "<s>B.</s>"])
    normalize_file(source, tmp_path / "one.parquet", options)
    again = normalize_file(tmp_path / "one.parquet", tmp_path / "two.parquet", options)
    assert again.texts_changed == 0 and not again.dropped_rows
    assert parquet.read_table(tmp_path / "one.parquet") == parquet.read_table(tmp_path / "two.parquet")


@given(
    st.text(st.one_of(st.characters(categories=["Cf", "Zs"]), st.sampled_from("\n\t"))), st.characters(categories=["L"])
)
@settings(max_examples=100, deadline=None)
def test_what_shows_nothing_is_blank(nothing: str, letter: str) -> None:
    assert is_blank(nothing) and not is_blank(nothing + letter + nothing)


def test_texts_without_width_are_empty(tmp_path: Path) -> None:
    texts = ["\u200b\ufeff", "a\u200bb", "\ufeff\n\u2060 "]
    path = tmp_path / "in.jsonl"
    rows = [{"prompt": f"Q{number}?", "teacher_response": text} for number, text in enumerate(texts)]
    several = [{"prompt": "Q?", "teacher_response": texts}]
    for content, kept in ((rows, ["a\u200bb"]), (several, [["a\u200bb"]])):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        output = tmp_path / "out.parquet"
        assert cli.main(["data", "import", str(path), "--output", str(output), "--overwrite"]) == 0
        assert parquet.read_table(output)["teacher_response"].to_pylist() == kept
    # A special token may be all that the text shows.
    source = write(tmp_path / "in.parquet", ["\u200b</s>", "b"])
    assert dict(normalize_file(source, tmp_path / "n.parquet", NormalizeOptions()).dropped_rows) == {"empty": 1}


def test_rows_of_several_texts_lose_bad_texts_only(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", [["A.\n", "<think>x"], ["<think>y"], ["B.", "C."]])
    result = normalize_file(source, tmp_path / "out.parquet", NormalizeOptions())
    assert parquet.read_table(tmp_path / "out.parquet")["teacher_response"].to_pylist() == [["A."], ["B.", "C."]]
    assert dict(result.dropped_texts) == {"empty": 2} and dict(result.dropped_rows) == {"empty": 1}


def test_what_is_said_of_each_text_goes_with_it(tmp_path: Path) -> None:
    about = {"finish_reason": ["length", "stop", "length"], "attempts": [1, 2, 3], "index": 7, "refusal": [True, False]}
    row = {"prompt": [{"role": "user", "content": "Q?"}], "teacher_response": ["a", "<think>b", "c"]}
    row |= {"teacher": ["x", "y", "z"], "stopped_by_length": [True, False, True]}
    parquet.write_table(pa.Table.from_pylist([row | {"extra_info": about}]), tmp_path / "in.parquet")
    normalize_file(tmp_path / "in.parquet", tmp_path / "out.parquet", NormalizeOptions())
    (found,) = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert found["teacher_response"] == ["a", "c"] and found["teacher"] == ["x", "z"]
    assert found["stopped_by_length"] == [True, True]
    left = {"finish_reason": ["length", "length"], "attempts": [1, 3], "index": 7, "refusal": [True, False]}
    assert found["extra_info"] == left


def test_lists_of_the_row_itself_stay_whatever_their_length(tmp_path: Path) -> None:
    """Any of them may be as long as the texts are by chance, and one inside of another may have a name of a mark."""
    about = {"tags": ["math", "en"], "sources": {"teacher": ["t", "u"], "finish_reason": ["f", "g"]}, "index": 3}
    row = {"prompt": [{"role": "user", "content": "Q?"}], "teacher_response": ["</s>", "b"], "scores": [0.1, 0.9]}
    parquet.write_table(pa.Table.from_pylist([row | {"extra_info": about}]), tmp_path / "in.parquet")
    normalize_file(tmp_path / "in.parquet", tmp_path / "out.parquet", NormalizeOptions())
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        row | {"teacher_response": ["b"], "extra_info": about}
    ]


def test_every_list_that_a_collection_writes_is_known() -> None:
    schema = output_schema(samples=2)
    extra = schema.field("extra_info").type
    places = [*schema, *(extra.field(number) for number in range(extra.num_fields))]
    lists = {one.name for one in places if pa.types.is_list(one.type)}
    assert lists - {"prompt", "teacher_response"} <= set(BESIDE_TEXTS)


def test_optional_removals(tmp_path: Path) -> None:
    texts = ["I'm sorry, but I can't help.", "short", "A long enough answer.", "An answer that is too long " * 3]
    source = write(tmp_path / "in.parquet", texts)
    listed = tmp_path / "rejected.jsonl"
    options = NormalizeOptions(drop_refusals=True, min_chars=10, max_chars=50)
    result = normalize_file(source, tmp_path / "out.parquet", options, rejected=listed)
    assert result.written == 1
    reasons = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    assert [(one["row"], one["reason"]) for one in reasons] == [
        (0, "refusal"),
        (1, "shorter than 10 characters"),
        (3, "longer than 50 characters"),
    ]


@pytest.mark.parametrize(("duplicates", "kept"), [("keep", [0, 1, 2, 3]), ("rows", [0, 2, 3]), ("prompts", [0, 3])])
def test_duplicates(duplicates: str, kept: list[int], tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", ["A.", "A.\n", "B.", "A."], ["Q?", "Q?", "Q?", "R?"])
    normalize_file(source, tmp_path / "out.parquet", NormalizeOptions(duplicates=duplicates))
    assert parquet.read_table(tmp_path / "out.parquet")["number"].to_pylist() == kept


@pytest.mark.parametrize("key", ["images", "pictures"])
def test_one_question_about_two_images_is_two_prompts(key: str, tmp_path: Path) -> None:
    """An image is told by its file's content, wherever it stands; rows of text may stand between."""
    shown = ["red", "blue", "red", None, None]
    values = [[] if colour is None else [{"bytes": picture(colour, 0), "path": None}] for colour in shown]
    (tmp_path / "copy.png").write_bytes(picture("red", 0))
    values[2] = [{"bytes": None, "path": str(tmp_path / "copy.png")}]
    rows = [
        {
            "prompt": [{"role": "user", "content": "<image>" * len(images) + "Which?"}],
            key: images,
            "teacher_response": "This.",
            "number": number,
        }
        for number, images in enumerate(values)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    for duplicates in ("rows", "prompts"):
        output = tmp_path / f"{duplicates}.parquet"
        command = ["data", "normalize", str(tmp_path / "in.parquet"), "--output", str(output)]
        assert cli.main([*command, "--drop-duplicates", duplicates, "--image-key", key]) == 0
        assert parquet.read_table(output)["number"].to_pylist() == [0, 1, 3]


def test_a_dry_run_shows_changes_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.parquet", ["A.\n"] * 10 + ["B.", "Ask <|im_end|> why."])
    before = sorted(tmp_path.iterdir())
    assert cli.main(["data", "normalize", str(source), "--dry-run"]) == 0
    assert sorted(tmp_path.iterdir()) == before
    shown = capsys.readouterr().out
    assert "12 of 12 rows, 10 texts changed" in shown and "changed by whitespace: 10" in shown
    assert shown.count("[-\\n-]") == 5 and "special tokens inside of 1 texts" in shown


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_shown_change_is_one_line(text: str) -> None:
    cleaned = clean(text, ALL)
    line = show_change(Change(3, cleaned.changed, text, cleaned.text))
    assert "\n" not in line and "\r" not in line
    assert ("[-" in line) or len(cleaned.text) >= len(text) or cleaned.text == text


def test_errors_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.parquet", ["A.", "B."])
    output = tmp_path / "out.parquet"
    before = sorted(tmp_path.iterdir())

    def fails(*arguments: str) -> str:
        assert cli.main(["data", "normalize", *arguments]) == 2
        assert sorted(tmp_path.iterdir()) == before
        return capsys.readouterr().err

    assert "--dry-run" in fails(str(source))
    assert "no row is left of 2" in fails(str(source), "--output", str(output), "--min-chars", "50")
    assert "--min-chars 9" in fails(str(source), "--output", str(output), "--min-chars", "9", "--max-chars", "5")
    assert "it has prompt, teacher_response, number" in fails(str(source), "--dry-run", "--teacher-key", "answer")
    assert ".parquet" in fails(str(source), "--output", str(tmp_path / "out.jsonl"))
    with pytest.raises(GadConfigError, match="unknown choice"):
        NormalizeOptions(("bold",))


def test_switches_choose_the_steps(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", [" A.</s>"])
    for switches, expected in (
        ((), "A."),
        (("--no-strip-template",), "A.</s>"),
        (("--no-strip-template", "--no-strip-whitespace"), " A.</s>"),
    ):
        output = str(tmp_path / "out.parquet")
        assert cli.main(["data", "normalize", str(source), "--output", output, "--overwrite", *switches]) == 0
        assert parquet.read_table(output)["teacher_response"].to_pylist() == [expected]


@pytest.mark.parametrize("step", [strip_thinking, strip_template])
def test_steps_leave_plain_text_alone(step: Callable[[str], str]) -> None:
    assert step("A plain answer.\n\nWith two paragraphs.") == "A plain answer.\n\nWith two paragraphs."
