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
"""The one file against verl's real workers: same weights, batch and rollouts, so same losses and gradients (1e-5)."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gad_command import load_models
from gad_in_one_file import Example, Gad, Group, Settings
from tiny_model import build_model
from trainer_side_probe import (
    HEAD_SEED,
    KL_COEFFICIENT,
    MAX_PROMPT,
    MAX_RESPONSE,
    MIXED,
    NUM_STUDENTS,
    TEMPERATURE,
    make_texts,
    rollout_groups,
)
from transformers import AutoModelForCausalLM

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.trainer.encoding import Encoding

TOLERANCE = 1e-5


class RecordingGad(Gad):
    """Keeps each gradient instead of stepping."""

    def _optimizer_step(self, module: Any, optimizer: Any, name: str) -> dict[str, float]:
        self.gradient = {key: parameter.grad.clone() for key, parameter in module.named_parameters()}
        module.zero_grad()
        norm = torch.stack([value.norm() for value in self.gradient.values()]).norm()
        return {f"{name}/grad_norm": norm.item()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student, and another one as the reference: their KL is far from 0."""
    root = tmp_path_factory.mktemp("equal")
    return build_model(root / "student", seed=0), build_model(root / "reference", seed=1)


@pytest.fixture(scope="module")
def trainer_side(folders: tuple[Path, Path]) -> dict[str, Any]:
    output = folders[0].parent / "trainer.pt"
    script = Path(__file__).parent / "trainer_side_probe.py"
    command = [sys.executable, str(script), str(folders[0]), str(folders[1]), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(output, weights_only=False)


@pytest.fixture(scope="module", params=[256, 4], ids=["one_pass", "micro_batches"])
def one_file(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> tuple[RecordingGad, list[Group]]:
    """The trainer's batch as the one file holds it."""
    student, discriminator, tokenizer, stop_ids = load_models(str(folders[0]), None, HEAD_SEED)
    builder = SequenceBuilder(tokenizer, MAX_PROMPT, MAX_RESPONSE, stop_ids)
    groups, examples = [], []
    for index, row in enumerate(make_texts(builder.eos_token_id)):
        prompt, teacher = builder.prompt(row["messages"]), builder.response(row["teacher"])
        students = [None if ids is None else builder.student_response(ids) for ids in row["sampled"]]
        groups.append(Group(prompt, teacher, row["sampled"], students))
        examples.append(Example(index, prompt, [teacher]))
    settings = Settings(
        batch_size=len(examples),
        n=NUM_STUDENTS,
        temperature=TEMPERATURE,
        kl_loss_coef=KL_COEFFICIENT,
        micro_batch=request.param,
    )
    gad = RecordingGad(student, discriminator, examples, settings, stop_ids, builder.student_response)
    gad.reference = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32).eval()
    return gad, groups


def assert_same_gradient(ours: dict[str, torch.Tensor], verl: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == verl.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, verl[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    # Far from 0: an empty gradient would agree with another empty one.
    assert max(gradient.abs().max().item() for gradient in ours.values()) > 100 * TOLERANCE


def test_the_batch_has_the_odd_cases(one_file: tuple[RecordingGad, list[Group]]) -> None:
    _, groups = one_file
    students = [student for group in groups for student in group.students]
    assert students.count(None) == 3
    assert any(student and student.cut for student in students)
    assert any(group.teacher.cut for group in groups)
    reread = [
        student.token_ids != ids
        for group in groups
        for student, ids in zip(group.students, group.sampled, strict=True)
        if student is not None
    ]
    assert any(reread)


def test_groups_are_encoded_alike(one_file: tuple[RecordingGad, list[Group]]) -> None:
    gad, groups = one_file
    builder = gad.reread.__self__
    encodings = Encoding(builder, builder).encode(rollout_groups(builder))
    for encoded, group in zip(encodings, groups, strict=True):
        assert (encoded.prompt_ids, encoded.teacher, list(encoded.students)) == (
            group.prompt_ids,
            group.teacher,
            group.students,
        )
        assert [row if row else [0] for row in encoded.sequences().rows()] == group.rows()


def test_discriminator_and_student_equal_those_of_verl(
    one_file: tuple[RecordingGad, list[Group]], trainer_side: dict[str, Any]
) -> None:
    gad, groups = one_file
    metrics: dict[str, float] = {}

    expected = trainer_side["discriminator"]
    scores, weights = gad.update_discriminator(groups, metrics)
    assert metrics["disc/loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    assert metrics["disc/grad_norm"] == pytest.approx(expected["grad_norm"], rel=TOLERANCE)
    students = expected["scores"].view(len(groups), -1)[:, 1:]
    torch.testing.assert_close(scores[weights > 0], students[weights > 0], rtol=TOLERANCE, atol=TOLERANCE)
    assert_same_gradient(gad.gradient, expected["gradient"])

    expected = trainer_side["policy"]
    advantages = gad.advantages(scores, weights, metrics)
    torch.testing.assert_close(advantages, expected["advantages"], rtol=TOLERANCE, atol=TOLERANCE)
    assert advantages.abs().max() > 0.5
    gad.update_student(groups, advantages, metrics)
    assert metrics["actor/loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    assert metrics["actor/grad_norm"] == pytest.approx(expected["grad_norm"], rel=TOLERANCE)
    # The KL is part of the gradient: without it, the two losses would differ by this much.
    assert KL_COEFFICIENT * metrics["actor/kl_loss"] > 100 * TOLERANCE
    assert_same_gradient(gad.gradient, expected["gradient"])


def test_the_objective_between_gad_and_seqkd_equals_that_of_verl(
    one_file: tuple[RecordingGad, list[Group]], trainer_side: dict[str, Any]
) -> None:
    gad, groups = one_file
    plain, expected = gad.settings, trainer_side["policy"]["mixed"]
    gad.settings = replace(plain, otherwise="supervised", supervised_weight=MIXED[1])
    gad.knowledge = MIXED[0]
    try:
        metrics: dict[str, float] = {}
        gad.update_student(groups, trainer_side["policy"]["advantages"], metrics)
    finally:
        gad.settings, gad.knowledge = plain, 1.0
    assert metrics["actor/loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    assert metrics["actor/text_loss"] == pytest.approx(expected["text_loss"], abs=TOLERANCE)
    assert_same_gradient(gad.gradient, expected["gradient"])


def test_warmup_equals_verl(one_file: tuple[RecordingGad, list[Group]], trainer_side: dict[str, Any]) -> None:
    gad, groups = one_file
    metrics: dict[str, float] = {}
    gad.update_supervised([(group.prompt_ids, group.teacher.token_ids) for group in groups], metrics)
    assert metrics["actor/loss"] == pytest.approx(trainer_side["supervised"]["loss"], abs=TOLERANCE)
    assert_same_gradient(gad.gradient, trainer_side["supervised"]["gradient"])
