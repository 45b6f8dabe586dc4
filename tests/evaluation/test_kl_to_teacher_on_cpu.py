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
"""Both KL divergences to an open teacher, on tiny random models: against a plain computation, sampled, interrupted."""

import gc
import json
import shutil
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_model import build_model, build_other_model, build_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from gad_verl import cli
from gad_verl.core import intervals
from gad_verl.tools.evaluation import divergence, run, scoring
from gad_verl.tools.evaluation.comparison import compare
from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.evaluation.results import Evaluation, read_evaluation
from gad_verl.tools.evaluation.rows import Row, load_rows
from gad_verl.tools.evaluation.scores import EXACT, KL_FIGURES, PER_TEXT, Score, read_scores

PROMPTS, LIMIT = 6, 10
SAMPLED = ["--engine", "hf", "--max-response-length", str(LIMIT), "--two-sample-splits", "1", "--temperature", "0.8"]
EVERYTHING = [*SAMPLED, "--samples", "3"]
TEACHER_TEMPERATURE = 0.6
CONTEXT = "Answer in one word."


def sharpened(folder: Path, factor: float = 6.0) -> Path:
    """A random model whose distributions are far from uniform, and that ends an answer now and then."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data *= factor
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``student``, ``second`` (another student), ``teacher`` (a wider padded vocabulary), ``other`` (other tokens),
    ``val.parquet``, ``context.txt``."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed, width in (("student", 0, 259), ("second", 1, 259), ("teacher", 2, 300)):
        sharpened(build_model(folder / name, seed=seed, hidden=32, layers=1, vocab_size=width))
    sharpened(build_other_model(folder / "other"))
    rows = build_rows(PROMPTS, seed=2)
    rows[1]["teacher_response"] = "a text that is longer than the limit"
    pd.DataFrame(rows).to_parquet(folder / "val.parquet")
    (folder / "context.txt").write_text(CONTEXT + "\n")
    return folder


def teacher_options(models: Path, name: str = "teacher") -> list[str]:
    context = ["--teacher-context", str(models / "context.txt")]
    return ["--teacher-model", str(models / name), *context, "--teacher-temperature", str(TEACHER_TEMPERATURE)]


@pytest.fixture
def command(models: Path, tmp_path: Path) -> Callable[..., int]:
    def evaluated(*more: str, output: str = "out", student: str = "student") -> int:
        paths = ["--model", str(models / student), "--data", str(models / "val.parquet")]
        return cli.main(["evaluate", *paths, "--output", str(tmp_path / output), *more])

    return evaluated


@pytest.fixture(scope="module")
def measured(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole evaluation of ``student``, with the exact divergences."""
    folder = tmp_path_factory.mktemp("measured") / "student"
    paths = ["--model", str(models / "student"), "--data", str(models / "val.parquet"), "--output", str(folder)]
    assert cli.main(["evaluate", *paths, *EVERYTHING, *teacher_options(models)]) == 0
    return folder


class Plain:
    """A model, read in the plainest way: the whole sequence, the whole vocabulary, double precision."""

    def __init__(self, folder: Path, temperature: float, context: str | None = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.temperature, self.context = temperature, context

    def log_probabilities(self, row: Row, answer: list[int]) -> torch.Tensor:
        head = [{"role": "system", "content": self.context}] if self.context else []
        text = self.tokenizer.apply_chat_template([*head, *row.messages], add_generation_prompt=True, tokenize=False)
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        return (logits[:, : len(self.tokenizer)] / self.temperature).log_softmax(-1)

    def log_p(self, row: Row, answer: list[int]) -> float:
        return self.log_probabilities(row, answer)[range(len(answer)), answer].sum().item()

    def encode(self, text: str, finished: bool) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids + [self.tokenizer.eos_token_id] * finished


def by_key(folder: Path) -> dict[tuple[str, int, int], Score]:
    return {score.key: score for score in read_scores(folder / "divergence.jsonl")}


def test_each_text_has_the_plain_sum_over_its_tokens(models: Path, measured: Path) -> None:
    rows = load_rows(models / "val.parquet")
    student = Plain(models / "student", 0.8)
    teacher = Plain(models / "teacher", TEACHER_TEMPERATURE, CONTEXT)
    answers = {("student", *r.key): r.token_ids for r in read_responses(measured / "responses.jsonl")}
    for number, row in enumerate(rows):
        answers["teacher", number, 0] = student.encode(row.teacher, True)[:LIMIT]
    scores = by_key(measured)
    assert set(scores) == set(answers) and len(scores) == PROMPTS * 4
    for (author, prompt, _), ids in answers.items():
        score = scores[author, prompt, _]
        log_s, log_t = (reader.log_probabilities(rows[prompt], ids) for reader in (student, teacher))
        log_p, log_q = (log_s, log_t) if author == "student" else (log_t, log_s)
        assert score.kl == pytest.approx((log_p.exp() * (log_p - log_q)).sum().item(), rel=1e-4)
        assert score.student_log_p == pytest.approx(student.log_p(rows[prompt], ids), rel=1e-4)
        assert score.teacher_log_p == pytest.approx(teacher.log_p(rows[prompt], ids), rel=1e-4)
        assert score.tokens == len(ids) and score.finished == (ids[-1] == student.tokenizer.eos_token_id)
    # Of both kinds there is one, so that the end-of-text token has been tested.
    assert {score.finished for score in scores.values()} == {True, False}


def test_figures_are_means_over_the_samples_of_a_prompt(measured: Path, models: Path) -> None:
    evaluation, scores = read_evaluation(measured), by_key(measured)
    samples = [[scores["student", number, sample].kl for sample in range(3)] for number in range(PROMPTS)]
    texts = [scores["teacher", number, 0].kl for number in range(PROMPTS)]
    assert evaluation.columns["kl_student_teacher"] == pytest.approx(np.mean(samples, axis=1))
    assert evaluation.columns["kl_teacher_student"] == pytest.approx(texts)
    # Six prompts, not eighteen texts.
    assert evaluation.figures["kl_student_teacher"] == intervals.mean(np.mean(samples, axis=1))
    assert not set(PER_TEXT.values()) & set(evaluation.figures)
    about = evaluation.teacher
    assert about["exact"] and about["temperature"] == TEACHER_TEMPERATURE and about["context"]
    assert (about["student_texts"], about["teacher_texts"], about["teacher_cut"]) == (18, 6, 6 - _finished(scores))
    assert about["student_left_out"] == about["teacher_left_out"] == 0
    report = (measured / "report.md").read_text()
    assert "| KL(student, teacher), nats an answer |" in report and "exact at each token" in report
    assert str(models) not in report.partition("\n")[2].replace(str(models / "val.parquet"), "")


def _finished(scores: dict[tuple[str, int, int], Score]) -> int:
    return sum(score.finished for score in scores.values() if score.author == "teacher")


def test_sampled_log_ratios_have_the_mean_of_the_exact_sums(command: Callable[..., int], tmp_path: Path, models: Path):
    """E_S[log p_S - log p_T] = E_S[sum of KL], and the second has less noise."""
    more = ["--samples", "60", "--limit", "4", "--batch-size", "60"]
    assert command(*SAMPLED, *more, *teacher_options(models)) == 0
    scores = [score for score in by_key(tmp_path / "out").values() if score.author == "student"]
    ratios, exact = (np.array([getattr(score, name) for score in scores]) for name in ("log_ratio", "kl"))
    assert len(exact) == 240 and 0 < sum(score.finished for score in scores) < 240
    error = (ratios - exact).std(ddof=1) / np.sqrt(len(exact))
    assert abs((ratios - exact).mean()) < 3.5 * error
    assert exact.std() < 0.5 * ratios.std() and exact.mean() > 10 * error


def test_whatever_ends_an_answer_is_one_end(command: Callable[..., int], tmp_path: Path, models: Path) -> None:
    """The teacher has a second end-of-text token: an answer is over there, and which of them it is does not count."""
    folder = shutil.copytree(models / "teacher", tmp_path / "two_ends")
    eos = AutoTokenizer.from_pretrained(folder).eos_token_id
    config = json.loads((folder / "generation_config.json").read_text())
    second = 40
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [eos, second]}))
    own = ["--teacher-model", str(folder), "--samples", "12"]
    assert command(*SAMPLED, *own) == 0
    rows, readers = load_rows(models / "val.parquet"), [Plain(models / "student", 0.8), Plain(folder, 1.0)]
    scores, cut = by_key(tmp_path / "out"), 0
    for response in read_responses(tmp_path / "out" / "responses.jsonl"):
        ends = [place for place, token in enumerate(response.token_ids) if token in (eos, second)]
        ids = response.token_ids[: ends[0] + 1] if ends else response.token_ids
        cut += len(ids) < len(response.token_ids)
        both = [reader.log_probabilities(rows[response.prompt], ids) for reader in readers]
        for log_p in both:
            log_p[:, eos] = torch.logaddexp(log_p[:, eos], log_p[:, second])
        others = [log_p[:, [token for token in range(259) if token != second]] for log_p in both]
        expected = (others[0].exp() * (others[0] - others[1])).sum().item()
        score = scores["student", *response.key]
        assert score.kl == pytest.approx(expected, rel=1e-4) and score.finished == bool(ends)
        ids = [*ids[:-1], eos] if ends else ids
        assert score.student_log_p == pytest.approx(both[0][range(len(ids)), ids].sum().item(), rel=1e-4)
    assert cut


def test_a_student_that_is_the_teacher_is_at_zero(command: Callable[..., int], tmp_path: Path, models: Path) -> None:
    own = ["--teacher-model", str(models / "student"), "--teacher-temperature", "0.8"]
    assert command(*EVERYTHING, *own) == 0
    evaluation = read_evaluation(tmp_path / "out")
    for name in EXACT.values():
        assert evaluation.figures[name].value == pytest.approx(0, abs=1e-5) and evaluation.teacher["context"] is None
    assert evaluation.figures["kl_student_teacher"].value == 0


def test_another_vocabulary_is_an_estimate_by_whole_texts(
    command: Callable[..., int], tmp_path: Path, models: Path
) -> None:
    assert command(*EVERYTHING, *teacher_options(models, "other")) == 0
    evaluation, rows = read_evaluation(tmp_path / "out"), load_rows(models / "val.parquet")
    assert set(PER_TEXT.values()) <= set(evaluation.figures) and not set(EXACT.values()) & set(evaluation.columns)
    student, teacher = Plain(models / "student", 0.8), Plain(models / "other", TEACHER_TEMPERATURE, CONTEXT)
    scores, ratios = by_key(tmp_path / "out"), {}
    for response in read_responses(tmp_path / "out" / "responses.jsonl"):
        row, text = rows[response.prompt], response.text
        # Half of a character at the limit is no text.
        text = text if response.finished else text.rstrip("\ufffd")
        both = [reader.log_p(row, reader.encode(text, response.finished)) for reader in (student, teacher)]
        score = scores["student", *response.key]
        assert score.kl is None
        assert [score.student_log_p, score.teacher_log_p] == pytest.approx(both, rel=1e-4)
        ratios.setdefault(response.prompt, []).append(both[0] - both[1])
    means = [np.mean(ratios[number]) for number in range(PROMPTS)]
    assert evaluation.columns["kl_student_teacher_per_text"] == pytest.approx(means, rel=1e-4)
    # The teacher's own text, whole in its own tokens; the student reads its bytes.
    row = rows[0]
    both = [
        reader.log_p(row, reader.encode(row.teacher[:LIMIT], len(row.teacher) < LIMIT)) for reader in (teacher, student)
    ]
    assert evaluation.columns["kl_teacher_student_per_text"][0] == pytest.approx(both[0] - both[1], rel=1e-4)
    assert "per-text estimate" in (tmp_path / "out" / "report.md").read_text()


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models in the order in which they are loaded; never two at once."""
    names: list[str] = []
    alive: list[weakref.ref] = []
    stock = run.load_model

    def watched(folder: Path, *arguments: Any) -> Any:
        gc.collect()
        assert not [model for model in alive if model() is not None]
        model = stock(folder, *arguments)
        names.append(folder.name)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(run, "load_model", watched)
    return names


@pytest.mark.parametrize("kind", ["teacher", "other"])
def test_batches_change_nothing_and_models_take_turns(
    command: Callable[..., int], tmp_path: Path, models: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [*EVERYTHING, "--limit", "3", *teacher_options(models, kind)]
    names = loads(monkeypatch)
    assert command(*few, output="whole") == 0
    assert names == ["student", kind]
    names.clear()
    monkeypatch.setattr(divergence, "_TEXTS", 3)
    cuts, stock = [], divergence.batches
    monkeypatch.setattr(divergence, "batches", lambda *arguments: cuts.append(stock(*arguments)) or cuts[-1])
    # 259 columns of 4 bytes: 30 tokens, three texts of ten.
    assert command(*few, "--teacher-scratch", str(30 * 259 * 4 / 2**30)) == 0
    # The model that has read a batch last reads the next one first.
    assert len(cuts[0]) >= 4 and names == (["student", kind] * 4)[: len(cuts[0]) + 1]
    assert by_key(tmp_path / "out") == by_key(tmp_path / "whole")
    # No logits stay behind.
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("out", "whole")]
    assert files[0] == files[1] and {"divergence.jsonl", "teacher.json"} < files[0]


def test_pieces_of_an_answer_are_the_answer(
    measured: Path, command: Callable[..., int], tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few tokens at a time, and by a model that cannot leave out the logits of the prompt."""
    stock = scoring.LoadedModel.pieces

    def short(self: scoring.LoadedModel, text: Any) -> Any:
        assert self._keeps
        self._keeps = False
        yield from stock(self, text, 3)
        self._keeps = True

    monkeypatch.setattr(scoring.LoadedModel, "pieces", short)
    assert command(*EVERYTHING, *teacher_options(models)) == 0
    for key, score in by_key(tmp_path / "out").items():
        other = by_key(measured)[key]
        assert (score.kl, score.teacher_log_p) == pytest.approx((other.kl, other.teacher_log_p), rel=1e-5)


def test_an_interruption_costs_what_was_not_written(
    measured: Path, command: Callable[..., int], tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_key(measured)
    shutil.copytree(measured, tmp_path / "out")
    file = tmp_path / "out" / "divergence.jsonl"
    file.unlink()
    stock, read = divergence._score, []

    def interrupted(*arguments: Any) -> Score:
        if len(read) == 9:
            raise KeyboardInterrupt
        read.append(score := stock(*arguments))
        return score

    monkeypatch.setattr(divergence, "_score", interrupted)
    assert command(*EVERYTHING, *teacher_options(models)) == 130
    assert len(read_scores(file)) == 9
    file.write_bytes(file.read_bytes() + b'{"author": "stud')
    # Both models take part in what is left, and in nothing else.
    seen: Counter[tuple[str, int, int]] = Counter()
    pieces = scoring.LoadedModel.pieces

    def counted(self: Any, text: Any) -> Any:
        seen[text.key] += 1
        return pieces(self, text)

    monkeypatch.setattr(scoring.LoadedModel, "pieces", counted)
    monkeypatch.setattr(divergence, "_score", stock)
    assert command(*EVERYTHING, *teacher_options(models)) == 0
    assert set(seen) == set(whole) - {score.key for score in read} and set(seen.values()) == {2}
    assert by_key(tmp_path / "out") == whole
    # All is there: no model is loaded, and without the option the figures stay.
    names = loads(monkeypatch)
    assert command(*EVERYTHING, *teacher_options(models)) == 0
    evaluation = read_evaluation(tmp_path / "out")
    assert command(*EVERYTHING) == 0 and names == []
    again = read_evaluation(tmp_path / "out")
    assert (again.figures, again.columns, again.teacher) == (evaluation.figures, evaluation.columns, evaluation.teacher)


def test_responses_that_were_sampled_again_are_read_again(
    measured: Path, command: Callable[..., int], tmp_path: Path, models: Path
) -> None:
    shutil.copytree(measured, tmp_path / "out")
    (tmp_path / "out" / "responses.jsonl").unlink()
    assert command(*EVERYTHING, "--seed", "5", *teacher_options(models)) == 0
    before, after = by_key(measured), by_key(tmp_path / "out")
    again = read_evaluation(tmp_path / "out").columns["kl_student_teacher"]
    assert again == pytest.approx([np.mean([after["student", n, s].kl for s in range(3)]) for n in range(PROMPTS)])
    assert again != pytest.approx([np.mean([before["student", n, s].kl for s in range(3)]) for n in range(PROMPTS)])


def test_another_teacher_in_the_same_folder_is_refused(
    measured: Path, command: Callable[..., int], tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(measured, tmp_path / "out")
    options = teacher_options(models)
    assert command(*EVERYTHING, *options[:-1], "1.0") == 2
    error = capsys.readouterr().err
    assert "temperature: 0.6 there, 1.0 now" in error and "divergence.jsonl to measure anew" in error
    (tmp_path / "out" / "divergence.jsonl").unlink()
    # With another vocabulary no figure of the teacher before is left.
    assert command(*EVERYTHING, *teacher_options(models, "other")) == 0
    assert not set(EXACT.values()) & set(read_evaluation(tmp_path / "out").figures)


def test_what_a_model_cannot_write_is_left_out_and_counted(
    command: Callable[..., int], tmp_path: Path, models: Path
) -> None:
    """A student that pads its vocabulary may sample, untrained as it is, what is no token."""
    build_model(models / "wide", hidden=32, layers=1, vocab_size=300)
    assert command(*EVERYTHING, *teacher_options(models), student="wide") == 0
    evaluation, scores = read_evaluation(tmp_path / "out"), by_key(tmp_path / "out")
    responses = read_responses(tmp_path / "out" / "responses.jsonl")
    beyond = {("student", *response.key) for response in responses if max(response.token_ids) >= 259}
    assert beyond and {key for key, score in scores.items() if score.kl is None} == beyond
    assert evaluation.teacher["student_left_out"] == len(beyond)
    assert (
        f"{len(beyond)} texts with tokens that a model does not have are left out"
        in (tmp_path / "out" / "report.md").read_text()
    )


def test_a_divergence_without_bounds_is_an_error(
    command: Callable[..., int], models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(models / "teacher", tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.lm_head.weight.data[5] = float("nan")
    model.save_pretrained(broken)
    assert command(*EVERYTHING, "--teacher-model", str(broken)) == 2
    assert "the divergence is not finite" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_space_is_said_before_it_is_used(
    command: Callable[..., int], models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(scoring.shutil, "disk_usage", lambda folder: usage)
    assert command(*EVERYTHING, *teacher_options(models)) == 2
    assert "lower --teacher-scratch" in capsys.readouterr().err


def test_a_checkpoint_of_verl_is_exported_once(
    measured: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = tmp_path / "global_step_3" / "actor"
    shutil.copytree(models / "student", actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    state = AutoModelForCausalLM.from_pretrained(models / "student").state_dict()
    torch.save(state, actor / "model_world_size_1_rank_0.pt")
    from gad_verl.tools.evaluation import generation

    exports, stock = [], generation.export_part

    def export_part(*arguments: Any, **options: Any) -> Any:
        exports.append(1)
        return stock(*arguments, **options)

    monkeypatch.setattr(generation, "export_part", export_part)
    paths = ["--model", str(actor.parent), "--data", str(models / "val.parquet"), "--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *paths, *EVERYTHING, *teacher_options(models)]) == 0
    assert len(exports) == 1 and not list((tmp_path / "out").glob(".exported*"))
    assert read_evaluation(tmp_path / "out").columns["kl_student_teacher"] == pytest.approx(
        read_evaluation(measured).columns["kl_student_teacher"], rel=1e-5
    )


@pytest.fixture(scope="module")
def second(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "second"
    paths = ["--model", str(models / "second"), "--data", str(models / "val.parquet"), "--output", str(folder)]
    assert cli.main(["evaluate", *paths, *EVERYTHING, *teacher_options(models)]) == 0
    return folder


def test_compare_pairs_the_prompts(measured: Path, second: Path) -> None:
    comparison = compare([measured, second])
    evaluations: list[Evaluation] = [read_evaluation(folder) for folder in (measured, second)]
    for name in EXACT.values():
        one, other = (evaluation.columns[name] for evaluation in evaluations)
        assert comparison.differences["second"][name] == intervals.difference(one, other)
        assert comparison.figures["student"][name] == evaluations[0].figures[name]
    assert not any("different teachers" in note for note in comparison.notes)


def test_compare_says_what_teachers_differ_in(
    measured: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(second, tmp_path / "other")
    results = json.loads((other / "results.json").read_text())
    results["teacher"] |= {"temperature": 1.0, "context": None}
    (other / "results.json").write_text(json.dumps(results))
    assert cli.main(["compare", str(measured), str(other)]) == 0
    table = capsys.readouterr().out
    assert "KL(S, T)" in table and "KL(T, S)" in table and "per text" not in table
    assert "The KLs are to different teachers, the temperature differs: student 0.6, other 1.0." in table
    assert "the context differs" in table and "the weights differs" not in table
    # Of another vocabulary: estimates are never set against exact figures.
    plain = replace(read_evaluation(second), teacher=None)
    assert set(KL_FIGURES) & set(plain.columns) == set(EXACT.values())
