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
"""Learning rates and optimizer state at the switch of stages, on a real optimizer and verl's schedules."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.utils.torch_functional import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

from gad_verl.workers.stage import advance_schedule, begin_stage, note_rates, reset_moments, resume_stage

WARMUP_STEPS, TOTAL_FIRST, TOTAL_SECOND = 3, 8, 12


class FakeEngine:
    """The parts of verl's FSDP engine that a stage touches."""

    def __init__(self, kind: str, total_steps: int, lr: float = 1e-3) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(
            [{"params": [self.model.weight]}, {"params": [self.model.bias], "weight_decay": 0.0}], lr=lr
        )
        self.optimizer_config = SimpleNamespace(total_training_steps=total_steps, kind=kind)
        self.lr_scheduler = self._build_lr_scheduler(self.optimizer)
        self.checkpoint_manager = SimpleNamespace(lr_scheduler=self.lr_scheduler)

    def _build_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        if self.optimizer_config.kind == "constant":
            return get_constant_schedule_with_warmup(optimizer=optimizer, num_warmup_steps=WARMUP_STEPS)
        return get_cosine_schedule_with_warmup(
            optimizer=optimizer,
            num_warmup_steps=WARMUP_STEPS,
            num_training_steps=self.optimizer_config.total_training_steps,
            min_lr_ratio=0.1,
        )

    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def train(self, steps: int) -> list[float]:
        """Train and return the learning rate of each step."""
        found = []
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.ones(1, 3)).square().sum().backward()
            rates = self.rates()
            assert rates[0] == rates[1]
            found.append(rates[0])
            self.optimizer.step()
            self.lr_scheduler.step()
        return found

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.lr_scheduler.state_dict(),
            }
        )

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])


def schedule(kind: str, lr: float, total: int, steps: int) -> list[float]:
    """The learning rates of verl's schedule, from its formula."""
    found = []
    for step in range(steps):
        if step < WARMUP_STEPS:
            factor = step / WARMUP_STEPS
        elif kind == "constant":
            factor = 1.0
        else:
            progress = (step - WARMUP_STEPS) / (total - WARMUP_STEPS)
            factor = max(0.1, 0.45 * math.cos(math.pi * progress) + 0.55)
        found.append(lr * factor)
    return found


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_stage_that_starts_anew(kind: str) -> None:
    engine = FakeEngine(kind, total_steps=999)
    begin_stage(engine, lr=0.2, total_steps=TOTAL_FIRST, restart_schedule=True)
    assert engine.train(TOTAL_FIRST) == pytest.approx(schedule(kind, 0.2, TOTAL_FIRST, TOTAL_FIRST))
    assert engine.optimizer.state
    begin_stage(engine, lr=0.05, total_steps=TOTAL_SECOND, restart_schedule=True)
    assert engine.optimizer.state
    reset_moments(engine)
    assert not engine.optimizer.state
    # Checkpoints hold the new schedule.
    assert engine.checkpoint_manager.lr_scheduler is engine.lr_scheduler
    assert engine.train(TOTAL_SECOND) == pytest.approx(schedule(kind, 0.05, TOTAL_SECOND, TOTAL_SECOND))


@pytest.mark.parametrize("kind", ["constant", "cosine"])
@pytest.mark.parametrize("contents", [("optimizer", "scheduler"), ("optimizer",), ("scheduler",), ()], ids=str)
def test_a_resumed_stage_has_its_rate_whatever_the_checkpoint_holds(kind: str, contents: tuple[str, ...]) -> None:
    """checkpoint.save_contents may leave the optimizer and the schedule out; those then begin at optim.lr."""
    whole = FakeEngine(kind, total_steps=999)
    begin_stage(whole, lr=0.2, total_steps=TOTAL_SECOND, restart_schedule=True)
    whole.train(5)
    resumed, state, own = FakeEngine(kind, total_steps=999), whole.checkpoint(), FakeEngine(kind, 999).checkpoint()
    resumed.load(own | {name: state[name] for name in contents})
    resume_stage(resumed, TOTAL_SECOND)
    begin_stage(resumed, lr=0.2, total_steps=TOTAL_SECOND, restart_schedule=False)
    position = 5 if "scheduler" in contents else 0
    assert resumed.train(6) == pytest.approx(schedule(kind, 0.2, TOTAL_SECOND, position + 6)[position:])


def test_reset_moments_make_a_new_optimizer() -> None:
    engine = FakeEngine("constant", 100)
    engine.train(6)
    fresh = FakeEngine("constant", 100)
    fresh.model.load_state_dict(engine.model.state_dict())
    for each in (engine, fresh):
        begin_stage(each, 0.01, 100, restart_schedule=True)
        reset_moments(each)
        each.train(6)
    torch.testing.assert_close(engine.model.state_dict(), fresh.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("reset", [True, False])
def test_the_first_step_after_the_switch(reset: bool) -> None:
    """Where the gradient is noise, a new Adam moves every weight by the whole rate; one that goes on by the root of
    (1 - b) / (1 + b) of it, b the memory of its mean."""
    engine = FakeEngine("constant", 100)
    engine.model = torch.nn.Linear(4000, 1, bias=False)
    engine.optimizer = torch.optim.AdamW(engine.model.parameters(), lr=1.0, weight_decay=0.0, betas=(0.9, 0.99))
    engine.lr_scheduler = engine._build_lr_scheduler(engine.optimizer)
    engine.optimizer.param_groups[0]["lr"] = 1.0
    weight, generator = engine.model.weight, torch.Generator().manual_seed(1)

    def step() -> torch.Tensor:
        weight.grad, before = torch.randn(weight.shape, generator=generator), weight.detach().clone()
        engine.optimizer.step()
        return weight.detach() - before

    for _ in range(400):
        step()
    begin_stage(engine, 1.0, 100, restart_schedule=False)
    if reset:
        reset_moments(engine)
    engine.optimizer.param_groups[0]["lr"] = 1.0
    moved = step()
    if reset:
        torch.testing.assert_close(moved.abs(), torch.ones_like(moved), atol=1e-3, rtol=0)
    else:
        assert moved.square().mean().sqrt().item() == pytest.approx((0.1 / 1.9) ** 0.5, rel=0.1)


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_stage_that_goes_on(kind: str) -> None:
    engine = FakeEngine(kind, total_steps=20, lr=1e-3)
    assert engine.train(5) == pytest.approx(schedule(kind, 1e-3, 20, 5))
    moments = copy.deepcopy(engine.optimizer.state_dict()["state"])
    begin_stage(engine, lr=4e-3, total_steps=20, restart_schedule=False)
    torch.testing.assert_close(engine.optimizer.state_dict()["state"], moments, rtol=0, atol=0)
    # The same position of the same schedule with the new peak.
    assert engine.train(15) == pytest.approx(schedule(kind, 4e-3, 20, 20)[5:])


def test_rate_zero_stands_still() -> None:
    engine = FakeEngine("constant", 100)
    engine.train(4)
    begin_stage(engine, lr=0.0, total_steps=100, restart_schedule=False)
    before = copy.deepcopy(engine.model.state_dict())
    assert engine.train(3) == [0.0] * 3
    torch.testing.assert_close(engine.model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["constant", "cosine"])
@pytest.mark.parametrize("position", [0, 1, 2, 5, TOTAL_SECOND - 1])
@pytest.mark.parametrize("reset", [True, False])
def test_resume_equals_an_uninterrupted_run(kind: str, position: int, reset: bool) -> None:
    """The calls of trainer/student_stages.py: with reset_optimizer_at_switch off, one schedule spans the run."""
    first = TOTAL_FIRST if reset else TOTAL_FIRST + TOTAL_SECOND
    second = TOTAL_SECOND if reset else TOTAL_FIRST + TOTAL_SECOND

    def until_the_second_stage() -> FakeEngine:
        engine = FakeEngine(kind, total_steps=TOTAL_FIRST + TOTAL_SECOND)
        begin_stage(engine, 0.2, first, restart_schedule=True)
        engine.train(TOTAL_FIRST)
        begin_stage(engine, 0.05, second, restart_schedule=reset)
        if reset:
            reset_moments(engine)
        return engine

    straight = until_the_second_stage()
    whole = straight.train(TOTAL_SECOND)
    interrupted = until_the_second_stage()
    interrupted.train(position)
    saved = interrupted.checkpoint()
    # A new process: its schedule has the horizon of the whole run until it is told better.
    resumed = FakeEngine(kind, total_steps=TOTAL_FIRST + TOTAL_SECOND)
    resumed.load(saved)
    resume_stage(resumed, second)
    assert resumed.checkpoint_manager.lr_scheduler is resumed.lr_scheduler
    assert resumed.train(TOTAL_SECOND - position) == pytest.approx(whole[position:])
    torch.testing.assert_close(resumed.model.state_dict(), straight.model.state_dict(), rtol=0, atol=0)


class FakeMegatronEngine:
    """The parts of verl's Megatron engine that a rate touches, with groups at multiples of the common rate."""

    def __init__(self, multiples: list[float], lr: float = 1e-3) -> None:
        self.optimizer = SimpleNamespace(param_groups=[{"max_lr": lr * one, "lr": 0.0} for one in multiples])
        self.optimizer_config = SimpleNamespace(total_training_steps=10)
        self.checkpoint_mananager = SimpleNamespace()
        self.lr_scheduler = self._build_lr_scheduler(lr)
        note_rates(self)

    def _build_lr_scheduler(self, lr: float = 1e-3) -> Any:
        return SimpleNamespace(max_lr=lr, num_steps=0, step=lambda _: None)

    def peaks(self) -> list[float]:
        return [group["max_lr"] for group in self.optimizer.param_groups]


@pytest.mark.parametrize("restart", [True, False])
def test_groups_of_megatron_keep_their_multiples_of_a_rate_that_was_zero(restart: bool) -> None:
    multiples = [1.0, 4.0, 0.25]
    engine = FakeMegatronEngine(multiples)
    for lr in (2e-3, 0.0, 1e-3, 0.0, 0.0, 5e-4):
        begin_stage(engine, lr, 10, restart_schedule=restart)
        assert engine.lr_scheduler.max_lr == lr
        assert engine.peaks() == pytest.approx([lr * one for one in multiples])
    # A checkpoint of a student that waited.
    resumed = FakeMegatronEngine(multiples)
    resumed.lr_scheduler.max_lr = 0.0
    for group in resumed.optimizer.param_groups:
        group["max_lr"] = 0.0
    resume_stage(resumed, 10)
    begin_stage(resumed, 3e-4, 10, restart_schedule=restart)
    assert resumed.peaks() == pytest.approx([3e-4 * one for one in multiples])


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_schedule_that_has_come_to_its_end_stays_there(kind: str) -> None:
    engine = FakeEngine(kind, total_steps=TOTAL_FIRST)
    engine.lr_scheduler_step = lambda: engine.lr_scheduler.step() or engine.lr_scheduler.get_last_lr()[0]
    rates = []
    for _ in range(3 * TOTAL_FIRST):
        rates.append(engine.rates()[0])
        engine.optimizer.step()
        assert advance_schedule(engine) == engine.rates()[0]
    expected = schedule(kind, 1e-3, TOTAL_FIRST, TOTAL_FIRST + 1)
    assert rates[: TOTAL_FIRST + 1] == pytest.approx(expected)
    assert rates[TOTAL_FIRST:] == [pytest.approx(expected[-1])] * (2 * TOTAL_FIRST)


def test_other_engines_are_refused() -> None:
    engine = SimpleNamespace(optimizer=None)
    with pytest.raises(NotImplementedError, match="SimpleNamespace"):
        begin_stage(engine, 1.0, 1, True)
    with pytest.raises(NotImplementedError, match="SimpleNamespace"):
        resume_stage(engine, 1)
