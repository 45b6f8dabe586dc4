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
"""``gad-verl evaluate`` on a tiny random model: from a data file to a report, interrupted, refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fault_server import FaultServer
from scripted_judge import by_length, scripted
from tiny_model import build_model, build_rows

from gad_verl import cli
from gad_verl.tools.api import AnswerStore
from gad_verl.tools.evaluation import engines, generation
from gad_verl.tools.evaluation.figures import measure
from gad_verl.tools.evaluation.generation import Compute, GenerationSettings, build_sequences
from gad_verl.tools.evaluation.responses import Response, read_responses
from gad_verl.tools.evaluation.results import read_evaluation
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.tools.evaluation.two_sample import FEWEST_PROMPTS
from gad_verl.tools.export.checkpoint import find_checkpoint

SHORT = ["--engine", "hf", "--max-response-length", "6", "--two-sample-splits", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "val.parquet"
    pd.DataFrame(build_rows(8, seed=2)).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("student"), hidden=32, layers=1)


@pytest.fixture
def run(model: Path, data: Path, tmp_path: Path) -> Callable[..., int]:
    def command(*more: str, output: str = "out") -> int:
        paths = ["--model", str(model), "--data", str(data), "--output", str(tmp_path / output)]
        return cli.main(["evaluate", *paths, *SHORT, *more])

    return command


def test_from_a_data_file_to_a_report(
    run: Callable[..., int], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--features-model", str(model)) == 0
    evaluation = read_evaluation(tmp_path / "out")
    assert all(e.low <= e.value <= e.high for e in evaluation.figures.values())
    assert {"rouge_l", "length_ratio", "two_sample_words", "two_sample_features"} <= set(evaluation.figures)
    assert len(evaluation.prompt_ids) == len(set(evaluation.prompt_ids)) == 8
    responses = read_responses(tmp_path / "out" / "responses.jsonl")
    assert sorted(r.key for r in responses) == [(n, 0) for n in range(8)]
    assert all(r.finish_reason == ("stop" if r.response_tokens < 6 else r.finish_reason) for r in responses)
    assert all(0 < r.response_tokens <= 6 and r.prompt_tokens > 10 for r in responses)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == report and "two-sample accuracy, features" in report

    # Figures that cost a model of their own stay when the command is repeated without it; the rest is the same.
    assert run() == 0
    again = read_evaluation(tmp_path / "out")
    assert again.figures == evaluation.figures
    # What decided them stays with them.
    splits = {"splits": 2}
    about = {"two_sample_words": splits, "two_sample_characters": splits, "two_sample_features": splits}
    about["two_sample_features"] = {**splits, "model": model.name}
    assert again.about == evaluation.about == about


def test_an_interruption_costs_nothing(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--batch-size", "3", output="whole") == 0
    whole = (tmp_path / "whole" / "responses.jsonl").read_text()
    generated = []
    stock = engines.HFEngine.run

    def interrupted(self: Any, jobs: Any) -> Any:
        for number, item in enumerate(stock(self, jobs)):
            if number == 4:
                raise KeyboardInterrupt
            generated.append(item[0].prompt)
            yield item

    monkeypatch.setattr(engines.HFEngine, "run", interrupted)
    assert run("--batch-size", "3") == 130
    file = tmp_path / "out" / "responses.jsonl"
    assert len(read_responses(file)) == 4
    # The next line was being written as the process ended.
    file.write_bytes(file.read_bytes() + b'{"prompt": 5, "sam')

    def counted(self: Any, jobs: Any) -> Any:
        for item in stock(self, jobs):
            generated.append(item[0].prompt)
            yield item

    monkeypatch.setattr(engines.HFEngine, "run", counted)
    assert run("--batch-size", "3") == 0
    assert sorted(generated) == list(range(8))
    assert sorted(file.read_text().splitlines()) == sorted(whole.splitlines())
    monkeypatch.setattr(engines.HFEngine, "__init__", lambda *args: pytest.fail("nothing is left to generate"))
    assert run() == 0


def test_padding_and_batches_do_not_change_the_responses(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--batch-size", "8", output="batched") == 0
    assert run("--batch-size", "1", output="single") == 0
    texts = [
        {r.key: r.text for r in read_responses(tmp_path / name / "responses.jsonl")} for name in ("batched", "single")
    ]
    assert texts[0] == texts[1]


def test_samples_differ_and_are_averaged(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--samples", "3", "--temperature", "1.5", "--limit", "4") == 0
    responses = read_responses(tmp_path / "out" / "responses.jsonl")
    assert sorted(r.key for r in responses) == [(n, s) for n in range(4) for s in range(3)]
    assert len({r.text for r in responses}) > 6
    finished = [np.mean([r.finished for r in responses if r.prompt == number]) for number in range(4)]
    assert read_evaluation(tmp_path / "out").columns["finished"] == pytest.approx(finished)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--temperature", "0.5"], "other settings (temperature: 0.0 there, 0.5 now); name another --output"),
        (["--limit", "3"], "prompts: 8 there, 3 now"),
        (["--max-response-length", "7"], "max_response_length: 6 there, 7 now"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    run: Callable[..., int], more: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run() == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert run(*more) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_a_run_that_failed_before_its_first_response_binds_nobody(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--max-response-length", "2000") == 2  # more than the model's positions
    assert not (tmp_path / "out" / "responses.jsonl").exists()
    assert run() == 0
    assert read_evaluation(tmp_path / "out").settings["max_response_length"] == 6


# Nobody is there.
JUDGE = ["--judge-base-url", "http://127.0.0.1:9/v1", "--judge-model", "m"]


def test_the_data_may_not_lie_where_the_results_go(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "out" / "prompts.jsonl"
    rows.parent.mkdir()
    content = pd.DataFrame(build_rows(3, seed=1)).to_json(orient="records", lines=True)
    rows.write_text(content, encoding="utf-8")
    assert run("--data", str(rows)) == 2
    assert "would replace --data" in one_line(capsys)
    assert rows.read_text(encoding="utf-8") == content and [*rows.parent.iterdir()] == [rows]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line."""
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("gad-verl:")]
    return line


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--model", "/nowhere"], "/nowhere: no such checkpoint"),
        (["--data", "/nowhere/val.parquet"], "/nowhere/val.parquet: no such data file"),
        (["--prompt-key", "question"], "no column 'question'"),
        (["--teacher-key", "gold"], "Set --teacher-key to the right one"),
        (["--samples", "2"], "--samples above 1 needs a --temperature above 0"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--top-p", "0"], "--top-p must be above 0"),
        (["--max-response-length", "2000"], "the model has 1024 positions"),
        (["--features-model", "/nowhere"], "no Hugging Face folder"),
        (["--judge-base-url", "http://127.0.0.1:9/v1"], "a judge needs both"),
        (["--judge-base-url", "http://127.0.0.1:9/v1", "--judge-model", "m"], "127.0.0.1:9"),
        (["--judge-base-url", "http://127.0.0.1:9/v1", "--judge-model", "m", "--judge-option", "x"], "KEY=JSON"),
        ([*JUDGE, "--judge-option", "top_p=NaN"], "--judge-option 'top_p' cannot be sent as JSON"),
        ([*JUDGE, "--judge-option", "top_p=1e999"], "--judge-option 'top_p' cannot be sent as JSON"),
        ([*JUDGE, "--judge-option", 'extra={"a": [-Infinity]}'], "--judge-option 'extra' cannot be sent as JSON"),
        (["--temperature", "inf"], "--temperature must be a number from 0; got inf"),
        (["--temperature", "nan"], "--temperature must be a number from 0; got nan"),
        (["--temperature", "-1"], "--temperature must be a number from 0; got -1"),
        ([*JUDGE, "--judge-store", "."], "cannot be opened"),
        ([*JUDGE, "--judge-store", "/dev/null/judge.sqlite"], "cannot be opened"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    run: Callable[..., int], more: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(*more) == 2
    assert expected in one_line(capsys)
    assert not (tmp_path / "out" / "results.json").exists()
    assert read_responses(tmp_path / "out" / "responses.jsonl") == []


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize(
    "option",
    ["--judge-timeout", "--judge-concurrency", "--judge-requests-per-minute", "--judge-tokens-per-minute"],
)
def test_limits_of_the_judge_are_named_as_they_were_given(
    run: Callable[..., int], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        run(*JUDGE, option, value)
    assert refused.value.code == 2 and f"argument {option}: " in capsys.readouterr().err


def test_a_store_that_another_process_holds_is_found_before_generation(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "shared.sqlite"):
        judge = ["--judge-base-url", server.base_url, "--judge-model", server.model]
        assert run(*judge, "--judge-store", str(tmp_path / "shared.sqlite")) == 2
        assert "another process" in one_line(capsys) and not (tmp_path / "out").exists()
        # A new one in the folder of the evaluation is no reason to take that folder for somebody else's.
        assert run(*judge, "--judge-store", str(tmp_path / "out" / "own.sqlite")) == 0


def test_damaged_inputs_are_named(
    run: Callable[..., int], model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    assert run("--data", str(broken)) == 2
    assert "no readable parquet file" in one_line(capsys)

    without = tmp_path / "without.jsonl"
    without.write_text(json.dumps({"prompt": [{"role": "user", "content": "?"}]}) + "\n")
    assert run("--data", str(without)) == 2
    assert "no column 'teacher_response'" in one_line(capsys)

    for missing, expected in (("tokenizer", "has no tokenizer"), ("model.safetensors", "no weights")):
        folder = tmp_path / f"no_{missing}"
        shutil.copytree(model, folder)
        for file in folder.glob(f"{missing}*"):
            file.unlink()
        assert run("--model", str(folder)) == 2
        assert expected in one_line(capsys)

    (tmp_path / "run" / "global_step_7" / "actor").mkdir(parents=True)
    assert run("--model", str(tmp_path / "run")) == 2
    assert "did you mean" in (line := one_line(capsys)) and "global_step_7" in line
    assert run("--model", str(tmp_path / "run" / "global_step_7")) == 2
    assert "incomplete checkpoint" in one_line(capsys)

    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    assert run(output="foreign") == 2
    assert "is not empty" in one_line(capsys)


@pytest.mark.parametrize("content", ['{"editor.tabSize": 2}', "[1, 2]", "not JSON at all", ""])
def test_the_settings_of_another_program_are_left_alone(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text(content)
    assert run() == 2
    assert "is not empty and no folder of gad-verl evaluate" in one_line(capsys)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["settings.json"]
    assert (tmp_path / "out" / "settings.json").read_text() == content


def test_a_judge_without_permission_is_found_before_generation(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-of-the-test")
    with FaultServer(scripted(by_length), key="right") as server:
        judge = ["--judge-base-url", server.base_url, "--judge-model", server.model, "--judge-key-env", "JUDGE_KEY"]
        assert run(*judge) == 2
    assert "sk-of-the-test" not in (line := one_line(capsys)) and "401" in line or "key" in line
    assert not (tmp_path / "out").exists()


def test_with_a_judge(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(output="base") == 0
    base = tmp_path / "base"
    with FaultServer(scripted(by_length)) as server:
        judge = ["--judge-base-url", server.base_url, "--judge-model", server.model, "--judge-teacher"]
        assert run(*judge, "--against", "teacher", f"before={base}") == 0
        asked = len(server.received)
        assert run(*judge, "--against", "teacher", f"before={base}") == 0
        assert len(server.received) == asked
        evaluation = read_evaluation(tmp_path / "out")
        assert evaluation.judge is not None and set(evaluation.judge["win_rates"]) == {"teacher", "before"}
        # The same greedy responses on both sides.
        assert evaluation.judge["win_rates"]["before"]["win_rate"]["value"] == 50
        assert evaluation.judge["counts"]["unparsed"] == 0
        assert "win rate against before" in capsys.readouterr().out
        # The same judge against nobody, and without the teacher: what it said of them is kept.
        judge.remove("--judge-teacher")
        assert run(*judge, "--against", "none", "--judge-attempts", "5") == 0
        assert len(server.received) == asked
    shorter = read_evaluation(tmp_path / "out")
    for name in ("score", "teacher_score", "win_rates", "references"):
        assert shorter.judge[name] == evaluation.judge[name]
    assert (
        np.array_equal(shorter.teacher_marks, evaluation.teacher_marks) and shorter.references == evaluation.references
    )
    evaluation = shorter
    # Without a judge the next time: what it said is kept.
    assert run() == 0
    again = read_evaluation(tmp_path / "out")
    assert again.judge == evaluation.judge and np.array_equal(again.marks, evaluation.marks)
    everything = "".join(file.read_text(errors="replace") for file in (tmp_path / "out").iterdir())
    assert "OPENAI_API_KEY" not in everything


def test_identical_texts_are_parity_in_every_figure(model: Path, data: Path) -> None:
    rows = load_rows(data)
    builder = build_sequences(find_checkpoint(model), GenerationSettings(max_response_length=64))
    responses = [Response(n, 0, row.prompt_id, row.teacher, "stop", 1, 1) for n, row in enumerate(rows)]
    figures = measure(rows, responses, builder, splits=2)
    for name in ("length_ratio", "rouge_l", "ngram_f1_1", "ngram_f1_2", "finished"):
        # Of a share, eight prompts without an exception leave room for some elsewhere.
        low = 1 if name == "length_ratio" else 0.5
        assert figures.summary[name].value == figures.summary[name].high == 1 >= figures.summary[name].low >= low
    for name in ("two_sample_words", "two_sample_characters"):
        assert figures.summary[name].covers(0.5)
    assert figures.plain["distinct_1"] == figures.plain["teacher_distinct_1"]
    # Teacher texts of two or three words have no 6-gram on either side: no figure rather than a wrong one.
    assert "ngram_f1_6" not in figures.summary
    few = measure(rows[: FEWEST_PROMPTS - 1], responses[: FEWEST_PROMPTS - 1], builder)
    assert "two_sample_words" not in few.summary and few.summary["rouge_l"].value == 1


def test_a_cut_teacher_is_compared_by_what_the_student_could_write(model: Path, data: Path) -> None:
    rows = load_rows(data)
    builder = build_sequences(find_checkpoint(model), GenerationSettings(max_response_length=4))
    responses = [Response(n, 0, row.prompt_id, row.teacher[:4], "length", 1, 4) for n, row in enumerate(rows)]
    figures = measure(rows, responses, builder, splits=2)
    assert figures.plain["teacher_cut"] == 1
    assert figures.summary["length_ratio"].value == 1
    assert figures.per_prompt["two_sample_characters"] == [0.5] * 8


def test_fingerprints_change_with_the_weights(model: Path, tmp_path: Path) -> None:
    other = build_model(tmp_path / "other", seed=1, hidden=32, layers=1)
    copy = shutil.copytree(model, tmp_path / "copy")
    prints = [find_checkpoint(folder).fingerprint() for folder in (model, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def test_the_engine_is_chosen_by_what_runs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert engines.resolve_engine("auto", model) == "hf"
    with pytest.raises(ValueError, match="not installed"):
        engines.resolve_engine("vllm", model)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(engines, "_is_cpu_build", lambda: True)
    assert engines.resolve_engine("auto", model) == "vllm"
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "head_dim": 16}))
    assert engines.resolve_engine("auto", tmp_path) == "hf"
    assert generation.Compute() == Compute(engine="auto")


# -------------------------------------------------------------------------------------------------- template options

SWITCH = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}A:"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)


def thinking_model(folder: Path) -> Path:
    from transformers import AutoTokenizer

    model = build_model(folder, hidden=32, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = SWITCH
    tokenizer.save_pretrained(model)
    return model


@pytest.mark.parametrize("form", ["checkpoint", "export"])
def test_prompts_are_rendered_as_in_the_training(
    form: str, tmp_path: Path, tiny_config: Any, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from run_folders import save_part, write_run
    from transformers import AutoModelForCausalLM

    from gad_verl.tools.export.weights import export_part

    source = thinking_model(tmp_path / "source")
    tiny_config.data.apply_chat_template_kwargs = {"enable_thinking": False}
    student = write_run(tmp_path / "run", tiny_config, 3)
    save_part(student / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    if form == "export":
        student = export_part(student, "student", tmp_path / "exported")
    output = tmp_path / "out"
    command = ["evaluate", "--model", str(student), "--data", str(data), "--output", str(output), *SHORT]
    assert cli.main(command) == 0
    settings = json.loads((output / "settings.json").read_text())
    assert settings["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking=false" in (output / "report.md").read_text()
    assert "thinking" not in caplog.text
    builder = build_sequences(find_checkpoint(student), GenerationSettings())
    rendered = [builder.render(row.messages) for row in load_rows(data)]
    assert all(text.endswith("A:<think></think>") for text in rendered)
    # Another way of rendering is another evaluation.
    assert cli.main([*command, "--chat-template-kwargs", "{}"]) == 2


def test_template_options_can_be_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = find_checkpoint(thinking_model(tmp_path / "base"))
    chat = [{"role": "user", "content": "Hi"}]
    assert build_sequences(checkpoint, GenerationSettings()).render(chat) == "HiA:"
    assert "--chat-template-kwargs" in caplog.text and "enable_thinking" in caplog.text
    caplog.clear()
    for options, expected in (({}, "HiA:"), ({"enable_thinking": False}, "HiA:<think></think>")):
        settings = GenerationSettings(chat_template_kwargs=options)
        assert build_sequences(checkpoint, settings).render(chat) == expected
    assert not caplog.text


def test_options_that_are_no_json_object_are_refused(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        run("--chat-template-kwargs", "enable_thinking=False")
    assert refused.value.code == 2 and "JSON object" in capsys.readouterr().err


def test_a_folder_of_before_the_option_goes_on(run: Callable[..., int], tmp_path: Path) -> None:
    assert run() == 0
    file = tmp_path / "out" / "settings.json"
    settings = json.loads(file.read_text())
    assert settings.pop("chat_template_kwargs") == {}
    file.write_text(json.dumps(settings))
    assert run() == 0


# -------------------------------------------------------------------------------------------------- hidden thoughts


def scripted_engine(texts: list[str]) -> Callable[..., Any]:
    """An engine that answers prompt ``n`` with the ``n``-th text, and ends all but those that end in a dash."""

    class Engine:
        def __init__(self, *given: Any) -> None:
            self.builder = given[4]

        def run(self, jobs: Any) -> Any:
            for job in jobs:
                text = texts[job.prompt]
                ids = self.builder.marked_ids(text.removesuffix("-"))
                yield job, ids if text.endswith("-") else [*ids, self.builder.eos_token_id]

    return Engine


HIDDEN = {
    "<think>hm hm hm</think>\n\na dog": ("a dog", "stop", len("<think>hm hm hm</think>")),
    "<think>hm</think>": ("", "stop", len("<think>hm</think>")),
    "two cats": ("two cats", "stop", 0),
    "<think>hm</think>\n\nthree-": ("three", "length", len("<think>hm</think>")),
    "<think>hm-": ("", "thoughts", len("<think>hm")),
    "<think>hm": ("", "thoughts", len("<think>hm")),
    "<think>hm</think>\n-": ("", "thoughts", len("<think>hm</think>")),
    "hm</think>four": ("four", "stop", len("hm</think>")),
}


@pytest.mark.parametrize("form", ["checkpoint", "export", "asked for"])
def test_of_a_student_that_hides_its_thoughts_the_answers_are_looked_at(
    form: str, tmp_path: Path, tiny_config: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from run_folders import save_part, write_run
    from transformers import AutoModelForCausalLM

    from gad_verl.tools.export.weights import export_part

    source = thinking_model(tmp_path / "source")
    tiny_config.gad.thinking.mode = "none" if form == "asked for" else "hidden"
    student = write_run(tmp_path / "run", tiny_config, 3)
    save_part(student / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    if form == "export":
        student = export_part(student, "student", tmp_path / "exported")
    monkeypatch.setattr(generation, "_open_engine", scripted_engine(list(HIDDEN)))
    output = tmp_path / "out"
    command = ["evaluate", "--model", str(student), "--data", str(data), "--output", str(output), *SHORT]
    command += ["--thinking", "hidden"] if form == "asked for" else []
    assert cli.main(command) == 0
    responses = sorted(read_responses(output / "responses.jsonl"), key=lambda response: response.prompt)
    assert [(one.text, one.finish_reason, one.thought_tokens) for one in responses] == list(HIDDEN.values())
    assert all(one.token_ids is not None and len(one.token_ids) == one.response_tokens for one in responses)
    evaluation = read_evaluation(output)
    assert evaluation.plain["unclosed"] == pytest.approx(3 / 8)
    assert evaluation.plain["thought_tokens"] == pytest.approx(np.mean([one[2] for one in HIDDEN.values()]))
    assert "never came to an answer | 0.38" in (output / "report.md").read_text()
    # Whole responses are another evaluation.
    assert cli.main([*command, "--thinking", "none"]) == 2


def test_an_open_teacher_has_no_thoughts_to_go_by(
    run: Callable[..., int], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--thinking", "hidden", "--teacher-model", str(model)) == 2
    assert "--thinking none" in capsys.readouterr().err
