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
"""A loss of the user in the place of the shipped ones: same sums, same gradients, clear errors."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gad_verl.config import DiscriminatorLossConfig, load_gad_config
from gad_verl.core import PairLossOptions, discriminator_pair_loss, pair_weights
from gad_verl.discriminator.groups import GroupLayout
from gad_verl.discriminator.loss import LossOptions, group_loss, group_score_gradients
from gad_verl.errors import GadConfigError

LOSSES = """
import torch
import torch.nn.functional as F

NUMBER = 3


def bradley_terry(teacher, student):
    return -F.logsigmoid(teacher - student)


def hinge(teacher, student):
    return torch.relu(1 - (teacher - student))


def too_short(teacher, student):
    return (teacher - student).mean(-1)


def broken(teacher, student):
    raise RuntimeError("not today")


def infinite(teacher, student):
    return torch.log(teacher - student)


def constant(teacher, student):
    return torch.zeros_like(teacher)
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("custom") / "losses.py"
    path.write_text(LOSSES, encoding="utf-8")
    return path


def batch(seed: int, groups: int = 4, teachers: int = 2, students: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and weights of all rows of some groups; one response of each side failed."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(groups * (teachers + students), generator=generator)
    weights = torch.ones(groups, teachers + students)
    weights[0, teachers] = 0
    weights[1] = 0
    return scores, weights.flatten()


LAYOUT = GroupLayout(2, 3)


@pytest.mark.parametrize("num_pairs", [None, 17.0])
def test_the_shipped_loss_written_by_the_user_is_the_shipped_loss(losses: Path, num_pairs: float | None) -> None:
    scores, weights = batch(0)
    custom = LossOptions(custom=f"{losses}:bradley_terry")
    shipped, mine = (
        group_loss(scores.clone().requires_grad_(), weights, LAYOUT, num_pairs, 0.0, options)
        for options in (LossOptions(), custom)
    )
    assert torch.allclose(shipped, mine, atol=1e-6)
    gradients = [group_score_gradients(scores, weights, LAYOUT, 0.0, options) for options in (LossOptions(), custom)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_another_loss_has_its_own_gradient_in_the_simple_layout_too(losses: Path) -> None:
    scores, layout = torch.tensor([0.5, 0.0, 2.0, -3.0]), GroupLayout(1, 3)
    gradient = group_score_gradients(scores, torch.ones(4), layout, 0.0, LossOptions(custom=f"{losses}:hinge"))
    # Margins 0.5, -1.5, 3.5: the first two are below 1.
    assert torch.allclose(gradient, torch.tensor([-2.0, 1.0, 1.0, 0.0]) / 3)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 3))
def test_parts_of_a_batch_add_up(seed: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(4, 2, generator=generator), torch.randn(4, 3, generator=generator)
    weights = torch.rand(4, 2, 3, generator=generator) * (torch.rand(4, 2, 3, generator=generator) > 0.3)
    total = float(weights.sum())

    def squared(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other - 1).square()

    whole = discriminator_pair_loss(teacher, student, weights, None, squared)
    parts = [
        discriminator_pair_loss(teacher[rows], student[rows], weights[rows], total, squared)
        for rows in (slice(None, cut), slice(cut, None))
    ]
    assert torch.allclose(sum(parts), whole, atol=1e-5)


def test_removed_pairs_touch_nothing() -> None:
    teacher, student = torch.tensor([[1.0], [float("nan")]], requires_grad=True), torch.tensor([[0.0], [1.0]])
    weights = pair_weights(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1))
    loss = discriminator_pair_loss(teacher, student, weights, None, lambda one, other: (one - other).square())
    loss.backward()
    assert loss.item() == 1.0 and teacher.grad.tolist() == [[2.0], [0.0]]
    assert discriminator_pair_loss(teacher, student, weights * 0, None, lambda one, other: one - other).item() == 0.0


def test_the_configuration_takes_it(losses: Path) -> None:
    config = DiscriminatorLossConfig(custom=f"{losses}:hinge", gradient_penalty=0.1)
    config.validate()
    assert config.pair_options() == PairLossOptions()
    assert discriminator_pair_loss(torch.zeros(1), torch.zeros(1, 1)).item() == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "cannot be loaded: AttributeError"),
        ("NUMBER", "failed on a few scores: TypeError"),
        ("too_short", "of the shape of the scores"),
        ("broken", "RuntimeError: not today"),
        ("infinite", "nan or inf"),
        ("constant", "failed on a few scores"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run(losses: Path, name: str, message: str) -> None:
    with pytest.raises(GadConfigError, match=message) as raised:
        DiscriminatorLossConfig(custom=f"{losses}:{name}").validate()
    assert str(raised.value).startswith("gad.discriminator_loss.custom: ")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("losses.py:hinge", "must be absolute"),
        ("/nowhere/losses.py:hinge", "there is no file"),
        ("no_such_package_at_all:hinge", "ModuleNotFoundError"),
        ("hinge", "package.module:name"),
    ],
)
def test_where_it_is_must_be_right(where: str, message: str) -> None:
    with pytest.raises(GadConfigError, match=message):
        DiscriminatorLossConfig(custom=where).validate()


def test_it_replaces_the_other_options_of_the_pairs(losses: Path) -> None:
    with pytest.raises(GadConfigError, match="takes the place of"):
        DiscriminatorLossConfig(custom=f"{losses}:hinge", temperature=2.0).validate()


def test_a_module_by_its_name(losses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(losses.parent))
    DiscriminatorLossConfig(custom="losses:hinge").validate()


def test_the_old_key_is_refused_with_the_new_one() -> None:
    config = OmegaConf.create({"gad": {"discriminator_loss": {"own": "losses:hinge"}}})
    with pytest.raises(GadConfigError, match=r"gad\.discriminator_loss\.own is now gad\.discriminator_loss\.custom"):
        load_gad_config(config)
