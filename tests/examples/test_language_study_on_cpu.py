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
"""Study 2: its language and oracle, trust in the one file's loop, its tables, and its short form."""

import copy
import dataclasses
import itertools

import language
import oracle_language
import pytest
import torch
from gad_in_one_file import Example
from language import GAD, MAIN, REGIMES, SEQKD, TRUSTED
from oracle_language import (
    BEGIN,
    END,
    LETTERS,
    STOP_IDS,
    VOCABULARY,
    CausalTransformer,
    RecurrentStudent,
    judge,
    longest_answer,
    make_corpus,
    valid_answers,
)
from torch import Tensor, nn
from variants import VariantGad

from gad_verl.core.trust import DiscriminatorTrust, is_held_out
from gad_verl.data.tokens import EncodedResponse

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- language and oracle


def test_the_three_answers_to_a_prompt():
    assert valid_answers([3, 1, 4, 0]) == [[8, 0, 4, 1, 3, END], [9, 3, 1, END], [10, 3, 3, 1, 1, END]]
    for length in range(2, 8):
        assert max(map(len, valid_answers(list(range(length))))) == longest_answer(length)


def test_corpus_has_no_prompt_twice_and_only_valid_texts_in_the_stated_shares():
    corpus = make_corpus(5, 3000, 200, 300, seed=4)
    prompts = [tuple(row.prompt_ids[:-1]) for row in [*corpus.train, *corpus.validation]] + list(
        map(tuple, corpus.test)
    )
    assert len(set(prompts)) == len(prompts) == 3500
    counts = [0, 0, 0]
    for row in corpus.train:
        assert row.prompt_ids[-1] == BEGIN
        counts[valid_answers(row.prompt_ids[:-1]).index(row.teachers[0].token_ids)] += 1
    assert [count / 3000 for count in counts] == pytest.approx(oracle_language.TEMPLATE_SHARES, abs=0.04)
    assert make_corpus(5, 3000, 200, 300, seed=4) == corpus
    assert make_corpus(5, 3000, 200, 300, seed=5) != corpus


class Scripted(nn.Module):
    """Says one template, or nonsense after prompts that begin with a letter."""

    def __init__(self, template: int, wrong_first: int | None = None) -> None:
        super().__init__()
        self.anchor, self.template, self.wrong = nn.Parameter(torch.zeros(())), template, wrong_first

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = torch.full((*input_ids.shape, VOCABULARY), -100.0)
        for row, ids in enumerate(input_ids.tolist()):
            begin = ids.index(BEGIN)
            answer = [END] if ids[0] == self.wrong else valid_answers(ids[:begin])[self.template]
            for place, token in enumerate(answer):
                if begin + place < len(ids):
                    logits[row, begin + place, token] = 100.0
        return logits


def test_the_oracle_counts_valid_answers():
    prompts = [list(letters) for letters in itertools.islice(itertools.product(range(LETTERS), repeat=3), 0, None, 8)]
    for template, name in enumerate(("reverse", "two", "doubled")):
        result = judge(Scripted(template), prompts, samples=2)
        assert result["valid"] == result["greedy"] == result["covered"] == result[name] == 1.0
        assert result["length"] == len(valid_answers(prompts[0])[template])
    result = judge(Scripted(0, wrong_first=2), prompts, samples=3)
    assert result["valid"] == result["greedy"] == pytest.approx(7 / 8)


@pytest.mark.parametrize("model", [RecurrentStudent(16, 8), CausalTransformer(16, 2, 2, VOCABULARY)])
def test_models_read_causally(model):
    ids = torch.randint(0, LETTERS, (3, 9), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % LETTERS
    first, second = (model(input_ids=x, attention_mask=torch.ones_like(x)) for x in (ids, changed))
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert not torch.allclose(first[:, 5:], second[:, 5:])


# ---- trust in the loop


def tiny(arm: str = TRUSTED, change_held_out: bool = False, steps: int = 0):
    """A loop on a small student, after some steps; optionally with other teacher texts on the held-out prompts."""
    torch.manual_seed(0)
    student, discriminator = RecurrentStudent(16, 8), CausalTransformer(16, 1, 2, 1)
    rows = make_corpus(3, 64, 10, 10, seed=0).train
    if change_held_out:
        rows = [changed(row) if is_held_out(str(row.prompt_ids), language.HELD_OUT) else row for row in rows]
    regime = dataclasses.replace(REGIMES[MAIN], length=3, warmup=4, adversarial=6)
    settings = language.settings(regime, language.ARMS[arm], 0)
    loop = VariantGad(student, discriminator, rows, settings, STOP_IDS)
    for _ in range(steps):
        loop.step()
    return loop


def changed(row: Example) -> Example:
    """Another teacher text of the same length."""
    text = [*([1] * (len(row.teachers[0].token_ids) - 1)), END]
    return Example(row.index, row.prompt_ids, [EncodedResponse(text, finished=True, cut=False)])


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_held_out_teacher_texts_do_not_reach_the_discriminator():
    trusted = [tiny(change_held_out=change, steps=4).discriminator for change in (False, True)]
    assert same(*trusted)
    plain = [tiny(GAD, change, steps=4).discriminator for change in (False, True)]
    assert not same(*plain)


def test_the_student_stays_where_there_is_no_trust_and_learns_where_there_is():
    loop = tiny()
    before = copy.deepcopy(loop.student)
    for _ in range(6):
        metrics = loop.step()
    # Some eight held-out prompts are fewer than the least number.
    assert metrics["gad/trust_factor"] == 0.0 and "actor/lr" not in metrics
    assert same(before, loop.student)
    loop.trust = DiscriminatorTrust(dataclasses.replace(language.TRUST, least_prompts=2))
    # An opinion of D that is always right on held-out prompts.
    loop.trust.load_state_dict({"seen": [[str(number), 1.0] for number in range(100)]})
    metrics = loop.step()
    assert metrics["actor/lr"] > 0 and not same(before, loop.student)


# ---- tables


def fake_row(regime: str, arm: str, seed: int, valid: float) -> dict:
    row = {"regime": regime, "arm": arm, "seed": seed, "valid": valid, "greedy": valid, "covered": 1.0, "length": 5.0}
    row |= {"reverse": 0.1, "two": 0.2, "doubled": 0.1, "cpu_s": 30.0}
    if arm == SEQKD:
        return row | {"best_length_valid": valid + 0.05, "curve": [[100, 0.7, 0.2], [200, 0.6, 0.3]]}
    factor = 0.5 if arm == TRUSTED else None
    series = {"disc_accuracy": [0.5, 0.7], "gad_trust_accuracy": [0.5, 0.6] if factor else [None, None]}
    return row | {
        "validation_loss": 0.9,
        "accuracy": 0.7,
        "factor": factor,
        "curve": [[0, 0.3], [50, valid]],
        "series": series,
    }


def test_tables_and_figure_from_rows():
    rows = []
    for seed in (1, 2):
        rows += [fake_row(MAIN, SEQKD, seed, 0.3), fake_row(MAIN, GAD, seed, 0.5), fake_row(MAIN, TRUSTED, seed, 0.48)]
        rows += [fake_row("few texts", arm, seed, valid) for arm, valid in ((SEQKD, 0.6), (GAD, 0.3), (TRUSTED, 0.6))]
    arms, regimes = language.tables(rows)
    assert "the trust keeps 90 %" in regimes
    assert "| few texts | 60.0 ± 0.0 | -30.0 ± 0.0 | 0.0 ± 0.0 | -30.0 | +0.0 |" in regimes
    assert "| SeqKD | 30.0 ± 0.0 |" in arms and "best length by the oracle: 35.0 ± 0.0" in arms
    assert "SeqKD 0.60 ± 0.00, GAD 0.90 ± 0.00" in arms and "weak D" not in regimes
    assert "GAD on the same seeds, and of each seed: trust -2.0 ± 0.0 (-2.0, -2.0)." in arms
    assert len(language.figure(rows).axes) == 4


def test_every_run_has_its_own_key_and_the_core_of_the_study_comes_first():
    runs = language.all_runs(10)
    keys = [run.key for run in runs]
    core = 3 * (10 + 5 + 5)
    assert len(set(keys)) == len(keys) == core + 3 * (3 + 3) + 4 * 5
    assert all("replay" not in key and "weak D" not in key for key in keys[:core])
    assert len(language.all_runs(2)) == 2 * (3 * 5 + 4)


# ---- short form


def short_form(monkeypatch: pytest.MonkeyPatch, regime: str, seed: int, **steps: int) -> dict[str, dict]:
    """Rows of some arms of one seed after so many adversarial steps."""
    rows = {}
    language.seqkd.cache_clear()
    for name, adversarial in steps.items():
        arm = {"seqkd": SEQKD, "gad": GAD, "trusted": TRUSTED}[name]
        monkeypatch.setitem(REGIMES, regime, dataclasses.replace(REGIMES[regime], warmup=40, adversarial=adversarial))
        rows[arm] = language.run(regime, arm, seed)
    language.seqkd.cache_clear()
    return rows


def test_gad_gives_up_what_the_student_cannot_say(monkeypatch):
    """The answer that it cannot say, for those that it can; the teacher's texts become less likely. In trials with
    five seeds the share of the long answer fell to a half or less. More valid answers need more steps."""
    rows = short_form(monkeypatch, MAIN, 304, seqkd=1, gad=300)
    seqkd, gad = rows[SEQKD], rows[GAD]
    assert 0.2 < seqkd["valid"] < 0.5 and gad["valid"] > seqkd["valid"] - 0.1
    assert gad["reverse"] < 0.7 * seqkd["reverse"] and gad["length"] < seqkd["length"] - 0.1
    assert 0.6 < gad["accuracy"] < 0.95


def test_gad_hurts_a_good_student_and_trust_does_not_let_it(monkeypatch):
    """Thresholds hold with margin: in trials with five seeds GAD's curve went down by 15 points or more."""
    rows = short_form(monkeypatch, "good student", 0, seqkd=1, gad=100, trusted=40)
    start = rows[SEQKD]["valid"]
    assert start > 0.85
    assert min(valid for _, valid in rows[GAD]["curve"]) < start - 0.05
    assert rows[TRUSTED]["valid"] > start - 0.02
    assert rows[TRUSTED]["factor"] < 0.1
