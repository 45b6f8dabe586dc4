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
"""The study of a real teacher: the requests, the divergences, texts that are sampled once, interruptions, tables."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_lab
import lm_language
import numpy as np
import pytest
import teacher_lab
import teacher_language
import teacher_model
import torch
from language import TRUST
from lm_lab import Loop, Paused, Sizes
from lm_language import SEQKD_RATES, Choice
from lm_model import answer_logits, pack, read_prefix, sample
from lm_training import start
from objective_language import GAD, HOLD, NEW, PARTS, RIVALS, SEQKD, TUNED, seqkd_at
from prompts import load_subjects
from study_common import Rows
from teacher_lab import SIZES, TeacherLab, make_splits, teacher_texts
from teacher_language import ARMS, CHOSEN, COLDER, COOLED, DEFAULT, DEFAULTS, FIRST_SEED, rates_of, run
from teacher_model import Ended, Teacher, divergences
from tiny_model import build_model, build_other_model
from token_rows import token_log_probs
from transformers import AutoTokenizer

from gad_verl.core.trust import is_held_out

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Sizes(
    train=48,
    validation=8,
    test=9,
    start=4,
    every=2,
    passes=1,
    batch=8,
    n=2,
    steps=2,
    equal_time=4,
    checkpoints=1,
    limit=6,
)
CONTEXT = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Hm?"})
CONTEXT += ({"role": "assistant", "content": "Ja."},)
SEED = FIRST_SEED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a head that is far from uniform, so that divergences are not small."""
    from transformers import AutoModelForCausalLM

    folder = build_model(tmp_path_factory.mktemp("student") / "model", layers=1)
    module = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        module.get_output_embeddings().weight *= 5
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of the same vocabulary: it has no chat template."""
    folder = build_model(tmp_path_factory.mktemp("plain") / "base", seed=3, layers=1)
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_other_model(tmp_path_factory.mktemp("other") / "model")


def lab_of(student: Path, work: Path, teacher: Path | None = None, **more: Any) -> TeacherLab:
    start.cache_clear()
    return TeacherLab(student, teacher, "tiny", work, TINY, torch.float32, **{"context": CONTEXT, **more})


@pytest.fixture
def lab(model: Path, tmp_path: Path) -> TeacherLab:
    return lab_of(model, tmp_path / "work")


# ---- who is asked what


def test_no_subject_stands_in_two_splits_and_no_request_twice():
    splits = make_splits(SIZES.train, SIZES.validation, SIZES.test)
    parts = splits.train, splits.validation, splits.test
    assert [len(part) for part in parts] == [400, 40, 150]
    for one, another in itertools.combinations(parts, 2):
        assert not {row.subject for row in one} & {row.subject for row in another}
    asked = [row.text for part in parts for row in part]
    assert len(set(asked)) == len(asked)
    known = {text: f"{subject.kind}: {subject.name}" for subject in load_subjects() for text in subject.texts}
    assert all(known[row.text] == row.subject for part in parts for row in part)
    counts = Counter(row.subject.split(":")[0] for row in splits.test)
    assert len(counts) == 8 and max(counts.values()) - min(counts.values()) <= 1
    # Every wording of every kind is asked in the test.
    wordings = {(s.kind, text.replace(s.name, "")) for s in load_subjects() for text in s.texts}
    tested = {row.subject: row.text for row in splits.test}
    found = {
        (s.kind, tested[key].replace(s.name, "")) for s in load_subjects() if (key := f"{s.kind}: {s.name}") in tested
    }
    assert found == wordings
    assert make_splits(SIZES.train, SIZES.validation, SIZES.test) == splits


def test_more_requests_than_there_are_are_refused():
    subjects = len(load_subjects()) - 190
    assert len(make_splits(3 * subjects, 40, 150).train) == 3 * subjects
    with pytest.raises(ValueError, match="there are 630"):
        make_splits(3 * subjects + 1, 40, 150)


# ---- reading behind a prefix


def test_behind_a_prefix_everything_is_as_in_the_whole_prompt(lab: TeacherLab):
    module = lab.student().module
    prefix, prompts = [5, 9, 200, 31], [[7, 8], [9], [1, 2, 3]]
    whole, known = [prefix + prompt for prompt in prompts], read_prefix(module, prefix)
    for dice in (lambda: None, lambda: torch.Generator().manual_seed(4)):
        answers = sample(module, prompts, 2, 5, lab.end, dice(), known)
        assert answers == sample(module, whole, 2, 5, lab.end, dice())
    packed, other = pack(prompts, answers, lab.end), pack(whole, answers, lab.end)
    torch.testing.assert_close(answer_logits(module, packed, known), answer_logits(module, other), atol=1e-4, rtol=1e-4)
    assert known.get_seq_length() == len(prefix)


# ---- divergences

WIDTH, END, LONGEST = 5, 4, 3


def all_answers() -> list[list[int]]:
    """Of tokens 0 to 3, at most three, with an end where there is room for it."""
    made = []
    for length in range(LONGEST + 1):
        for tokens in itertools.product(range(END), repeat=length):
            made.append([*tokens, END] if length < LONGEST else list(tokens))
    return made


def text_log_prob(module: Any, prompt: list[int], answer: list[int]) -> float:
    """Token by token, without packing and without a cache."""
    total = 0.0
    for place, token in enumerate(answer):
        logits = module(input_ids=torch.tensor([[*prompt, *answer[:place]]])).logits[0, -1, :WIDTH]
        total += logits.log_softmax(-1)[token].item()
    return total


@torch.no_grad()
def test_the_expected_divergence_is_that_of_all_answers(model: Path, tmp_path: Path):
    """Over all answers: the sum of the tokens' divergences has the mean that log P - log Q of the answers has."""
    lab = lab_of(model, tmp_path / "work")
    student, teacher = lab.student().module, lab.student().module
    for weight in teacher.parameters():
        weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    prompt, prefix, tail, answers = [3, 1], [100, 7, 30], [2, 0], all_answers()
    log_s = np.array([text_log_prob(student, prompt, answer) for answer in answers])
    log_t = np.array([text_log_prob(teacher, prefix + tail, answer) for answer in answers])
    assert np.exp(log_s).sum() == pytest.approx(1.0, abs=1e-4)
    wrapped = SimpleNamespace(exact=True, model=Ended(teacher, [END], WIDTH), end=END, prefix=None)
    wrapped.prefix = read_prefix(wrapped.model, prefix)
    count = len(answers)
    rows = [[answer] for answer in answers]
    found = divergences(
        wrapped,
        Ended(student, [END], WIDTH),
        SimpleNamespace(eos_token_id=END),
        ([prompt] * count, [tail] * count),
        (rows, rows),
        batch=30,
    )
    forward, backward = (np.exp(log_s) * (log_s - log_t)).sum(), (np.exp(log_t) * (log_t - log_s)).sum()
    assert forward > 0.05 and backward > 0.05
    assert (np.exp(log_s) * found[0]).sum() == pytest.approx(forward, rel=1e-3)
    assert (np.exp(log_t) * found[1]).sum() == pytest.approx(backward, rel=1e-3)


def test_ends_are_one_token_and_what_pads_the_vocabulary_is_none(lab: TeacherLab):
    module = lab.student().module
    hidden = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    stock = module.get_output_embeddings()(hidden)[:, :250].softmax(-1)
    found = Ended(module, [9, 3], 250).get_output_embeddings()(hidden).softmax(-1)
    torch.testing.assert_close(found[:, 9], stock[:, 9] + stock[:, 3])
    assert found.shape == (4, 250) and (found[:, 3] == 0).all()
    torch.testing.assert_close(found[:, 10:], stock[:, 10:])
    # What ends an answer is sampled at the temperature first, and is one then.
    cooler = Ended(module, [9, 3], 250, 0.5).get_output_embeddings()(hidden).softmax(-1)
    expected = stock**2 / (stock**2).sum(-1, keepdim=True)
    torch.testing.assert_close(cooler[:, 9], expected[:, 9] + expected[:, 3])
    torch.testing.assert_close(cooler[:, 10:], expected[:, 10:])


def test_tuned_seqkd_is_judged_cooler_and_at_temperature_1_it_is_the_student_of_its_rate(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lab = lab_of(model, tmp_path / "work")
    tuned = run(lab, seqkd_at(DEFAULT.seqkd), SEED, DEFAULT, DEFAULTS)
    monkeypatch.setattr(teacher_language, "TEMPERATURES", (1.0, 0.2))
    same, cooler = run(lab, COOLED, SEED, DEFAULT, DEFAULTS)["temperatures"]
    assert {key: tuned[key] for key in same if key in tuned} == {key: same[key] for key in same if key in tuned}
    # Sharper than the teacher, whose texts it gives less to.
    assert cooler["kl_teacher_student"] > same["kl_teacher_student"] and cooler["by_prompt"] != same["by_prompt"]
    assert cooler["validation_loss"] == same["validation_loss"]


def test_a_student_that_is_the_teacher_is_at_no_distance_and_a_context_is_one(model: Path, tmp_path: Path):
    same = lab_of(model, tmp_path / "same", context=())
    row = same.judge(same.student().module, same.corpus(SEED))
    assert row["exact"] and row["kl_student_teacher"] == pytest.approx(0.0, abs=1e-4)
    assert row["kl_teacher_student"] == pytest.approx(0.0, abs=1e-4)
    told = lab_of(model, tmp_path / "told")
    row = told.judge(told.student().module, told.corpus(SEED))
    assert min(row["kl_student_teacher"], row["kl_teacher_student"]) > 0.01
    by_prompt = row["by_prompt"]
    assert {len(values) for values in by_prompt.values()} == {TINY.test} and min(by_prompt["kl_student_teacher"]) >= 0
    assert row["length"] == pytest.approx(np.mean(by_prompt["length"]), abs=1e-2) and 1 <= row["length"] <= TINY.limit


def test_another_vocabulary_is_compared_by_texts(model: Path, other: Path, tmp_path: Path):
    """log P(text) - log Q(text), each in its own tokens and with its own end where there is one."""
    lab = lab_of(model, tmp_path / "work", other)
    teacher, student = lab.teacher, lab.student().module
    assert not teacher.exact and teacher.end != AutoTokenizer.from_pretrained(model).get_vocab()["<|im_start|>"]
    questions = [one.text for one in lab.splits.test[:2]]
    own = [[lab.builder.response("a cat").token_ids], [lab.builder.response("the", finished=False).token_ids]]
    texts = [[teacher.reading("blue bird", True)], [teacher.reading("one two", False)]]
    asked = [lab.prompt(text) for text in questions], teacher.prompts(questions)
    found = divergences(teacher, teacher.student(student), lab.builder, asked, (own, texts))
    whole = [teacher.builder.prompt([*CONTEXT, {"role": "user", "content": text}]) for text in questions]

    def log_p(module: Any, prompt: list[int], ids: list[int]) -> float:
        return token_log_probs(module, [prompt], [ids], 1.0)[0].sum().item()

    for number, (text, finished) in enumerate((("a cat", True), ("the", False))):
        expected = log_p(student, asked[0][number], own[number][0])
        expected -= log_p(teacher.model.module, whole[number], teacher.reading(text, finished))
        assert found[0][number] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    for number, (text, finished) in enumerate((("blue bird", True), ("one two", False))):
        expected = log_p(teacher.model.module, whole[number], texts[number][0])
        expected -= log_p(student, asked[0][number], lab.builder.response(text, finished, 99).token_ids)
        assert found[1][number] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert teacher.reading("a", True)[-1] == teacher.end != teacher.reading("a", False)[-1]


def test_a_base_model_is_asked_in_plain_words_and_ends_with_the_line(model: Path, plain: Path, tmp_path: Path):
    lab = lab_of(model, tmp_path / "work", plain)
    teacher, question = lab.teacher, lab.splits.train[0].text
    assert teacher.exact and teacher.end == lab.end
    asked = teacher.builder.decode(teacher.builder.prompt([*CONTEXT, {"role": "user", "content": question}]))
    assert asked.startswith("Be short.") and asked.endswith(f"Be short.\n\nQ: Hm?\nA:\nJa.\n\nQ: {question}\nA:\n")
    newline = lab.builder.text_ids("\n")[0]
    head = teacher.model.get_output_embeddings()
    logits = head(torch.randn(3, 64))
    assert (logits[:, newline] == -math.inf).all() and torch.isfinite(logits[:, teacher.end]).all()
    row = lab.judge(lab.student().module, lab.corpus(SEED))
    assert row["exact"] and 0 < row["kl_student_teacher"] < math.inf and 0 < row["kl_teacher_student"] < math.inf
    assert not any(newline in ids for some in lab.corpus(SEED).test_answers for ids in some)


def test_the_token_that_ends_a_turn_ends_an_answer_though_the_folder_names_another(model: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    tokenizer, module = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    turn_end, tokenizer.eos_token = tokenizer.eos_token_id, "<|endoftext|>"
    module.generation_config.eos_token_id = tokenizer.eos_token_id
    for part in (tokenizer, module):
        part.save_pretrained(tmp_path / "teacher")
    teacher = lab_of(model, tmp_path / "work", tmp_path / "teacher").teacher
    assert tokenizer.eos_token_id != turn_end and set(teacher.model.ends) == {turn_end, tokenizer.eos_token_id}
    assert teacher.exact and teacher.end == turn_end and teacher.student(module).ends == teacher.model.ends


def test_a_model_whose_logits_are_capped_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import Qwen2ForCausalLM

    from gad_verl.errors import GadConfigError

    stock = Qwen2ForCausalLM.forward

    def capped(self: Any, *arguments: Any, **more: Any) -> Any:
        found = stock(self, *arguments, **more)
        found.logits = 0.1 * torch.tanh(found.logits / 0.1)
        return found

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", capped)
    with pytest.raises(GadConfigError, match="output layer"):
        Teacher(model, lab_of(model, tmp_path / "work").builder, CONTEXT, ["Why?", "How?"], 6, torch.float32)
    monkeypatch.setattr(Qwen2ForCausalLM, "forward", stock)
    monkeypatch.setattr(teacher_model, "MAX_CONTEXT", 40)
    with pytest.raises(GadConfigError, match="at most 39"):
        Teacher(model, lab_of(model, tmp_path / "work").builder, CONTEXT, ["Why?", "How?"], 6, torch.float32)


# ---- texts and runs


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop pauses after its next step."""
    stock = Loop.run

    def interrupted(self: Loop, total: int, step: Any, *more: Any) -> None:
        def one(number: int) -> None:
            step(number)
            self.lab.deadline = -math.inf

        stock(self, total, one, *more)

    monkeypatch.setattr(Loop, "run", interrupted)


def test_so_many_subjects_are_held_out_that_d_can_be_trusted() -> None:
    subjects = {one.subject for one in make_splits(SIZES.train, SIZES.validation, SIZES.test).train}
    held_out = [name for name in subjects if is_held_out(name, TeacherLab.held_out_share)]
    assert 1.5 * TRUST.least_prompts <= len(held_out) <= len(subjects) / 2


def test_texts_are_sampled_once_are_those_of_the_teacher_and_go_on(model: Path, tmp_path: Path, monkeypatch):
    lab = lab_of(model, tmp_path / "work")
    found = teacher_texts(lab, SEED)
    assert [len(some) for some in found] == [1] * (TINY.train + TINY.validation) + [2] * TINY.test
    corpus = lab.corpus(SEED)
    assert len(corpus.teachers) == TINY.train and len(corpus.validation) == TINY.validation
    assert all(0 < len(ids) <= TINY.limit for ids in corpus.teachers)
    assert [some for some in corpus.test_answers] == found[-TINY.test :]
    lines = [json.loads(line) for line in (lab.work / str(SEED) / "texts.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines[: TINY.train]] == [one.text for one in lab.splits.train]
    # Requests about one subject are held out from D together.
    by_subject: dict[str, set[bool]] = {}
    for one, held_out in zip(lab.splits.train, corpus.held_out.tolist(), strict=True):
        by_subject.setdefault(one.subject, set()).add(held_out)
    assert all(len(some) == 1 for some in by_subject.values())
    again = lab_of(model, tmp_path / "again")
    interrupt(monkeypatch)
    pauses = 0
    while True:
        try:
            assert teacher_texts(again, SEED) == found
            break
        except Paused:
            again.deadline, pauses = math.inf, pauses + 1
    assert pauses > 2 and teacher_texts(again, SEED + 1 if pauses == 0 else SEED) == found


@pytest.mark.parametrize("arm", [seqkd_at(SEQKD_RATES[0]), NEW])
def test_an_interrupted_run_comes_to_the_same_row(model: Path, tmp_path: Path, arm: str, monkeypatch):
    def figures(lab: TeacherLab) -> Any:
        row = json.loads(json.dumps(run(lab, arm, SEED, DEFAULT, DEFAULTS)))
        row.pop("shared_s", None)
        for part in (row, *row.get("curve", ())):
            part.pop("train_s")
        return row

    whole = figures(lab_of(model, tmp_path / "whole"))
    parts = lab_of(model, tmp_path / "parts")
    interrupt(monkeypatch)
    for _ in range(60):
        try:
            assert figures(parts) == whole
            break
        except Paused:
            parts.deadline = math.inf
            start.cache_clear()
    else:
        pytest.fail("it never came to its end")
    assert not list((parts.work / str(SEED)).glob("*-state.pt"))


def test_the_command_runs_every_arm_goes_on_and_its_tables_are_made(
    model: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        teacher_language, "TeacherLab", lambda *given: TeacherLab(*given[:4], TINY, *given[5:], context=CONTEXT)
    )
    monkeypatch.setattr(teacher_language, "CHOICE_ROWS", tmp_path / "none.jsonl")
    rows, work = tmp_path / "rows.jsonl", tmp_path / "work"
    command = ["--student", str(model), "--float32", "--seeds", "1", "--rows", str(rows), "--work"]
    assert teacher_language.main([*command, str(work), "--budget-s", "-1"]) == 1 and not rows.exists()
    start.cache_clear()
    assert teacher_language.main([*command, str(work)]) == 0
    found = Rows(rows).all()
    assert [(row["arm"], row["seed"]) for row in found] == [(arm, FIRST_SEED) for arm in ARMS]
    for row in found:
        assert row["rates_by"] == DEFAULTS and row["teacher"] == teacher_language.OWN_MODEL
    for point in (point for row in found for point in row.get("temperatures", [row])):
        assert point["exact"] and point["kl_student_teacher"] > 0
        assert len(point["by_prompt"]["kl_teacher_student"]) == TINY.test
    assert "valid_rollouts" not in next(row for row in found if row["arm"] == NEW)
    content = rows.read_bytes()
    assert teacher_language.main([*command, str(work)]) == 0 and rows.read_bytes() == content
    # The texts of one teacher are not those of another.
    another = ["--teacher", str(other)]
    assert teacher_language.main([*command, str(work), *another]) == 2
    assert "name another --work" in capsys.readouterr().err
    assert teacher_language.main([*command, str(work), "--teacher", str(tmp_path)]) == 2
    start.cache_clear()
    assert teacher_language.main([*command, str(tmp_path / "work2"), *another]) == 0
    found = Rows(rows).all()
    assert len(found) == 2 * len(ARMS) and not found[-1]["exact"]
    for part in (found, found[:1], found[:3], found[: len(ARMS) + 2]):
        assert len(teacher_language.tables(part)) == 3
    whole = teacher_language.tables(found)
    assert all(text.count("Teacher: ") == 2 for text in whole)
    assert all(whole[0].count(f"| {arm} |") == 2 for arm in (SEQKD, *RIVALS, *COLDER, *teacher_language.LATER))
    assert set(ARMS) <= {SEQKD, *map(seqkd_at, SEQKD_RATES), COOLED, *teacher_language.LATER}
    assert {NEW, GAD, HOLD, *PARTS} < set(ARMS)
    assert all(whole[1].count(f"| less {rival} |") == 2 for rival in (TUNED, *teacher_language.STOPPED))
    assert "exact for each token" in whole[0] and "estimated by texts" in whole[0] and "defaults" in whole[0]


# ---- rates, SeqKD as a rival, tables


def test_rates_are_those_of_the_other_study_and_stay_those_of_the_first_run(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(teacher_language, "CHOICE_ROWS", tmp_path / "choice.jsonl")
    for folder in ("early", "late"):
        (tmp_path / folder).mkdir()
    assert rates_of(tmp_path / "early") == (DEFAULT, DEFAULTS)
    assert DEFAULT.seqkd in SEQKD_RATES and DEFAULT.gad in lm_language.POLICY_RATES
    chosen = Choice(SEQKD_RATES[0], SEQKD_RATES[1], *lm_language.POLICY_RATES)
    monkeypatch.setattr(teacher_language, "choose", lambda rows: chosen)
    assert rates_of(tmp_path / "late") == (chosen, CHOSEN) == rates_of(tmp_path / "late")
    assert rates_of(tmp_path / "early") == (DEFAULT, DEFAULTS)


def fake_rows(seed: int, shift: float) -> list[dict[str, Any]]:
    def figures(value: float) -> dict[str, Any]:
        named = {column.key: value for column in teacher_language.COLUMNS}
        return {
            **named,
            "validation_loss": value,
            "train_s": 60.0,
            "by_prompt": {name: [value - 1, value + 1] for name in named},
        }

    common = {"teacher": "t", "seed": seed, "rates": vars(DEFAULT), "rates_by": CHOSEN, "steps": 30, "equal_time": 150}
    common |= {"exact": True, "teacher_length": 20.0, "teacher_finished": 0.9}
    rows = [{**common, **figures(30.0), "arm": SEQKD}]
    for rate, values in zip(SEQKD_RATES, ((25.0, 20.0), (24.0, 22.0), (28.0, 27.0)), strict=True):
        points = zip((0, 30, 150), (30.0, *values), strict=True)
        curve = [{**figures(value), "updates": updates} for updates, value in points]
        rows.append({**common, **curve[1], "arm": seqkd_at(rate), "curve": curve})
    return [*rows, {**common, **figures(24.0 + shift), "arm": NEW, "factor": 0.5}]


def test_seqkd_is_stopped_by_the_lowest_divergence_and_differences_are_paired():
    rows = [row for seed, shift in ((540, -2.0), (541, -4.0)) for row in fake_rows(seed, shift)]
    known = teacher_language.with_rivals(rows)
    found = {row["arm"]: row["kl_student_teacher"] for row in known if row["seed"] == 541 and row["arm"] in RIVALS}
    assert found[TUNED] == 24.0 and found[teacher_language.EQUAL_TIME] == 22.0
    assert found["SeqKD, stopped by the oracle"] == 24.0 and found["stopped by the oracle, equal time"] == 20.0
    line = next(one for one in teacher_language.differences_table(known, TUNED, [NEW]).splitlines() if NEW in one)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert all(one.startswith("-3.00 ±") for one in cells[1:3])
    assert all(one.startswith("-3.00 [") for one in cells[3:5])
    assert f"| {NEW} | 21.00 ±" in teacher_language.tables(rows)[0]
    assert "those that `lm_language.py` chose" in teacher_language.tables(rows)[0]


def test_the_other_study_has_the_settings_that_its_work_folders_are_of(model: Path, tmp_path: Path):
    """A run of it in slices goes on only where the file is the same, byte by byte."""
    lm_lab.Lab(model, tmp_path / "work")
    names = "train validation test start every passes batch n steps equal_time checkpoints limit".split()
    values = (640, 96, 240, 120, 20, 3, 16, 4, 50, 400, 4, 24)
    lines = [f'  "{name}": {value},' for name, value in zip(names, values, strict=True)]
    text = "\n".join(["{", *lines, '  "dtype": "torch.bfloat16"', "}", ""])
    assert (tmp_path / "work" / "settings.json").read_text() == text
    assert teacher_lab.SPLIT_SEED == FIRST_SEED
