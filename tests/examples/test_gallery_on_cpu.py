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
"""The failure gallery: the guardian over the recorded streams, and the machinery of its runs."""

import random
from dataclasses import replace

import gallery
import pytest
import torch
from study_common import RESULTS, Row, Rows
from token_rows import sample_responses
from torch import Tensor, nn

from gad_verl.guardian.rules import RULES

FRESH_SEEDS = 5


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return Rows(RESULTS / "gallery.jsonl").all()


def fresh(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["arm"] == name and row["seed"] >= gallery.FIRST_SEED]


# ------------------------------ the recorded streams ------------------------------


def test_streams_are_whole_and_of_the_adversarial_stage(rows: list[Row]) -> None:
    for name in ["healthy", *gallery.SICK]:
        assert len({row["seed"] for row in fresh(rows, name)}) >= FRESH_SEEDS, name
    for row in rows:
        stream = row["stream"]
        assert {len(values) for values in stream.values()} == {gallery.ADVERSARIAL_STEPS}
        assert set(stream["gad/stage"]) == {2.0}
        assert {"disc/accuracy", "gad/self_bleu", "gad/length_ratio", "actor/kl_loss"} <= set(stream)
    assert (RESULTS / "gallery.jsonl").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", gallery.SICK)
def test_each_sickness_is_seen_by_its_rule(rows: list[Row], name: str) -> None:
    mine = fresh(rows, name)
    assert sum(gallery.detected(row) is not None for row in mine) >= len(mine) - 1


def test_healthy_runs_raise_no_alarm(rows: list[Row]) -> None:
    assert [gallery.verdict(row) for row in fresh(rows, "healthy")] == [[]] * len(fresh(rows, "healthy"))


def test_a_stream_cut_short_of_the_detection_is_not_detected(rows: list[Row]) -> None:
    for row in rows:
        step = gallery.detected(row)
        if step is not None:
            cut = {name: values[: step - 1] for name, values in row["stream"].items()}
            assert gallery.detected(row | {"stream": cut}) is None


def test_without_the_rule_s_own_metrics_nothing_is_detected(rows: list[Row]) -> None:
    """The verdict comes from the figures of the stream, not from the name of the arm."""
    for name in gallery.SICK:
        for row in fresh(rows, name):
            calm = fresh(rows, "healthy")[0]["stream"]
            assert gallery.detected(row | {"stream": calm}) is None


def test_rules_of_the_arms_exist() -> None:
    known = {rule.name for rule in RULES}
    assert all(set(arm.rules) <= known for arm in gallery.ARMS.values())
    assert {gallery.ARMS[name].cures for name in gallery.CURES} == set(gallery.SICK)


def test_preflight_sees_the_two_leaks_and_not_the_healthy_data(rows: list[Row]) -> None:
    for row in fresh(rows, "EOS leak"):
        assert row["preflight"]["features"][0] == "stopped by the length limit" and row["preflight"]["accuracy"] > 0.95
    for row in fresh(rows, "white space"):
        assert row["preflight"]["features"][0] == "ends with white space" and row["preflight"]["accuracy"] > 0.95
    for row in fresh(rows, "healthy"):
        assert row["preflight"]["accuracy"] < 0.8


# ------------------------------ the runs ------------------------------


def test_words_of_the_language() -> None:
    assert gallery.words("ab") == {"Hba": 0.5, "Mab": 0.3, "Eaabb": 0.2}
    assert gallery.is_valid("ab", "Hba Hba") and gallery.is_valid("ab", "Mab ") and gallery.is_valid("ab", "Eaabb")
    for text in ("", " ", "Hab", "Hba Mab", "Hba H", "ab"):
        assert not gallery.is_valid("ab", text)
    for row in gallery.teacher_rows(1, gallery.Written()):
        letters, text = gallery.decode(row.prompt_ids)[:-1], gallery.decode(row.teachers[0].token_ids)
        assert gallery.is_valid(letters, text) and row.teachers[0].finished


def test_what_the_arms_break_and_their_cures_mend() -> None:
    plain = gallery.teacher_rows(1, gallery.Written())
    leak, blank, cured = (
        gallery.teacher_rows(1, gallery.ARMS[name].written)
        for name in ("EOS leak", "white space", "white space, cured")
    )
    for one, without, spaced in zip(plain, leak, blank, strict=True):
        ids = one.teachers[0].token_ids
        assert without.teachers[0].token_ids == ids[:-1] and not without.teachers[0].finished
        assert gallery.decode(spaced.teachers[0].token_ids) == gallery.decode(ids) + " "
    assert cured == plain


def test_sampling_from_the_state_is_sampling_from_the_whole_text() -> None:
    torch.manual_seed(0)
    student = gallery.Student()

    class WithoutState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.student(input_ids, attention_mask)

    with torch.no_grad():
        # Words of an untrained student that differ and end: its logits are made steep, the end likelier.
        student.says.weight *= 8
        student.says.bias[gallery.EOS] += 1.0
    rng, end = random.Random(0), frozenset({gallery.EOS})
    prompts = [gallery.encode("".join(rng.sample(gallery.LETTERS, 2)) + ">") for _ in range(20)]
    # Greedy, the two must agree, and a cold sample is the greedy one.
    greedy = sample_responses(WithoutState(), prompts, 12, end, 0.0)
    assert len({len(ids) for ids in greedy}) > 1
    assert sample_responses(student, prompts, 12, end, 0.0) == greedy
    assert sample_responses(student, prompts, 12, end, 1e-6) == greedy


def test_a_short_run_of_each_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "TAUGHT", 2)
    monkeypatch.setattr(gallery, "MADE_TERSE", 1)
    monkeypatch.setattr(gallery, "DISCRIMINATOR_STEPS", 1)
    short = replace(gallery.BASE, total_steps=3, warmup_steps=1, discriminator_only_steps=1, batch_size=4, n=2)
    monkeypatch.setattr(gallery, "BASE", short)
    monkeypatch.setattr(gallery, "preflight", lambda *_: {"accuracy": 0.5, "features": []})
    gallery.taught.cache_clear()
    try:
        for name, arm in list(gallery.ARMS.items()):
            steps = ("total_steps", "warmup_steps", "discriminator_only_steps")
            settings = {key: value for key, value in arm.settings.items() if key not in steps}
            monkeypatch.setitem(gallery.ARMS, name, replace(arm, settings=settings))
            row = gallery.run(name, seed=7)
            assert row["first_step"] == 2 and row["stream"]["gad/stage"] == [2.0, 2.0]
            assert row["stream"]["gad/teacher_finished_rate"] == [float(arm.written.end)] * 2
            assert ("disc/grad_norm" in row["stream"]) != (name == "frozen D")
            assert gallery.verdict(row) == [] and gallery.detected(row) is None
    finally:
        gallery.taught.cache_clear()
