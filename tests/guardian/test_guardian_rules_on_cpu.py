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
"""Each rule on streams in closed form: what trips it, when, and what does not."""

import json
import math
import random
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from scipy.stats import binomtest
from streams import SICK, healthy, stream

from gad_verl.config import GuardianConfig
from gad_verl.guardian import Event, Guardian
from gad_verl.guardian.rules import RULES
from gad_verl.guardian.rules.stopping import wilson
from gad_verl.guardian.windows import Baseline, Debounce, Trace

NAMES = [rule.name for rule in RULES]
# Two conditions in one: where the accuracy is high, the other one speaks too, or may.
EARLY_STOPPING = {"indistinguishable", "no_improvement"}
EVERY_STAGE = {"nonfinite"}


def config(**changes: Any) -> GuardianConfig:
    """Default settings with a metric for the patience; dotted keys are written with two underscores."""
    made = GuardianConfig()
    made.no_improvement.metric = "val-gad/rouge_l"
    made.untrusted.steps = 15
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        setattr(getattr(made, section) if section else made, name, value)
    made.validate()
    return made


def observe(guardian: Guardian, rows: list[tuple[int, dict]]) -> list[Event]:
    return [event for step, metrics in rows for event in guardian.observe(step, metrics)]


def test_every_rule_has_a_section_and_a_sick_stream() -> None:
    assert set(NAMES) == set(GuardianConfig().rules()) == set(SICK) and len(set(NAMES)) == len(RULES)


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_run_is_left_alone(seed: int) -> None:
    guardian = Guardian(config())
    assert observe(guardian, stream(None, [], 400, seed)) == []
    assert guardian.tripped == [] and guardian.stop is None
    assert guardian.knobs == {
        "discriminator_lr_factor": 1.0,
        "actor_lr_factor": 1.0,
        "discriminator_steps": 1.0,
        "length_penalty": 0.0,
    }


@pytest.mark.parametrize("rule", NAMES)
def test_each_rule_sees_its_sickness_once_and_says_when_it_has_passed(rule: str) -> None:
    guardian = Guardian(config(nonfinite__policy="warn"))
    events = observe(guardian, stream(rule, range(41, 141), 240))
    assert {event.rule for event in events} == {rule}
    assert [event.action for event in events] == ["warn", "info"]
    # By default 15 of 20 steps; swings want a window and a quarter, patience five validations.
    delay = {"nonfinite": 3, "skipped": 2, "indistinguishable": 3, "no_improvement": 6, "oscillation": 25}
    delay = (delay | {"overfitted": 2}).get(rule, 15)
    assert events[0].step <= 40 + delay
    if rule not in ("oscillation", "no_improvement"):
        assert events[0].step == 40 + delay
    assert 141 <= events[1].step <= 180
    assert events[0].figures and all(math.isfinite(value) for value in events[0].figures.values())
    assert guardian.tripped == []
    # Armed again.
    again = observe(Guardian(config(nonfinite__policy="warn")), stream(rule, [*range(41, 141), *range(281, 381)], 480))
    assert [event.action for event in again] == ["warn", "info", "warn", "info"]
    assert again[:2] == events and again[2].step <= 280 + delay


@pytest.mark.parametrize("rule", sorted(set(NAMES) - EARLY_STOPPING - EVERY_STAGE))
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_only_the_adversarial_stage_is_judged(rule: str, stage: int) -> None:
    events = observe(Guardian(config()), stream(rule, range(1, 101), 100, stage=stage))
    seen = {event.rule for event in events}
    teaches_texts = rule == "overfitted" and stage in (1, 3)
    if teaches_texts or rule == "skipped" and stage != 3 or rule == "end_of_text" and stage == 1:
        assert seen == {rule}
    else:
        assert seen == set()


@pytest.mark.parametrize(("weight", "rises"), [(0.4, False), (0.5, False), (0.6, True), (None, False)])
def test_a_loss_on_texts_may_rise_where_scores_teach(weight: float | None, rises: bool) -> None:
    rows = [(step, metrics | {"gad/texts_weight": weight}) for step, metrics in stream("overfitted", range(9, 20), 20)]
    events = observe(Guardian(config()), rows)
    assert [event.rule for event in events] == (["overfitted"] if rises else [])
    if rises:
        assert "+0.100 +- 0.040 since the one before" in events[0].text and "gad.warmup_steps" in events[0].text


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_numbers_that_are_none_are_seen_in_every_stage(stage: int) -> None:
    guardian = Guardian(config())
    events = observe(guardian, stream("nonfinite", [5, 7, 9], 14, stage=stage))
    assert [(event.rule, event.action, event.step) for event in events] == [("nonfinite", "stop", 9)]
    assert guardian.stop is not None and not guardian.stop.save_checkpoint and guardian.stop.reason == events[0].text


@settings(max_examples=60, deadline=None)
@given(rule=st.sampled_from(NAMES), data=st.data())
def test_metrics_that_are_absent_never_trip_a_rule(rule: str, data: st.DataObject) -> None:
    """Without a metric that a rule reads it is silent, and no other rule speaks for it."""
    # The accuracy is only said beside the factor.
    used = sorted(set(SICK[rule](1)) - {"gad/trust_accuracy"})
    gone = data.draw(st.sampled_from(used), label="gone")
    values = data.draw(st.sampled_from(["absent", "none", "nan"]), label="how")
    rows = []
    for step, metrics in stream(rule, range(21, 101), 100):
        kept = {name: value for name, value in metrics.items() if name != gone}
        # Not a number is no reading either, except where that is what is looked for.
        replacement = {"absent": {}, "none": {gone: None}, "nan": {gone: math.nan}}[values]
        rows.append((step, kept | ({} if gone == "disc/loss" else replacement)))
    others = "warn" if rule == "nonfinite" else "off"
    assert observe(Guardian(config(nonfinite__policy=others)), rows) == []


def test_metrics_of_a_validation_alone_are_no_reading_of_the_step() -> None:
    """The trainer judges a step and its validation one after the other; a file has both in one line."""
    together, apart = Guardian(config()), Guardian(config())
    for step, metrics in stream("nonfinite", range(3, 40, 4), 60):
        expected = together.observe(step, metrics)
        validation = {name: value for name, value in metrics.items() if name.startswith("val-")}
        training = {name: value for name, value in metrics.items() if name not in validation}
        found = apart.observe(step, training) + apart.observe(step, validation | {"gad/stage": 2.0})
        assert found == expected
    assert apart.state_dict() == together.state_dict()


def test_without_a_stage_nothing_is_judged() -> None:
    rows = [(step, {"disc/accuracy": 1.0, "disc/saturated_fraction": 1.0}) for step in range(100)]
    assert observe(Guardian(config()), rows) == []
    assert observe(Guardian(config()), [(step, {}) for step in range(100)]) == []


LIMITS = [
    ("saturated", {"disc/accuracy": 0.9, "disc/saturated_fraction": 0.5}, {"disc/accuracy": 0.899}),
    ("saturated", {"disc/accuracy": 0.9, "disc/saturated_fraction": 0.5}, {"disc/saturated_fraction": 0.49}),
    ("weak", {"disc/accuracy": 0.599}, {"disc/accuracy": 0.6}),
    ("no_spread", {"disc/no_spread_fraction": 0.1}, {"disc/no_spread_fraction": 0.099}),
    ("score_length", {"gad/score_length_correlation": 0.8}, {"gad/score_length_correlation": 0.799}),
    ("repetition", {"gad/repetition": 0.2301}, {"gad/repetition": 0.2299}),
    ("collapse", {"gad/self_bleu": 0.9}, {"gad/self_bleu": 0.899}),
    ("kl", {"actor/kl_loss": 1.0}, {"actor/kl_loss": 0.999}),
    (
        "end_of_text",
        {"gad/student_finished_rate": 0.78, "disc/accuracy": 0.85},
        {"gad/student_finished_rate": 0.8},
    ),
    (
        "end_of_text",
        {"gad/student_finished_rate": 0.78, "disc/accuracy": 0.85},
        {"disc/accuracy": 0.849},
    ),
]


@pytest.mark.parametrize(("rule", "at", "short_of"), LIMITS)
def test_limits(rule: str, at: dict, short_of: dict) -> None:
    rng = random.Random(1)
    base = healthy(1, rng)
    only = config(policy="off", nonfinite__policy="off", **{f"{rule}__policy": "warn"})
    events = observe(Guardian(only), [(step, base | at) for step in range(1, 40)])
    assert [(event.rule, event.step) for event in events] == [(rule, 15)]
    assert observe(Guardian(only), [(step, base | at | short_of) for step in range(1, 200)]) == []


@pytest.mark.parametrize(
    ("rule", "metric", "before", "bad", "good"),
    [
        ("length", "gad/length_ratio", 1.0, 1.5, 1.49),
        # 1.25 times where it began.
        ("length", "gad/length_ratio", 1.4, 1.751, 1.749),
        # And the other way.
        ("length", "gad/length_ratio", 1.0, 0.5, 0.51),
        ("length", "gad/length_ratio", 0.5, 0.399, 0.401),
        ("entropy", "actor/entropy", 0.5, 0.099, 0.101),
        ("entropy", "actor/entropy", 0.5, 1.501, 1.499),
        ("collapse", "gad/distinct_2", 0.6, 0.299, 0.301),
    ],
)
def test_limits_against_the_beginning(rule: str, metric: str, before: float, bad: float, good: float) -> None:
    base = healthy(1, random.Random(2))
    for value, trips in ((bad, [25]), (good, [])):
        rows = [(step, base | {metric: before if step <= 10 else value}) for step in range(1, 101)]
        events = observe(Guardian(config()), rows)
        assert [event.step for event in events if event.rule == rule] == trips
        assert {event.rule for event in events} <= {rule}


def test_a_drift_of_the_accuracy_is_no_swing_and_neither_is_sampling() -> None:
    base = healthy(1, random.Random(3)) | {"disc/saturated_fraction": 0.0}
    drift = [(step, base | {"disc/accuracy": 0.95 - 0.3 * step / 40}) for step in range(1, 41)]
    assert observe(Guardian(config()), drift) == []
    # Eight prompts whose pairs all agree: a deviation of 0.15 is what sampling gives, and 4 of 20 runs must not trip.
    rng = np.random.default_rng(0)
    rows = [(step, base | {"gad/prompts": 8.0, "disc/accuracy": rng.binomial(8, 0.75) / 8}) for step in range(1, 2001)]
    assert observe(Guardian(config()), rows) == []
    # Without the number of prompts nothing is said, as in files of older runs.
    unknown = {name: value for name, value in base.items() if name != "gad/prompts"}
    swings = [(step, {"disc/accuracy": 0.72 + 0.2 * (-1) ** step}) for step in range(1, 101)]
    assert observe(Guardian(config()), [(step, unknown | metrics) for step, metrics in swings]) == []
    # The same deviation with many prompts is one.
    rows = [(step, base | {"disc/accuracy": 0.72 + 0.2 * (-1) ** step}) for step in range(1, 101)]
    assert {event.rule for event in observe(Guardian(config()), rows)} == {"oscillation"}


def test_a_discriminator_that_never_learned_is_no_reason_to_stop() -> None:
    guardian = Guardian(config(indistinguishable__policy="stop", weak__policy="off", no_improvement__policy="off"))
    rows = [
        (step, metrics | {"val-gad/accuracy": 0.5, "val-gad/num_pairs": 1000.0})
        for step, metrics in stream(None, [], 100)
    ]
    assert observe(guardian, rows) == [] and guardian.stop is None


def _validations(*parts: tuple[int, float, float]) -> list[tuple[int, dict[str, float]]]:
    """Number of validations, stage and accuracy of each part of a run, one after the other."""
    rows: list[tuple[int, dict[str, float]]] = []
    for count, stage, accuracy in parts:
        for _ in range(count):
            metrics = {"gad/stage": stage, "val-gad/accuracy": accuracy, "val-gad/num_pairs": 479.0}
            rows.append((50 * (len(rows) + 1), metrics))
    return rows


@pytest.mark.parametrize("earlier", [0.0, 1.0])
@pytest.mark.parametrize(("once", "trips"), [(0.9, True), (0.66, True), (0.6, False)])
def test_the_sides_may_have_been_told_apart_before_the_adversarial_stage(
    earlier: float, once: float, trips: bool
) -> None:
    events = observe(Guardian(config()), _validations((14, earlier, once), (30, 2.0, 0.52)))
    expected = [("indistinguishable", 50 * (14 + 3))] if trips else []
    assert [(event.rule, event.step) for event in events] == expected
    # Before the adversarial stage nothing is judged: the warmup brings the student near to the teacher.
    assert observe(Guardian(config()), _validations((3, earlier, once), (40, earlier, 0.52))) == []
    # A student that stays apart is left alone.
    assert observe(Guardian(config()), _validations((14, earlier, once), (30, 2.0, 0.7))) == []


def test_what_the_warmup_showed_is_remembered_over_a_resume() -> None:
    rows = _validations((4, 1.0, 0.9), (3, 2.0, 0.52))
    first, second = Guardian(config()), Guardian(config())
    assert observe(first, rows[:4]) == []
    second.load_state_dict(first.state_dict())
    assert [event.rule for event in observe(second, rows[4:])] == ["indistinguishable"]


@pytest.mark.parametrize(("known", "said"), [(0, "too few held-out prompts"), (5, "accuracy 0.52"), (15, "0.52")])
def test_a_factor_of_0_is_read_without_an_accuracy(known: int, said: str) -> None:
    """With fewer held-out prompts than ``gad.trust.least_prompts`` the run logs the factor alone."""
    rows: list[tuple[int, dict[str, float]]] = []
    for step in range(1, 41):
        accuracy = {"gad/trust_accuracy": 0.52} if 15 - known < step <= 15 else {}
        rows.append((step, {"gad/stage": 2.0, "gad/trust_factor": 0.0} | accuracy))
    (event,) = observe(Guardian(config()), rows)
    assert (event.rule, event.step) == ("untrusted", 15) and said in event.text
    assert event.figures == {"factor": 0.0} | ({"accuracy": pytest.approx(0.52)} if known else {})
    # One step in which it knew something is enough.
    rows[7][1]["gad/trust_factor"] = 0.1
    assert observe(Guardian(config()), rows[:22]) == []


@pytest.mark.parametrize(("metric", "direction"), [("val-gad/text_loss", "down"), ("val-gad/rouge_l", "down")])
def test_the_best_of_another_metric_is_none_to_beat(metric: str, direction: str) -> None:
    """A run is resumed with another metric, or another direction: what was the best is no figure of it."""
    of_run = {"gad/stage": 2.0, "val-gad/rouge_l": 0.4, "val-gad/text_loss": 2.0}
    before, same = Guardian(config()), Guardian(config())
    after = Guardian(config(no_improvement__metric=metric, no_improvement__direction=direction))
    assert observe(before, [(step, of_run) for step in range(1, 5)]) == []
    for guardian in (after, same):
        guardian.load_state_dict(json.loads(json.dumps(before.state_dict())))
    falling = [(step, of_run | {metric: of_run[metric] - 0.01 * step}) for step in range(5, 15)]
    assert observe(after, falling) == []
    assert [event.step for event in observe(same, [(step, of_run) for step in range(5, 15)])] == [6]


@pytest.mark.parametrize("rule", ["untrusted", "overfitted"])
def test_what_a_silent_rule_saw_is_true(rule: str) -> None:
    """Of a healthy run a page shows the same words as of a sick one."""
    guardian = Guardian(config())
    assert observe(guardian, stream(None, [], 400)) == []
    (standing,) = [standing for standing in guardian.standings() if standing.rule == rule]
    words = standing.seen.partition("; this held")[0]
    assert standing.can_tell and "could not" not in words and "rose" not in words, words


@pytest.mark.parametrize(("pairs", "stops"), [(50.0, False), (400.0, True)])
def test_few_held_out_pairs_prove_nothing(pairs: float, stops: bool) -> None:
    guardian = Guardian(config(indistinguishable__policy="stop", no_improvement__policy="off"))
    rows = stream("indistinguishable", range(50, 101), 100)
    events = observe(guardian, [(step, metrics | {"val-gad/num_pairs": pairs}) for step, metrics in rows])
    assert [event.action for event in events] == (["stop"] if stops else [])
    assert (guardian.stop is not None) == stops


@settings(deadline=None)
@given(best=st.integers(1, 40), patience=st.integers(1, 10), direction=st.sampled_from(["up", "down"]))
def test_patience(best: int, patience: int, direction: str) -> None:
    """A metric that rises until one validation and falls after it."""
    sign = 1 if direction == "up" else -1
    guardian = Guardian(
        config(no_improvement__policy="stop", no_improvement__patience=patience, no_improvement__direction=direction)
    )
    for number in range(1, 60):
        value = sign * (number if number <= best else best - 0.1 * number)
        guardian.observe(10 * number, {"gad/stage": 2.0, "val-gad/rouge_l": value})
        # Steps between two validations say nothing.
        guardian.observe(10 * number + 5, {"gad/stage": 2.0})
        assert (guardian.stop is not None) == (number >= best + patience)
    assert guardian.stop is not None and guardian.stop.step == 10 * (best + patience) and guardian.stop.save_checkpoint


def test_an_improvement_must_exceed_delta() -> None:
    guardian = Guardian(config(no_improvement__policy="stop", no_improvement__delta=0.5))
    for number in range(12):
        guardian.observe(number, {"gad/stage": 2.0, "val-gad/rouge_l": 0.1 * number})
    # 0, then 0.6 is better by more than 0.5, then 1.1 is not; six validations to 0.6, five and more after it.
    assert guardian.stop is not None and guardian.stop.step == 5


# ------------------------------ windows ------------------------------


@settings(deadline=None)
@given(held=st.lists(st.booleans(), max_size=120), window=st.integers(1, 25), data=st.data())
def test_debounce(held: list[bool], window: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, window))
    debounce = Debounce(window, count)
    before = False
    for place, one in enumerate(held):
        changed = debounce.add(one)
        recent = held[max(0, place + 1 - window) : place + 1]
        if sum(recent) >= count:
            expected = True
        elif len(recent) == window and sum(recent) <= count // 3:
            expected = False
        else:
            expected = before
        assert debounce.tripped == expected and changed == (expected != before)
        before = expected


@settings(deadline=None)
@given(values=st.lists(st.floats(-10, 10), min_size=3, max_size=40))
def test_deviation_about_a_line(values: list[float]) -> None:
    trace = Trace(len(values))
    for value in values:
        trace.add(value)
    places = np.arange(len(values))
    rest = np.array(values) - np.polyval(np.polyfit(places, values, 1), places)
    assert trace.deviation_from_line() == pytest.approx((rest**2).sum() ** 0.5 / (len(values) - 2) ** 0.5, abs=1e-6)


@settings(deadline=None)
@given(values=st.lists(st.floats(-10, 10), max_size=20), size=st.integers(1, 10))
def test_baseline(values: list[float], size: int) -> None:
    baseline = Baseline(size)
    known = [baseline.add(value) for value in values]
    assert known[:size] == [None] * len(known[:size])
    assert known[size:] == [sum(values[:size]) / size] * len(known[size:])


@settings(deadline=None)
@given(count=st.integers(1, 2000), data=st.data())
def test_interval_of_a_share(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


# ------------------------------ texts, imports ------------------------------


@pytest.fixture(scope="module")
def composed(compose_config: Any) -> DictConfig:
    return compose_config("gad_trainer")


@pytest.mark.parametrize("rule", NAMES)
def test_the_text_has_the_figures_and_a_remedy_with_keys_that_exist(rule: str, composed: DictConfig) -> None:
    events = observe(Guardian(config()), stream(rule, range(41, 141), 140))
    text = events[0].text
    assert text.startswith(f"{rule}: ") and text.endswith(".") and re.search(r"\d\.\d", text)
    assert len(text.split(". ")) >= 2 and "\n" not in text
    keys = re.findall(
        r"(?<![\w./-])((?:gad|discriminator|actor_rollout_ref|data|trainer)\.[a-z_]+(?:\.[a-z_]+)*)", text
    )
    for key in keys:
        parent, name = key.rsplit(".", 1)
        assert name in OmegaConf.select(composed, parent), key
    line = events[0].as_dict()
    assert list(line) == ["step", "source", "rule", "action", "text", "figures"] and line["source"] == "guardian"


def test_the_guardian_needs_neither_torch_nor_verl_nor_ray() -> None:
    code = """
import sys
for name in ("torch", "verl", "ray", "hydra", "omegaconf", "transformers", "numpy"):
    sys.modules[name] = None  # importing it raises ImportError
import gad_verl.guardian
print(len(gad_verl.guardian.guardian.RULES))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str(len(RULES)), result.stderr
