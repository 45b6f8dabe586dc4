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
"""The one file by itself: phases, choices, sampling, its command."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gad_command
import pytest
import torch
from gad_in_one_file import Example, Gad, Settings
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from token_rows import sample_responses, sequence_scores, token_log_probs
from torch import Tensor, nn
from variants import VariantGad, VariantSettings

from gad_verl.core import PairLossOptions, bradley_terry_loss, group_advantages, low_variance_kl
from gad_verl.core.gating import GateOptions, UpdateGate
from gad_verl.core.trust import Trust
from gad_verl.data.tokens import EncodedResponse

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY, STOP = 12, 11


class Recurrent(nn.Module):
    """A causal module that is no model of transformers."""

    def __init__(self, outputs: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.body = nn.Embedding(VOCABULARY, 8), nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(input_ids))[0])


def make_examples(count: int = 12, texts: int = 1) -> list[Example]:
    generator = torch.Generator().manual_seed(5)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, STOP, (length,), generator=generator).tolist()

    def teacher() -> EncodedResponse:
        return EncodedResponse([*ids(1, 4), STOP], finished=True, cut=False)

    return [Example(index, ids(1, 5), [teacher() for _ in range(texts)]) for index in range(count)]


def make_gad(examples: list[Example] | None = None, **changes: Any) -> Gad:
    is_variant = any(name not in vars(Settings()) for name in changes)
    settings = (VariantSettings if is_variant else Settings)(
        total_steps=6,
        warmup_steps=4,
        discriminator_only_steps=2,
        batch_size=4,
        n=3,
        max_response_length=5,
        actor_lr=1e-2,
        discriminator_lr=1e-2,
        seed=3,
    )
    student, discriminator = Recurrent(VOCABULARY), Recurrent(1, seed=1)
    settings = replace(settings, **changes)
    return (VariantGad if is_variant else Gad)(
        student, discriminator, examples or make_examples(), settings, frozenset({STOP})
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def changes_by_step(gad: Gad) -> list[tuple[bool, bool]]:
    """Whether student and discriminator changed, step by step."""
    result = []
    while gad.steps_done < gad.settings.total_steps:
        before = state(gad.student), state(gad.discriminator)
        gad.step()
        result.append((not same(before[0], state(gad.student)), not same(before[1], state(gad.discriminator))))
    return result


D_ALONE, STUDENT_ALONE, BOTH = (False, True), (True, False), (True, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [D_ALONE, D_ALONE, BOTH, BOTH, BOTH, BOTH]),
        ({"stage": "seqkd"}, [STUDENT_ALONE] * 6),
        ({"stage": "gad"}, [BOTH] * 6),
        ({"stage": "warmup"}, [D_ALONE, D_ALONE, *[BOTH] * 4]),
        ({"discriminator_warmup": False, "discriminator_only_steps": 0}, [*[STUDENT_ALONE] * 4, BOTH, BOTH]),
        ({"discriminator_frozen": True}, [D_ALONE, D_ALONE, BOTH, BOTH, STUDENT_ALONE, STUDENT_ALONE]),
        ({"discriminator_loss": "cross_entropy", "replay_steps": 2}, [D_ALONE, D_ALONE, BOTH, BOTH, BOTH, BOTH]),
    ],
)
def test_who_learns_when(changes: dict[str, Any], expected: list[tuple[bool, bool]]) -> None:
    assert changes_by_step(make_gad(**changes)) == expected


def test_rewards_are_the_scores_before_the_update() -> None:
    gad = make_gad(stage="gad", discriminator_updates=3)
    before = copy.deepcopy(gad.discriminator)
    gad.step()
    after = copy.deepcopy(gad.discriminator)
    rows = [row for group in gad.groups for row in group.rows()]
    shape = gad.scores.shape
    with torch.no_grad():
        torch.testing.assert_close(gad.scores, sequence_scores(before, rows).view(shape))
        assert not torch.allclose(gad.scores, sequence_scores(after, rows).view(shape), atol=1e-4)


def knowing(knowledge: float, **changes: Any) -> Gad:
    """Of a fixed opinion about D: the update alone is looked at."""
    gad = make_gad(stage="gad", held_out_fraction=0.5, warmup_actor_lr=4e-2, norm_adv_by_std=False, **changes)
    gad.trust.update = lambda *_: Trust(knowledge, 0.5, 0.1, 20)
    return gad


def test_held_out_prompts_train_the_student_alone() -> None:
    gad = make_gad(stage="gad", held_out_fraction=0.5)
    gad.step()
    trains = [group.trains for group in gad.groups]
    assert set(trains) == {True, False}
    # A loss of the others alone: scores of before the update.
    scores = gad.scores[torch.tensor(trains)]
    fresh = make_gad(stage="gad", held_out_fraction=0.5)
    loss = fresh.step()["disc/loss"]
    assert loss == pytest.approx(bradley_terry_loss(scores[:, 0], scores[:, 1:]).item(), abs=1e-6)


def test_a_student_held_still_by_default_and_taught_by_the_texts_otherwise() -> None:
    held, taught = knowing(0.0), knowing(0.0, otherwise="supervised")
    before = state(held.student)
    held.step()
    metrics = taught.step()
    assert same(before, state(held.student)) and not same(before, state(taught.student))
    # A step of SeqKD at its own rate on the same rows, held-out ones too.
    plain = make_gad(stage="seqkd", warmup_actor_lr=4e-2)
    seqkd = plain.step()
    assert metrics["actor/loss"] == pytest.approx(seqkd["actor/loss"], abs=1e-6)
    assert metrics["actor/lr"] == seqkd["actor/lr"] == 4e-2
    for name, value in state(taught.student).items():
        torch.testing.assert_close(value, state(plain.student)[name], rtol=0, atol=1e-6)


def test_weights_and_rate_between_the_ends() -> None:
    gad = knowing(0.37, otherwise="supervised", supervised_weight=0.1)
    metrics = gad.step()
    assert (metrics["gad/policy_weight"], metrics["gad/texts_weight"]) == (0.37, pytest.approx(0.73))
    assert metrics["actor/lr"] == pytest.approx(1e-2**0.37 * 4e-2**0.63)
    policy = metrics["actor/pg_loss"] + gad.settings.kl_loss_coef * metrics["actor/kl_loss"]
    assert metrics["actor/loss"] == pytest.approx(0.37 * policy + 0.73 * metrics["actor/text_loss"], abs=1e-6)


def test_advantages_in_nats_are_in_the_unit_of_the_scores() -> None:
    gad = make_gad(stage="gad", norm_adv_by_std=False)
    scores, weights = torch.randn(4, 3), torch.ones(4, 3)
    advantages = gad.advantages(scores, weights, {})
    torch.testing.assert_close(advantages, scores - scores.mean(dim=1, keepdim=True))


def test_gate_of_the_core_holds_the_discriminator_back() -> None:
    gad = make_gad(stage="gad", total_steps=4)
    gad.gate = UpdateGate(GateOptions(every_steps=2))
    assert [changed for _, changed in changes_by_step(gad)] == [True, False, True, False]


def test_options_of_the_pair_loss_reach_it() -> None:
    losses = []
    for temperature in (1.0, 4.0):
        gad = make_gad(stage="gad")
        gad.pair_loss = PairLossOptions(temperature=temperature)
        losses.append(gad.step()["disc/loss"])
        scores = gad.scores / temperature
        assert losses[-1] == pytest.approx(bradley_terry_loss(scores[:, 0], scores[:, 1:]).item(), abs=1e-6)
    assert losses[0] != losses[1]


def test_replay_joins_the_loss_and_not_the_rewards() -> None:
    gad, seen = make_gad(stage="gad", replay_steps=2), []
    pair_loss = gad._pair_loss

    def watched(groups: list[Any], learns: bool) -> Any:
        seen.append(list(groups))
        return pair_loss(groups, learns)

    gad._pair_loss = watched
    first = gad.step() and gad.groups
    gad.step()
    assert [len(groups) for groups in seen] == [4, 8]
    assert {id(group) for group in seen[1][4:]} == {id(group) for group in first}
    assert gad.scores.shape == (4, 4) and [id(g) for g in gad.groups] == [id(g) for g in seen[1][:4]]


def test_reference_is_the_warmed_up_student_or_the_initial_one() -> None:
    warmed, initial = make_gad(), make_gad(kl_reference="initial")
    first = state(initial.student)
    for gad in (warmed, initial):
        for _ in range(4):
            gad.step()
        at_switch = state(gad.student)
        metrics = gad.step()
        gad.step()
        if gad is warmed:
            assert same(state(gad.reference), at_switch)
            assert metrics["actor/kl_loss"] == pytest.approx(0.0, abs=1e-7)
        else:
            assert same(state(gad.reference), first)
            assert metrics["actor/kl_loss"] > 1e-4


def test_rates_of_the_stages() -> None:
    gad = make_gad(warmup_actor_lr=0.5, warmup_discriminator_lr=0.25)
    metrics = [gad.step() for _ in range(6)]
    assert [step["disc/lr"] for step in metrics] == [0.25] * 4 + [0.01] * 2
    assert [step.get("actor/lr") for step in metrics] == [None, None, 0.5, 0.5, 0.01, 0.01]


def test_each_epoch_sees_every_row_once_with_the_next_text() -> None:
    examples = make_examples(count=8, texts=3)
    gad = make_gad(examples, stage="gad", total_steps=6)
    seen: dict[int, list[int]] = {example.index: [] for example in examples}
    texts = [(row.index, number, text) for row in examples for number, text in enumerate(row.teachers)]
    which = {id(text): (index, number) for index, number, text in texts}
    for _ in range(6):
        gad.step()
        for group in gad.groups:
            index, number = which[id(group.teacher)]
            seen[index].append(number)
    # Three epochs of two steps: every text of every row once.
    assert all(sorted(numbers) == [0, 1, 2] for numbers in seen.values())


def test_same_seed_same_run_and_metrics_are_explained(tmp_path: Path) -> None:
    lines = []
    for run in range(2):
        path = tmp_path / f"{run}.jsonl"
        make_gad().run([lambda step, metrics, gad: metrics.update(mine=float(step))], path)
        lines.append([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        for line in lines[-1]:
            line["data"] = {name: value for name, value in line["data"].items() if not name.startswith("timing_s/")}
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]
    assert [line["data"]["mine"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]
    curves = (ROOT / "docs" / "curves.md").read_text(encoding="utf-8")
    names = {name for line in lines[0] for name in line["data"] if name.startswith(("disc/", "gad/"))}
    assert len(names) > 20 and all(f"`{name}`" in curves for name in names)


def test_a_score_that_is_not_finite_gives_no_direction() -> None:
    gad = make_gad(stage="gad")
    groups = gad.rollout([(example, example.teachers[0]) for example in gad.examples[:2]])
    given = torch.tensor([[0.0, 1.0, 2.0, float("nan")], [0.0, 1.0, 2.0, 4.0]])
    gad._pair_loss = lambda groups, learns: (0.0, given, torch.ones(2, 3))
    metrics: dict[str, float] = {}
    scores, weights = gad.update_discriminator(groups, metrics, updates=0)
    assert metrics["gad/nonfinite_scores"] == 1.0
    assert scores.tolist() == [[1.0, 2.0, 1.5], [1.0, 2.0, 4.0]] and bool((weights == 1).all())
    assert group_advantages(scores, weights)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-4)
    given[:] = float("nan")
    with pytest.raises(FloatingPointError, match="learning rate"):
        gad.update_discriminator(groups, {}, updates=0)


def test_log_probs_are_those_of_each_row_alone() -> None:
    student = Recurrent(VOCABULARY)
    prompts, responses = [[1, 2, 3], [4], [5, 6]], [[7], [8, 9, 10, 11], [1, 2]]
    flat, entropy, rows = token_log_probs(student, prompts, responses, temperature=0.7)
    assert rows.tolist() == [0, 1, 1, 1, 1, 2, 2]
    expected, entropies = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([prompt + response])
        logits = student(ids, torch.ones_like(ids))[0] / 0.7
        for place, token in enumerate(response, start=len(prompt) - 1):
            distribution = torch.distributions.Categorical(logits=logits[place])
            expected.append(distribution.log_prob(torch.tensor(token)))
            entropies.append(distribution.entropy())
    torch.testing.assert_close(flat, torch.stack(expected))
    torch.testing.assert_close(entropy, torch.stack(entropies))


def test_sampling_stops_and_follows_the_distribution() -> None:
    student = Recurrent(VOCABULARY)
    torch.manual_seed(0)
    responses = sample_responses(student, [[1, 2]] * 4000, 3, frozenset({STOP}), temperature=1.0)
    for response in responses:
        assert 1 <= len(response) <= 3 and STOP not in response[:-1]
        assert len(response) == 3 or response[-1] == STOP
    ids = torch.tensor([[1, 2]])
    first = student(ids, torch.ones_like(ids))[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([response[0] for response in responses]), minlength=VOCABULARY) / 4000
    # Five standard errors.
    assert ((counts - first).abs() < 5 * (first * (1 - first) / 4000).sqrt()).all()
    greedy = sample_responses(student, [[1, 2]], 1, frozenset({STOP}), temperature=0)
    assert greedy == [[int(first.argmax())]]


def test_transformers_generation_is_the_plain_loop(tiny_folder: Path) -> None:
    student, _, tokenizer, stop_ids = gad_command.load_models(str(tiny_folder / "model"), None, seed=1)
    prompts = [tokenizer("red cat")["input_ids"], tokenizer("a")["input_ids"]]
    # What a model ships in its generation config changes nothing (Qwen2.5-Instruct brings a repetition penalty).
    changes = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 1, "min_new_tokens": 5, "suppress_tokens": [1, 2]}
    for name, value in changes.items():
        setattr(student.generation_config, name, value)
    fast = sample_responses(student, prompts, 6, stop_ids, temperature=0)
    assert all(getattr(student.generation_config, name) == value for name, value in changes.items())

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = student

        def forward(self, **inputs: Tensor) -> Any:
            return self.model(**inputs)

    assert fast == sample_responses(Plain(), prompts, 6, stop_ids, temperature=0)
    forced = {token for response in fast for token in response[2:3]}
    stopped = sample_responses(student, prompts, 6, frozenset(forced), temperature=0)
    assert all(response[-1] in forced and not forced & set(response[:-1]) for response in stopped)


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
@example(7424)  # two rewards that are nearly the same
def test_advantages_have_mean_zero_and_forget_the_level(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(5, 4, generator=generator).double()
    weights = (torch.rand(5, 4, generator=generator) > 0.3).float()
    advantages = group_advantages(rewards, weights)
    moved = group_advantages(rewards + torch.randn(5, 1, generator=generator), weights)
    assert (advantages[weights == 0] == 0).all()
    for row in range(5):
        used = weights[row] > 0
        if used.sum() > 1:
            assert advantages[row][used].sum().abs() < 1e-4
            spread = rewards[row][used].std().item()
            assert advantages[row][used].std().item() == pytest.approx(spread / (spread + 1e-6))
            torch.testing.assert_close(moved[row], advantages[row], atol=1e-4, rtol=1e-3)
        elif used.sum() == 1:
            torch.testing.assert_close(advantages[row][used], rewards[row][used], atol=1e-5, rtol=1e-5)


def test_kl_estimate_is_zero_for_equals_and_never_negative() -> None:
    log_probs = torch.randn(100)
    assert (low_variance_kl(log_probs, log_probs) == 0).all()
    assert (low_variance_kl(log_probs, torch.randn(100)) >= 0).all()


# ---- the command


def command(tiny_folder: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--student", str(tiny_folder / "model"), "--data", str(tiny_folder / "train.parquet")),
        *("--output", str(output), "--total-steps", "3", "--warmup-steps", "2", "--discriminator-only-steps", "1"),
        *("--max-response-length", "6", "--n", "2", "--batch-size", "4", *more),
    ]


def test_command_trains_and_saves(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from gad_verl.record import read_run, read_scores

    output = tmp_path / "run"
    more = ("--actor-lr", "1e-3", "--held-out-fraction", "0.5", "--no-reset-optimizer-at-switch", "--micro-batch", "4")
    assert gad_command.main(command(tiny_folder, output, *more)) == 0
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["data"]["gad/stage"] for line in lines] == [0.0, 1.0, 2.0]
    trained = AutoModelForCausalLM.from_pretrained(output / "student")
    start = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    assert not same(state(trained), state(start))
    assert (output / "discriminator" / "config.json").is_file()
    assert [line["phase"] for line in read_scores(output)] == ["discriminator_only", "warmup", "adversarial"]
    run = read_run(output)
    assert run["finished"] and run["config"]["held_out_fraction"] == 0.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data", "nowhere.parquet"), "nowhere.parquet"),
        (("--student", "no-such-folder"), "no-such-folder"),
        (("--teacher-key", "answer"), "--teacher-key"),
        (("--batch-size", "1000"), "48 rows do not fill a batch of 1000"),
        (("--otherwise", "wait"), "hold, supervised"),
        (("--warmup-steps", "3"), "no adversarial step"),
        (("--temperature", "0"), "temperature must be positive"),
    ],
)
def test_command_says_what_is_wrong(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "run"
    assert gad_command.main(command(tiny_folder, output, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gad_command: ") and message in error
    assert not output.exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path, name: str) -> None:
    """The answers of a set of sums, in a file from which pandas would read numbers, or dates."""

    class Builder:
        def prompt(self, messages: list[dict[str, str]]) -> list[int]:
            return [*map(ord, messages[0]["content"])]

        def response(self, text: str, ends: bool) -> EncodedResponse:
            return EncodedResponse([*map(ord, text)], ends, not ends)

    texts = ["007", "42", "1.50", "2024"]
    rows = [{"prompt": [{"role": "user", "content": "sum"}], "date": text} for text in texts]
    content = json.dumps(rows) if name.endswith(".json") else "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / name).write_text(content, encoding="utf-8")
    examples = gad_command.load_examples(str(tmp_path / name), Builder(), "prompt", "date")
    assert ["".join(map(chr, one.teachers[0].token_ids)) for one in examples] == texts


def test_command_keeps_an_old_run(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gad_command.main(command(tiny_folder, tmp_path)) == 2
    assert "exists" in capsys.readouterr().err


def test_needs_neither_verl_nor_ray() -> None:
    code = "import sys, gad_command; print(sorted({m.split('.')[0] for m in sys.modules} & {'verl', 'ray'}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "examples", timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr
