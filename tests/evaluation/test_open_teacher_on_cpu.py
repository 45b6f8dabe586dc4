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
"""What an open teacher is asked, and what is refused before a model is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_model import build_model, build_other_model, build_other_tokenizer, build_rows, build_tokenizer

from gad_verl import cli
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.evaluation import engines, run
from gad_verl.tools.evaluation.generation import GenerationSettings, build_sequences
from gad_verl.tools.evaluation.open_teacher import (
    OpenTeacher,
    TeacherOptions,
    framed,
    open_teacher,
    read_context,
    same_vocabulary,
)
from gad_verl.tools.evaluation.responses import Response
from gad_verl.tools.evaluation.rows import Row
from gad_verl.tools.evaluation.scored_texts import ScoredText, scored_texts
from gad_verl.tools.evaluation.scoring import batches
from gad_verl.tools.export.checkpoint import find_checkpoint
from gad_verl.tools.teacher.prompts import Framing, Prompts

USER = {"role": "user", "content": "one?"}
SYSTEM, OWN = {"role": "system", "content": "Be short."}, {"role": "system", "content": "Be long."}
EXAMPLES = ({"role": "user", "content": "two?"}, {"role": "assistant", "content": "2"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``student``, ``teacher``, ``other`` (another vocabulary), ``val.parquet``, ``context.txt``."""
    path = tmp_path_factory.mktemp("open_teacher")
    build_model(path / "student", hidden=32, layers=1)
    build_model(path / "teacher", seed=1, hidden=32, layers=1, max_position_embeddings=256, vocab_size=264)
    build_other_model(path / "other")
    pd.DataFrame(build_rows(4, seed=2)).to_parquet(path / "val.parquet")
    (path / "context.txt").write_text("Be short.\n")
    return path


@pytest.mark.parametrize("context", [(), (SYSTEM,), EXAMPLES, (SYSTEM, *EXAMPLES)])
@pytest.mark.parametrize("chat", [[USER], [OWN, USER], [OWN, USER, {"role": "assistant", "content": "?"}, USER]])
def test_the_teacher_is_asked_what_collecting_asks(context: tuple[dict[str, str], ...], chat: list[Any]) -> None:
    from gad_verl.data.reading import Source

    system = context[0]["content"] if context and context[0] == SYSTEM else None
    framing = Framing(system, examples=tuple(message for message in context if message != SYSTEM))
    source = Source("rows", ["prompt"], 1, lambda: iter([{"prompt": chat}]))
    (prompt,) = Prompts(source).framed(framing)
    assert framed(tuple(chat), context) == prompt.asked


def test_a_context_is_a_text_or_messages(tmp_path: Path) -> None:
    text, messages = tmp_path / "context.txt", tmp_path / "context.json"
    text.write_text("\n  Be short. \n")
    assert read_context(text) == (SYSTEM,)
    messages.write_text(json.dumps([SYSTEM, *EXAMPLES]))
    assert read_context(messages) == (SYSTEM, *EXAMPLES)
    for file in (text, messages):
        # With a mark of UTF-8, as some editors write it.
        (tmp_path / f"marked_{file.name}").write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert read_context(tmp_path / f"marked_{file.name}") == read_context(file)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.txt", None, "cannot be read: No such file"),
        ("empty.txt", b" \n", "is empty"),
        ("mark.txt", b"\xef\xbb\xbf\n", "is empty"),
        ("latin.txt", b"\xff\xfe\x00", "no text in UTF-8"),
        ("text.json", b"Be short.", "expected a JSON list of messages"),
        ("number.json", b"3", "expected a JSON list of messages"),
        ("none.json", b"[]", "expected a JSON list of messages"),
        ("role.json", b'[{"role": "user"}]', "expected a JSON list of messages"),
        ("content.json", b'[{"role": "user", "content": 3}]', "expected a JSON list of messages"),
        ("late.json", json.dumps([*EXAMPLES, SYSTEM]).encode(), "a system message first"),
    ],
)
def test_a_context_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GadDataError, match=expected) as error:
        read_context(tmp_path / name)
    assert name in str(error.value) and "--teacher-context" in str(error.value)


def test_vocabularies_are_the_same_by_tokens_and_by_cutting() -> None:
    tokenizer, texts = build_tokenizer(), ["a red cat", "blue birds"]
    assert same_vocabulary(tokenizer, build_tokenizer(), texts)
    assert not same_vocabulary(tokenizer, build_other_tokenizer(), texts)
    more = build_tokenizer()
    more.add_tokens(["<think>"])
    assert not same_vocabulary(tokenizer, more, texts)

    class Lowered:
        """The same tokens, other cutting."""

        get_vocab = staticmethod(tokenizer.get_vocab)

        def __call__(self, texts: list[str], **options: Any) -> Any:
            return tokenizer([text.lower() for text in texts], **options)

    assert same_vocabulary(tokenizer, Lowered(), texts) and not same_vocabulary(tokenizer, Lowered(), ["A cat"])


def opened(folder: Path, rows: list[Row], limit: int = 4, teacher: str = "teacher", **options: Any) -> tuple[Any, ...]:
    settings = GenerationSettings(max_response_length=limit, temperature=0.7, max_prompt_length=8)
    student = find_checkpoint(folder / "student")
    builder = build_sequences(student, settings)
    return open_teacher(TeacherOptions(folder / teacher, **options), student, builder, rows, settings), builder


def test_readers_have_their_own_temperatures_and_prompts(folder: Path) -> None:
    rows = [Row((USER,), "two"), Row((OWN, USER), "ab")]
    teacher, builder = opened(folder, rows, context=folder / "context.txt", temperature=0.3)
    student, told = teacher.readers["student"], teacher.readers["teacher"]
    assert (student.temperature, told.temperature) == (0.7, 0.3)
    # The student's prompt is cut as in the generation, the teacher's never.
    assert [len(ids) for ids in student.prompts] == [8, 8]
    assert [told.builder.decode(ids) for ids in told.prompts] == [
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe long.<|im_end|>\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n",
    ]
    # 259 tokens; the teacher's other five columns pad.
    assert teacher.exact and student.width == told.width == 259
    assert student.ends == told.ends == (builder.eos_token_id,)


def texts_of(teacher: OpenTeacher, builder: Any, rows: list[Row], responses: list[Response]) -> list[ScoredText]:
    return scored_texts(rows, responses, teacher, builder)


def test_empty_and_unfinished_answers(folder: Path) -> None:
    rows = [Row((USER,), "abcdefgh"), Row((USER,), "ab")]
    teacher, builder = opened(folder, rows)
    eos = builder.eos_token_id
    a, b, c, d = builder.response("abcd", finished=False).token_ids
    responses = [
        Response(0, 0, "", "", "stop", 8, 1, [eos]),
        Response(1, 0, "", "abcd", "length", 8, 4, [a, b, c, d]),
        Response(1, 1, "", "a", "stop", 8, 2, [a, eos]),
    ]
    texts = texts_of(teacher, builder, rows, responses)
    assert [(text.key, text.finished, text.answer_ids["teacher"]) for text in texts] == [
        (("student", 0, 0), True, [eos]),
        (("student", 1, 0), False, [a, b, c, d]),
        (("student", 1, 1), True, [a, eos]),
        # Cut at the limit of the student's answers: no end.
        (("teacher", 0, 0), False, [a, b, c, d]),
        (("teacher", 1, 0), True, [a, b, eos]),
    ]
    assert all(text.answer_ids["student"] == text.answer_ids["teacher"] for text in texts)
    # The same prompt and answer twice, by both authors.
    assert [text.digest for text in texts].count(texts[1].digest) == 2 and len({text.digest for text in texts}) == 4

    other, builder = opened(folder, rows, teacher="other")
    half = [builder.response("é", finished=False).token_ids[0]]
    responses[1] = Response(1, 0, "", builder.decode(half), "length", 8, 1, half)
    texts = texts_of(other, builder, rows, responses)
    ends = {who: reader.ends[0] for who, reader in other.readers.items()}
    assert texts[0].answer_ids == {who: [end] for who, end in ends.items()} and texts[0].finished
    # Half of a character is no text that another tokenizer could read.
    assert texts[1].answer_ids == {"student": [], "teacher": []} and not texts[1].finished
    assert texts[3].answer_ids["teacher"] == other.readers["teacher"].builder.response("abcd", False).token_ids


def test_responses_without_token_ids_are_refused(folder: Path) -> None:
    rows = [Row((USER,), "ab")]
    teacher, builder = opened(folder, rows)
    with pytest.raises(GadDataError, match="without their token ids.*in another --output"):
        texts_of(teacher, builder, rows, [Response(0, 0, "", "a", "stop", 8, 2)])


def test_batches_have_a_text_at_least() -> None:
    texts = [
        ScoredText("student", n, 0, True, {}, {"student": [0] * length}) for n, length in enumerate([9, 4, 4, 2, 1])
    ]
    lengths = [[len(text.answer_ids["student"]) for text in batch] for batch in batches(texts, "student", None, 7)]
    assert lengths == [[9], [4], [4, 2, 1]]
    assert [len(batch) for batch in batches(texts, "student", 2, None)] == [2, 2, 1]
    assert batches([], "student", 2, None) == []


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_teacher_without_a_distribution(temperature: float) -> None:
    with pytest.raises(GadConfigError, match="--teacher-temperature must be above 0"):
        TeacherOptions(Path("model"), temperature=temperature)


# ------------------------------ one line, before any model is loaded ------------------------------


@pytest.fixture
def refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """The error of a command that must not load a model, nor write anything."""
    for module in (engines, run):
        monkeypatch.setattr(module, "load_model", lambda *arguments: pytest.fail("a model was loaded"))

    def refusal(*more: str, sampled: bool = True, data: Path | None = None) -> str:
        paths = ["--model", str(folder / "student"), "--data", str(data or folder / "val.parquet")]
        sampling = ["--temperature", "1"] if sampled else []
        short = ["--engine", "hf", "--max-response-length", "6"]
        assert cli.main(["evaluate", *paths, "--output", str(tmp_path / "out"), *short, *sampling, *more]) == 2
        assert not (tmp_path / "out").exists()
        (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("gad-verl:")]
        return line

    return refusal


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--teacher-temperature", "0"], "--teacher-temperature must be above 0"),
        (["--teacher-scratch", "0"], "--teacher-scratch must be above 0"),
        (["--teacher-context", "/nowhere/context.txt"], "--teacher-context /nowhere/context.txt cannot be read"),
        (["--temperature", "0"], "greedy answers are no sample of one: add --temperature 1"),
        (["--top-p", "0.9"], "--top-p 1 and --top-k -1"),
        (["--top-k", "5"], "--top-p 1 and --top-k -1"),
        (["--max-response-length", "250"], "--teacher-model has 256 positions: lower"),
    ],
)
def test_options_that_cannot_work(refused: Callable[..., str], folder: Path, more: list[str], expected: str) -> None:
    assert expected in refused("--teacher-model", str(folder / "teacher"), *more)


def test_options_of_no_teacher(refused: Callable[..., str], folder: Path) -> None:
    for more in (["--teacher-temperature", "0.3"], ["--teacher-context", str(folder / "context.txt")]):
        assert "need --teacher-model" in refused(*more)


def test_folders_that_are_no_teacher(refused: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    assert "/nowhere: no Hugging Face folder" in refused("--teacher-model", "/nowhere")

    def damaged(name: str, *removed: str, **config: Any) -> list[str]:
        copy = shutil.copytree(folder / "teacher", tmp_path / name)
        for file in removed:
            (copy / file).unlink(missing_ok=True)
        if config:
            known = json.loads((copy / "config.json").read_text())
            (copy / "config.json").write_text(json.dumps({**known, **config}))
        return ["--teacher-model", str(copy)]

    assert "no weights" in refused(*damaged("weights", "model.safetensors"))
    assert "has no tokenizer" in refused(*damaged("tokenizer", "tokenizer.json", "tokenizer_config.json"))
    assert "has no chat template" in refused(*damaged("template", "chat_template.jinja"))
    assert "no language model" in refused(*damaged("kind", model_type="vit"))
    assert "config.json cannot be used" in refused(*damaged("unknown", model_type="a_model_of_tomorrow"))
    broken = damaged("broken")
    (Path(broken[1]) / "config.json").write_text("{")
    assert "cannot be read" in refused(*broken)
    stubborn = damaged("stubborn")
    (Path(stubborn[1]) / "chat_template.jinja").write_text("{{ raise_exception('no system messages') }}")
    message = refused(*stubborn)
    assert stubborn[1] in message and "chat template refuses the prompt: no system messages" in message


def test_a_context_that_reaches_nobody(refused: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    rows = build_rows(4, seed=2)
    data = tmp_path / "val.parquet"
    pd.DataFrame([{**row, "prompt": [OWN, *row["prompt"]]} for row in rows]).to_parquet(data)
    options = ["--teacher-model", str(folder / "teacher"), "--teacher-context", str(folder / "context.txt")]
    assert "would reach no prompt" in refused(*options, data=data)
