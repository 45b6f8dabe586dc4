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
"""The study of a real language model with an oracle: the task, packed rows, every arm, interruptions, tables."""

import dataclasses
import datetime
import math
import random
import re
from pathlib import Path
from typing import Any

import lm_lab
import lm_language
import lm_task
import lm_training
import numpy as np
import pytest
import torch
from gad_in_one_file import Example, Gad, Group, Settings
from lm_lab import Corpus, Lab, Paused, Sizes, exact_figures
from lm_language import CHOICE_ARMS, SEQKD_RATES, Choice, at, choose, reported_arms, rival_rows, run, runs_of
from lm_model import Learner, draw, log_probs, pack, sample, scores
from lm_task import KINDS, SHARES, make_splits
from lm_training import adversarial, seqkd_goes_on, start, student_loss, warm_opponent
from objective_language import ARMS, GAD, HOLD, NEW, RIVALS, SEQKD, TUNED, seqkd_at
from objective_training import KL_COEF
from study_common import Rows, run_all
from tiny_model import build_model
from token_rows import sample_responses, sequence_scores, token_log_probs

from gad_verl.core.trust import TrustOptions
from gad_verl.data.tokens import EncodedResponse

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Sizes(
    train=48,
    validation=8,
    test=8,
    start=6,
    every=3,
    passes=2,
    batch=8,
    n=2,
    steps=4,
    equal_time=6,
    checkpoints=1,
    limit=16,  # cuts most answers of a tokenizer of bytes, which makes no difference here
)
SEED = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("lm") / "model", layers=1)


@pytest.fixture
def lab(model: Path, tmp_path: Path) -> Lab:
    start.cache_clear()
    return Lab(model, tmp_path / "work", TINY, torch.float32)


@pytest.fixture
def whole(lab: Lab) -> Lab:
    """With room for whole answers."""
    return Lab(lab.folder, lab.work / "whole", dataclasses.replace(TINY, limit=48), torch.float32)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([master.flatten() for master in learner.masters()])


def last_student(lab: Lab, arm: str, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The weights that are judged at the end of an arm."""
    kept: list[torch.Tensor] = []
    stock = Lab.judge

    def judged(self: Lab, student: Any, corpus: Corpus) -> dict[str, Any]:
        kept.append(torch.cat([weight.detach().flatten() for weight in student.parameters()]))
        return stock(self, student, corpus)

    with monkeypatch.context() as patch:
        patch.setattr(Lab, "judge", judged)
        adversarial(lab, ARMS[arm], arm, 1e-3, 1e-2, SEED)
    return kept[-1]


# ---- the task


def right(kind: str, prompt: str) -> set[str]:
    """The valid answers, made from the prompt in another way than the task makes them."""
    numbers = [int(part) for part in re.findall(r"\d+", prompt)]
    words = re.findall(r"[A-Za-z]+", prompt)
    if kind == "clock":
        moment = datetime.datetime(2000, 1, 1, *numbers)
        later = moment + datetime.timedelta(hours=1)
        part = ["at night", "in the morning", "in the afternoon", "in the evening"][moment.hour // 6]

        def hour(one: datetime.datetime) -> str:
            return one.strftime("%I").lstrip("0")

        past = moment.minute <= 30
        spoken = f"{moment.minute} past {hour(moment)}" if past else f"{60 - moment.minute} to {hour(later)}"
        after = (moment - datetime.datetime(2000, 1, 1)).seconds // 60
        return {
            f"{hour(moment)}:{moment:%M} {moment:%p}".lower(),
            f"{spoken} {part}",
            f"{after} minutes after midnight",
        }
    if kind == "date":
        day = datetime.date(*numbers)
        return {f"{day.day} {day:%B %Y}", f"{day:%B} {day.day}, {day.year}", f"{day:%A}, {day.day} {day:%B %Y}"}
    if kind == "sort":
        a, b, c = sorted(words[1:])
        return {f"{a}, {b}, {c}", f"{a} < {b} < {c}", f"From the end: {c}, {b}, {a}"}
    if kind == "person":
        name, city = words[2], words[-1]
        return {city, f"{name} lives in {city}.", f'{{"city": "{city}", "born": {2020 - numbers[0]}}}'}
    if kind == "digits":
        back = "".join(reversed(str(numbers[0])))
        return {back, " ".join(back), f"{numbers[0]} + {back} = {numbers[0] + int(back)}"}
    if kind == "letters":
        first, second = words[1:]
        low = "-".join(first) + " " + "-".join(second)
        return {low, low.upper(), "".join(reversed(f"{first} {second}"))}
    if kind == "money":
        cents = 100 * numbers[0] + numbers[1]
        left = 10000 - cents
        return {
            f"{numbers[0]} dollars and {numbers[1]} cents",
            f"{cents} cents",
            f"${left // 100}.{left % 100:02} less than $100",
        }
    assert kind == "sum"
    a, b = numbers
    return {f"{a + b}", f"{a} + {b} = {a + b}", f"{a} * 2 + {b} = {2 * a + b}"}


def test_the_oracle_knows_the_right_answers_and_no_others():
    splits = make_splits(1600, 80, 80, seed=3)
    for row in [*splits.train, *splits.validation, *splits.test]:
        assert set(row.valid) == right(row.kind, row.prompt) and len(set(row.valid)) == 3
        assert row.judge(row.teacher) == row.phrasing
        assert [row.judge(text) for text in row.valid] == [0, 1, 2]
        assert row.judge(row.teacher + " ") is None and row.judge(row.teacher[:-1]) is None and row.judge("") is None
    assert {row.kind for row in splits.test} == set(KINDS)
    found = np.bincount([row.phrasing for row in splits.train], minlength=3) / 1600
    assert np.abs(found - SHARES).max() < 4 * math.sqrt(0.25 / 1600)


@pytest.mark.parametrize("seed", [1, 520, 531])
def test_no_prompt_stands_twice_or_in_two_splits_and_a_seed_is_the_same_again(seed: int):
    splits = make_splits(640, 96, 240, seed)
    prompts = [row.prompt for part in (splits.train, splits.validation, splits.test) for row in part]
    assert len(set(prompts)) == len(prompts) == 640 + 96 + 240
    assert make_splits(640, 96, 240, seed) == splits != make_splits(640, 96, 240, seed + 1)


# ---- packed rows


def some_rows(lab: Lab, answers: int = 3) -> tuple[list[list[int]], list[list[list[int]]]]:
    random_ = random.Random(1)
    corpus = Corpus(lab, SEED)
    prompts = corpus.prompts[:5]
    texts = [
        [[random_.randrange(200) for _ in range(random_.randrange(1, 9))] for _ in range(answers)] for _ in prompts
    ]
    return prompts, texts


def test_packed_rows_have_the_log_probabilities_and_scores_of_single_rows(lab: Lab):
    student, discriminator = lab.student().module, lab.discriminator(3).module
    prompts, texts = some_rows(lab)
    packed = pack(prompts, texts, lab.end)
    flat = [(prompt, text) for prompt, some in zip(prompts, texts, strict=True) for text in some]
    alone, _, row = token_log_probs(student, *map(list, zip(*flat, strict=True)), temperature=1.0)
    found = log_probs(student, packed)
    assert torch.equal(packed.owner, row)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    assert packed.per_answer(found).flatten()[4].item() == pytest.approx(alone[row == 4].sum().item(), rel=1e-5)
    torch.testing.assert_close(
        scores(discriminator, packed).flatten(),
        sequence_scores(discriminator, [prompt + text for prompt, text in flat]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_greedy_answers_are_those_without_a_cache_and_sampled_ones_end_or_are_long(lab: Lab):
    student, prompts = lab.student().module, Corpus(lab, SEED).prompts[:6]
    greedy = sample(student, prompts, 1, 12, lab.end, None)
    plain = torch.nn.Module()  # without generate(): token by token, all of the row anew
    plain.forward = lambda **inputs: student(**inputs)  # type: ignore[method-assign]
    plain.register_parameter("weight", next(student.parameters()))
    assert [one for (one,) in greedy] == sample_responses(plain, prompts, 12, frozenset({lab.end}), 0.0)
    # Ends are frequent for a student that likes the end token.
    with torch.no_grad():
        head = student.get_output_embeddings()
        head.weight[lab.end] = 5 * head.weight[lab.end]
    answers = sample(student, prompts, 4, 12, lab.end, torch.Generator().manual_seed(1))
    assert [len(some) for some in answers] == [4] * 6
    flat = [answer for some in answers for answer in some]
    assert all(lab.end not in answer[:-1] and (answer[-1] == lab.end or len(answer) == 12) for answer in flat)
    assert len({len(answer) for answer in flat}) > 1
    assert answers == sample(student, prompts, 4, 12, lab.end, torch.Generator().manual_seed(1))


def test_sampled_answers_come_from_the_students_distribution(lab: Lab):
    """The mean log-probability of samples is minus the entropy: first tokens, and second ones behind them."""
    student, prompt = lab.student().module, Corpus(lab, SEED).prompts[0]
    with torch.no_grad():
        head = student.get_output_embeddings()
        head.weight *= 20  # far from uniform
        first = student(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    answers = sample(student, [prompt], 4000, 2, lab.end, torch.Generator().manual_seed(2))[0]
    counts = torch.bincount(torch.tensor([answer[0] for answer in answers]), minlength=len(first)) / len(answers)
    assert (counts - first.exp()).abs().max() < 4 * 0.5 / math.sqrt(len(answers))
    common = int(first.argmax())
    behind = [answer[1] for answer in answers if answer[0] == common and len(answer) == 2]
    with torch.no_grad():
        second = student(input_ids=torch.tensor([[*prompt, common]])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor(behind), minlength=len(second)) / len(behind)
    assert len(behind) > 200 and (counts - second).abs().max() < 4 * 0.5 / math.sqrt(len(behind))


def test_a_token_without_probability_is_never_drawn():
    logits = torch.full((50_000, 7), -math.inf)
    logits[:, 2], logits[:, 4] = 0.0, math.log(3)
    counts = torch.bincount(draw(logits, torch.Generator().manual_seed(1)), minlength=7)
    assert counts[[0, 1, 3, 5, 6]].sum() == 0
    assert counts[4].item() / 50_000 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 50_000))


# ---- learning


def test_small_steps_are_not_lost_in_bfloat16():
    """Each is below half of what bfloat16 tells apart, all together are not; the state goes on as if never left."""
    module = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        module.weight.fill_(1.0)
    learner = Learner(module)

    def loss() -> torch.Tensor:
        return module(torch.ones(1, 1, dtype=torch.bfloat16)).float().sum()

    for _ in range(20):
        learner.update(loss(), 1e-3)
    assert module.weight.item() == pytest.approx(1 - 15.5e-3, abs=5e-3) and module.weight.dtype == torch.bfloat16
    other = Learner(torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16))
    other.load_state_dict(learner.state_dict())
    assert other.module.weight.item() == module.weight.item() and other.updates == 20
    learner.update(loss(), 1e-3)
    other.update(other.module(torch.ones(1, 1, dtype=torch.bfloat16)).float().sum(), 1e-3)
    assert torch.equal(weights(learner), weights(other))


def test_a_gradient_that_is_not_finite_changes_nothing(lab: Lab):
    learner = lab.student()
    before = weights(learner)
    learner.update(next(learner.module.parameters()).sum() * math.nan, 1e-2)
    assert torch.equal(weights(learner), before)


def one_file(lab: Lab, corpus: Corpus, rows: list[int], texts: list[list[list[int]]]) -> tuple[Gad, list[Group]]:
    """The trainer in one file with the models of the lab, and a step's groups."""
    settings = Settings(batch_size=4, n=2, temperature=1.0, kl_loss_coef=KL_COEF, otherwise="supervised")
    examples = [
        Example(row, corpus.prompts[row], [EncodedResponse(corpus.teachers[row], True, False)]) for row in range(8)
    ]
    gad = Gad(lab.student().module, lab.discriminator(SEED).module, examples, settings, frozenset({lab.end}))
    groups = [
        Group(
            corpus.prompts[row],
            EncodedResponse(corpus.teachers[row], True, False),
            list(some),
            [EncodedResponse(corpus.reread(one), True, False) for one in some],
            not bool(corpus.held_out[row]),
        )
        for row, some in zip(rows, texts, strict=True)
    ]
    return gad, groups


def gradients(module: torch.nn.Module) -> list[torch.Tensor | None]:
    return [weight.grad for weight in module.parameters()]


@pytest.mark.parametrize("texts_weight", [0.0, 0.4])
def test_the_students_loss_and_gradient_are_those_of_the_one_file(lab: Lab, texts_weight: float):
    learner, reference, corpus = lab.student(), lab.student().module, Corpus(lab, SEED)
    with torch.no_grad():
        for weight in reference.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    rows, texts = [3, 8, 1, 20], some_rows(lab, answers=2)[1][:4]
    advantages = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    loss = student_loss(learner.module, reference, corpus, rows, texts, advantages, 0.6, texts_weight, KL_COEF)
    loss.backward()
    gad, groups = one_file(lab, corpus, rows, texts)
    gad.reference = reference
    expected = 0.6 * gad._policy_gradient(groups, advantages, 0.6, {})
    if texts_weight:
        taught = [(group.prompt_ids, group.teacher.token_ids) for group in groups]
        expected += texts_weight * gad._text_gradient(taught, texts_weight, {})
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    for mine, other in zip(gradients(learner.module), gradients(gad.student), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-3)


def test_the_discriminators_scores_and_gradient_are_those_of_the_one_file(lab: Lab, monkeypatch):
    corpus, texts = Corpus(lab, SEED), some_rows(lab, answers=2)[1][:4]
    held_out = corpus.held_out.nonzero().flatten().tolist()
    rows = [held_out[0], *(row for row in range(TINY.train) if row not in held_out)][:4]
    opponent = lm_training.Opponent(lab, corpus, True, SEED)
    monkeypatch.setattr(opponent.learner, "update", lambda loss, rate: loss.backward())
    found, knowledge = opponent.learn(rows, texts)
    gad, groups = one_file(lab, corpus, rows, texts)
    _, expected, _ = gad._pair_loss(groups, learns=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert knowledge == 0.0 and not groups[0].trains
    for mine, other in zip(gradients(opponent.learner.module), gradients(gad.discriminator), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-3)


# ---- judging


def test_exact_figures_in_closed_form():
    share = np.array(SHARES)
    perfect, slips = exact_figures(np.log(share)[None]), exact_figures(np.log(share * (1 - lm_lab.SLIP))[None])
    assert perfect["valid"] == pytest.approx([1.0]) and perfect["kl_teacher_student"] == pytest.approx([0.0], abs=1e-9)
    assert slips["kl_student_teacher"] == pytest.approx([0.0], abs=1e-9)
    assert slips["valid"] == pytest.approx([1 - lm_lab.SLIP])
    one = exact_figures(np.log([[1e-30, 1.0, 1e-30]]))
    assert one["covered"] == pytest.approx([1.0])
    assert one["kl_student_teacher"] == pytest.approx([-math.log(SHARES[1] * (1 - lm_lab.SLIP))])


def test_exact_figures_are_divergences_and_means_over_samples():
    random_ = np.random.default_rng(1)
    mass = random_.dirichlet([1, 1, 1, 1], size=40)
    found = exact_figures(np.log(mass[:, :3]))
    assert (found["kl_teacher_student"] >= -1e-9).all() and (found["kl_student_teacher"] >= -1e-9).all()
    drawn = np.array([random_.choice(4, size=(4000, lm_lab.COVER), p=row) for row in mass[:5]])
    assert found["valid"][:5] == pytest.approx((drawn < 3).mean((1, 2)), abs=0.02)
    counted = [[len(set(some) - {3}) for some in row] for row in drawn.tolist()]
    assert found["covered"][:5] == pytest.approx(np.mean(counted, axis=1), abs=0.06)


def test_the_probability_of_a_phrasing_is_that_of_its_tokens(whole: Lab):
    corpus, student = Corpus(whole, SEED), whole.student().module
    found = lm_lab.phrasing_log_probs(student, corpus, batch=5)
    row, prompt = corpus.splits.test[6], corpus.test_prompts[6]
    for text, value in zip(row.valid, found[6], strict=True):
        assert token_log_probs(student, [prompt], [corpus.answer(text)], 1.0)[0].sum().item() == pytest.approx(
            value, rel=1e-4
        )
    texts = [corpus.answer(one.teacher) for one in corpus.splits.validation]
    prompts = [whole.prompt(one.prompt) for one in corpus.splits.validation]
    assert lm_lab.validation_loss(student, corpus, batch=3) == pytest.approx(
        -token_log_probs(student, prompts, texts, 1.0)[0].mean().item(), rel=1e-4
    )


def test_training_answers_are_judged_by_their_text(whole: Lab):
    corpus = Corpus(whole, SEED)
    answers = [[corpus.answer(text) for text in corpus.splits.train[row].valid] for row in (0, 1)]
    answers[0][1] = answers[0][1][:-1]  # not ended
    answers[1][2] = corpus.answer("something else")
    assert corpus.valid([0, 1], answers).tolist() == [[True, False, True], [True, True, False]]
    assert corpus.reread([whole.end]) == [whole.end]


# ---- runs


def test_where_d_knows_nothing_the_new_objective_is_seqkd_and_hold_stands_still(lab: Lab, monkeypatch):
    monkeypatch.setattr(lm_training, "TRUST", TrustOptions(window=300, least_prompts=300))
    begun = start(lab, SEED)
    row, seqkd = adversarial(lab, ARMS[NEW], NEW, 1e-3, 1e-2, SEED), seqkd_goes_on(lab, 1e-2, SEED)
    assert row["factor"] == 0.0 and seqkd["updates"] == TINY.steps
    for name in ("valid", "greedy", "validation_loss", "kl_teacher_student"):
        assert row[name] == pytest.approx(seqkd[name], rel=1e-4)
    held = adversarial(lab, ARMS[HOLD], HOLD, 1e-3, 1e-2, SEED)
    assert held["validation_loss"] == pytest.approx(begun.row["validation_loss"], rel=1e-6)
    assert adversarial(lab, ARMS[GAD], GAD, 1e-3, 1e-2, SEED)["validation_loss"] != held["validation_loss"]


def test_held_out_texts_never_train_a_trusted_d(lab: Lab, monkeypatch):
    begun = start(lab, SEED)
    assert 0 < begun.corpus.held_out.sum() < TINY.train
    plain = {trusted: weights(warm_opponent(lab, trusted, SEED)[0].learner) for trusted in (True, False)}
    for row in begun.corpus.held_out.nonzero().flatten().tolist():
        # As long as before, so that sums are added in the same order.
        begun.corpus.teachers[row] = [*begun.corpus.teachers[row][-2::-1], lab.end]
    for path in (lab.work / str(SEED)).glob("opponent-*.pt"):
        path.unlink()
    assert torch.equal(weights(warm_opponent(lab, True, SEED)[0].learner), plain[True])
    assert not torch.equal(weights(warm_opponent(lab, False, SEED)[0].learner), plain[False])


@pytest.mark.parametrize("arm", [NEW, GAD])
def test_an_interrupted_run_ends_as_if_it_had_not_been(lab: Lab, arm: str, monkeypatch):
    # So that f is between 0 and 1 somewhere.
    monkeypatch.setattr(lm_training, "TRUST", TrustOptions(full_accuracy=1.0, confidence=0.0, least_prompts=2))
    whole = last_student(lab, arm, monkeypatch)
    steps = []
    stock = lm_training.Loop.run

    def interrupted(self: Any, total: int, step: Any, *more: Any) -> None:
        def one(number: int) -> None:
            step(number)
            steps.append(number)
            self.lab.deadline = -math.inf if len(steps) in (1, 3) else math.inf

        stock(self, total, one, *more)

    with monkeypatch.context() as patch:
        patch.setattr(lm_training.Loop, "run", interrupted)
        for _ in range(2):
            with pytest.raises(Paused):
                adversarial(lab, ARMS[arm], arm, 1e-3, 1e-2, SEED)
            lab.deadline = math.inf
        assert len(list((lab.work / str(SEED)).glob("*objective.pt" if arm == NEW else "GAD.pt"))) == 1
        parts = last_student(lab, arm, monkeypatch)
    assert steps == [1, 2, 3, 4] and torch.equal(parts, whole)
    assert not list((lab.work / str(SEED)).glob("*objective.pt"))


def test_a_start_that_was_interrupted_is_the_same(lab: Lab, tmp_path: Path):
    row = start(lab, SEED).row
    other = Lab(lab.folder, tmp_path / "other", TINY, torch.float32, deadline=-math.inf)
    for _ in range(2):
        with pytest.raises(Paused):
            start(other, SEED)
    other.deadline = math.inf
    again = start(other, SEED)
    assert again.row["losses"] == row["losses"] and again.row["valid"] == row["valid"]
    assert again.row["validation_loss"] == min(loss for _, loss in row["losses"])


def test_the_command_runs_every_arm_and_goes_on_and_its_tables_are_made(lab: Lab, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(lm_language, "Lab", lambda folder, work, sizes, *more: Lab(folder, work, TINY, *more))
    rows, choice_rows = tmp_path / "rows.jsonl", tmp_path / "choice.jsonl"
    monkeypatch.setattr(lm_language, "CHOICE_ROWS", choice_rows)
    command = ["--student", str(lab.folder), "--work", str(tmp_path / "work"), "--float32", "--seeds", "1"]
    command += ["--rows", str(rows), "--choice-rows", str(choice_rows)]
    assert lm_language.main([*command, "--budget-s", "-1"]) == 1 and not rows.exists()
    assert lm_language.main(command) == 0
    assert [(row["arm"], row["seed"]) for row in Rows(choice_rows).all()] == [(arm, 520) for arm in CHOICE_ARMS]
    found = Rows(rows).all()
    choice = choose(Rows(choice_rows).all())
    assert choice is not None
    arms = reported_arms(choice)
    assert [(row["arm"], row["seed"]) for row in found] == [(arm, seed) for seed in (530,) for arm in arms]
    assert set(ARMS) | set(lm_language.PARTS) | set(lm_language.SODAS) | set(lm_language.SEQKDS) <= set(arms)
    assert len(set(arms)) == len(arms) and arms[1] == seqkd_at(choice.seqkd)
    for row in found:
        assert 0 <= row["valid"] <= 1 and 0 <= row["greedy"] <= 1 and row["validation_loss"] > 0
        assert row["train_s"] > 0 and len(row["by_prompt"]["valid"]) == TINY.test
    assert all(len(row["passes"]["held_out"]) == TINY.passes for row in found if row["arm"] in ARMS)
    # Nothing is left of runs that are at their end, and a second call has nothing to do.
    assert {path.name for path in (tmp_path / "work" / "530").iterdir()} == {
        "start.pt",
        "snapshot.json",
        "opponent-plain.pt",
        "opponent-trusted.pt",
    }
    content = rows.read_bytes()
    assert lm_language.main(command) == 0 and rows.read_bytes() == content
    assert lm_language.main([arg for arg in command if arg != "--float32"]) == 2
    assert "name another --work" in capsys.readouterr().err
    for part in (found, found[:3], found[: len(arms) - 1]):
        assert len(lm_language.tables(part)) == 6
    whole = lm_language.tables(found)
    assert "Seeds 530; 4 updates of an arm, 6 of SeqKD in equal time (" in whole[0]
    assert all(f"| {arm} |" in whole[0] for arm in (*RIVALS, NEW, GAD, HOLD, *lm_language.PARTS))


def test_an_interrupted_study_loses_the_current_run_alone(lab: Lab, tmp_path: Path, monkeypatch):
    arms = CHOICE_ARMS[:3]
    path, stock = tmp_path / "rows.jsonl", lm_language.run

    def broken(lab: Lab, arm: str, *more: Any) -> dict[str, Any]:
        if arm == arms[2]:
            raise KeyboardInterrupt
        return stock(lab, arm, *more)

    monkeypatch.setattr(lm_language, "run", broken)
    with pytest.raises(KeyboardInterrupt):
        run_all(Rows(path), runs_of(lab, arms, [SEED]))
    assert len(Rows(path)) == 2
    monkeypatch.setattr(lm_language, "run", stock)
    start.cache_clear()
    assert run_all(Rows(path), runs_of(lab, arms, [SEED])) and len(Rows(path)) == 3
    again = run(lab, arms[1], SEED)
    assert again["valid"] == pytest.approx(Rows(path).all()[1]["valid"], rel=1e-4)


# ---- the choice, SeqKD as a rival, tables


def fake_curve(seed: int, rate: float, at_steps: tuple[float, float], at_equal: tuple[float, float]) -> dict[str, Any]:
    figures = {"greedy": 0.5, "covered": 1.0, "kl_teacher_student": 1.0, "kl_student_teacher": 1.0, "train_s": 9.0}
    figures |= {"phrasings": [0.1, 0.1, 0.1], "kinds": {"sum": 0.3}, "cpu_s": 10.0}
    curve = [
        {**figures, "updates": updates, "valid": valid, "validation_loss": loss}
        for updates, (valid, loss) in ((0, (0.3, 0.6)), (50, at_steps), (400, at_equal))
    ]
    return {**figures, **curve[1], "arm": seqkd_at(rate), "seed": seed, "steps": 50, "equal_time": 400, "curve": curve}


def fake_choice() -> list[dict[str, Any]]:
    seed = lm_language.CHOICE_SEEDS[0]
    rows = [{"arm": SEQKD, "seed": seed, "steps": 50, "equal_time": 400, "valid": 0.3, "cpu_s": 1.0}]
    found = ((0.5, 0.7), (0.2, 0.9)), ((0.4, 0.5), (0.6, 0.4)), ((0.3, 0.6), (0.5, 0.6))
    rows += [fake_curve(seed, rate, *points) for rate, points in zip(SEQKD_RATES, found, strict=True)]
    for arm, validity in ((GAD, (0.2, 0.3)), (lm_language.SODA, (0.5, 0.4))):
        for rate, valid in zip(lm_language.POLICY_RATES, validity, strict=True):
            rows.append({"arm": at(arm, rate), "seed": seed, "valid": valid, "cpu_s": 1.0, "train_s": 1.0})
    return rows


def test_rates_are_chosen_by_validity_on_other_seeds_than_the_reported_ones():
    assert min(lm_language.CHOICE_SEEDS) != lm_language.FIRST_SEED > max(lm_language.CHOICE_SEEDS)
    rows, (first, second) = fake_choice(), lm_language.POLICY_RATES
    assert choose(rows) == Choice(SEQKD_RATES[0], SEQKD_RATES[1], second, first)
    assert choose(rows[:-1]) is None and choose([]) is None
    assert {row["arm"] for row in rows} == set(CHOICE_ARMS)


def test_seqkd_is_tuned_by_what_each_rule_may_see():
    points = ((0.5, 0.7), (0.2, 0.9)), ((0.4, 0.5), (0.7, 0.4)), ((0.3, 0.6), (0.6, 0.6))
    rows = [fake_curve(530, rate, *some) for rate, some in zip(SEQKD_RATES, points, strict=True)]
    choice = Choice(SEQKD_RATES[1], SEQKD_RATES[0], 1e-5, 1e-5)
    assert {row["arm"]: row["valid"] for row in rival_rows(rows, choice)} == {
        TUNED: 0.4,
        "the same, equal time": 0.2,
        "SeqKD, stopped by likelihood": 0.4,
        "stopped by likelihood, equal time": 0.7,
        "SeqKD, stopped by the oracle": 0.5,
        "stopped by the oracle, equal time": 0.7,
    }
    assert {row["arm"]: row["valid"] for row in rival_rows(rows[:2], choice)} == {
        TUNED: 0.4,
        "the same, equal time": 0.2,
    }
    assert rival_rows(rows[2:], choice) == []
    assert {row["arm"] for row in rival_rows(rows, None)} == {arm for arm, stop in RIVALS.items() if stop.rule != "all"}


def test_the_time_of_what_arms_share_is_counted_once():
    curve = [{"updates": 0, "train_s": 0.0}, {"updates": 50, "train_s": 70.0}, {"updates": 400, "train_s": 500.0}]
    rows = [{"arm": SEQKD, "seed": 530, "train_s": 100.0}, {"arm": seqkd_at(1e-4), "train_s": 70.0, "curve": curve}]
    for arm, extra in ((NEW, {"factor": 0.5}), (HOLD, {"factor": 0.5}), (GAD, {})):
        rows.append({"arm": arm, "seed": 530, "train_s": 1300.0, "shared_s": 1000.0, "passes": {}, **extra})
    rows.append({"arm": lm_language.SODA, "seed": 530, "train_s": 42.0, "shared_s": 2.0})
    assert lm_language.training_s(rows) == pytest.approx(100 + 500 + 3 * 300 + 2 * 1000 + 40)


def test_differences_are_paired_by_seed_and_by_prompt():
    rows = []
    for seed in (530, 531):
        for arm, shift in ((TUNED, 0.0), (NEW, 0.1 * (seed - 529))):
            by_prompt = {name: [0.2 + shift, 0.4 + shift] for name in ("valid", "greedy", *lm_language.NATS)}
            rows.append({"arm": arm, "seed": seed, "valid": 0.3 + shift, "by_prompt": by_prompt})
    line = next(line for line in lm_language.differences_table(rows, TUNED).splitlines() if NEW in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1].startswith("+15.0") and "[+10]" in cells[1]
    assert cells[2].startswith("+15.0 [") and cells[4].startswith("+0.15 [")


def test_the_task_is_as_small_as_the_study_says():
    """A real tokenizer writes a character or more with a token; the limit of the study is one of tokens."""
    assert (
        Sizes().limit == 24
        and max(len(text.split()) for row in make_splits(800, 8, 8, 1).train for text in row.valid) < 9
    )
    assert lm_task.SHARES == (0.3, 0.3, 0.4) and sum(lm_task.SHARES) == pytest.approx(1)
