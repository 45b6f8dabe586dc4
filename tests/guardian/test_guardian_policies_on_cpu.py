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
"""Policies, knobs, and that a guardian that is saved goes on as if it had never stopped."""

import json
import random
from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from streams import SICK, healthy, stream

from gad_verl.config import GuardianConfig, load_gad_config
from gad_verl.errors import GadConfigError
from gad_verl.guardian import NEUTRAL_KNOBS, Event, Guardian
from gad_verl.guardian.knobs import knob_value
from gad_verl.guardian.rules import RULES
from gad_verl.guardian.settings import POLICIES, Section, limited

KNOBS = {rule.name: rule.knob for rule in RULES}


def loaded(settings_of: dict[str, Any]) -> GuardianConfig:
    return load_gad_config(OmegaConf.create({"gad": {"guardian": settings_of}})).guardian


def observe(guardian: Guardian, rows: list[tuple[int, dict]]) -> list[Event]:
    return [event for step, metrics in rows for event in guardian.observe(step, metrics)]


# ------------------------------ adapt ------------------------------


def test_a_knob_is_turned_window_by_window_to_its_limit_and_back() -> None:
    config = loaded({"policy": "off", "saturated": {"policy": "adapt"}})
    guardian = Guardian(config)
    rows = stream("saturated", range(1, 101), 300)
    values = []
    for step, metrics in rows:
        guardian.observe(step, metrics)
        values.append(guardian.knobs["discriminator_lr_factor"])
    # Trips at 15; one level for every further window of 20: 35, 55, 75 (the limit, 0.1).
    assert values[13:15] == [1.0, 0.5] and values[33:35] == [0.5, 0.25] and values[53:55] == [0.25, 0.125]
    assert values[73:75] == [0.125, 0.1] and values[99] == 0.1 and min(values) == 0.1
    # Passed where at most 5 of 20 are bad: step 115; back a level a window since the last turn (94).
    turned = [step for step, (before, after) in enumerate(zip(values, values[1:], strict=False), 2) if after > before]
    assert turned == [115, 135, 155, 175] and values[-1] == 1.0


@pytest.mark.parametrize(("correlation", "helps"), [(0.9, True), (-0.9, False)])
def test_a_price_of_length_is_set_only_where_long_responses_score_higher(correlation: float, helps: bool) -> None:
    guardian = Guardian(loaded({"policy": "off", "score_length": {"policy": "adapt"}}))
    rows = [(step, {**metrics, "gad/score_length_correlation": correlation}) for step, metrics in stream(None, [], 60)]
    events = observe(guardian, rows)
    assert [event.action for event in events][:1] == ["warn"]
    assert (guardian.knobs["length_penalty"] > 0) == helps


def test_events_of_a_knob_name_it_with_both_values() -> None:
    guardian = Guardian(loaded({"saturated": {"policy": "adapt"}}))
    events = [event for event in observe(guardian, stream("saturated", range(1, 101), 300)) if event.action == "adapt"]
    assert [(event.figures["knob_before"], event.figures["knob"]) for event in events] == [
        (1.0, 0.5),
        (0.5, 0.25),
        (0.25, 0.125),
        (0.125, 0.1),
        (0.1, 0.125),
        (0.125, 0.25),
        (0.25, 0.5),
        (0.5, 1.0),
    ]
    assert all("discriminator_lr_factor" in event.text for event in events)
    assert "from 1 to 0.5" in events[0].text and "stands" in events[0].text and "passed" in events[-1].text


def test_a_relapse_waits_longer_on_the_way_back() -> None:
    guardian = Guardian(loaded({"policy": "off", "saturated": {"policy": "adapt"}}))
    # Three short bouts, each turns the knob once.
    bouts = [*range(1, 17), *range(101, 117), *range(301, 317)]
    lengths, since = [], None
    for step, metrics in stream("saturated", bouts, 600):
        guardian.observe(step, metrics)
        turned = guardian.knobs["discriminator_lr_factor"] < 1
        if turned and since is None:
            since = step
        if not turned and since is not None:
            lengths.append(step - since)
            since = None
    assert lengths == [20, 40, 80]


def test_the_knob_furthest_from_neutral_holds() -> None:
    guardian = Guardian(loaded({"policy": "adapt", "nonfinite": {"policy": "off"}}))
    rng = random.Random(0)
    for step in range(1, 61):
        sick = SICK["kl"](step) | (SICK["repetition"](step) if step > 40 else {})
        guardian.observe(step, healthy(step, rng) | sick)
    # kl has turned three times (15, 35, 55), repetition once (55).
    assert guardian.knobs["actor_lr_factor"] == 0.125
    assert guardian.metrics() == {"guardian/tripped_rules": 2.0} | {
        f"guardian/{name}": value for name, value in guardian.knobs.items()
    }


@pytest.mark.parametrize("rule", [name for name, knob in KNOBS.items() if knob is None])
def test_where_nothing_can_be_turned_adapt_warns(rule: str) -> None:
    guardian = Guardian(
        loaded({"policy": "off", rule: {"policy": "adapt"} | ({"metric": "val-gad/rouge_l"} if "no_i" in rule else {})})
    )
    events = observe(guardian, stream(rule, range(41, 141), 140))
    assert [event.action for event in events] == ["warn"] and guardian.knobs == NEUTRAL_KNOBS


@given(level=st.integers(0, 60), name=st.sampled_from(sorted(NEUTRAL_KNOBS)))
def test_knobs_stay_between_neutral_and_limit_and_go_one_way(level: int, name: str) -> None:
    limits = GuardianConfig().limits
    value, next_value = knob_value(name, level, limits), knob_value(name, level + 1, limits)
    neutral, limit = NEUTRAL_KNOBS[name], getattr(limits, name)
    assert min(neutral, limit) <= value <= max(neutral, limit)
    assert abs(next_value - neutral) >= abs(value - neutral)
    assert knob_value(name, 0, limits) == neutral and knob_value(name, 60, limits) == limit


def test_each_knob_has_a_limit_and_a_limit_at_neutral_holds_it() -> None:
    assert {entry.name for entry in fields(GuardianConfig().limits)} == set(NEUTRAL_KNOBS)
    guardian = Guardian(loaded({"policy": "adapt", "limits": {"discriminator_lr_factor": 1.0}}))
    events = observe(guardian, stream("saturated", range(1, 101), 100))
    assert guardian.knobs == NEUTRAL_KNOBS and [event.action for event in events] == ["warn"]


# ------------------------------ stop, off ------------------------------


def test_stop_says_why_once_and_keeps_to_it() -> None:
    guardian = Guardian(loaded({"length": {"policy": "stop"}}))
    events = observe(guardian, stream("length", range(41, 141), 140))
    assert [event.action for event in events] == ["stop"]
    stop = guardian.stop
    assert stop is not None and stop.rule == "length" and stop.step == 55 and stop.save_checkpoint
    assert stop.reason == events[0].text
    # Started again, the run stops again, until the policy is changed.
    state = json.loads(json.dumps(guardian.state_dict()))
    same, other = Guardian(loaded({"length": {"policy": "stop"}})), Guardian(loaded({}))
    same.load_state_dict(state)
    other.load_state_dict(state)
    assert same.stop == stop and other.stop is None
    # The condition stands and has been told: no second word.
    assert observe(other, stream("length", range(1, 50), 49)) == []


@pytest.mark.parametrize(
    "settings_of", [{"enable": False}, {"policy": "off", "nonfinite": {"policy": "off"}}, {"policy": False}]
)
def test_off(settings_of: dict) -> None:
    config = loaded(settings_of)
    guardian = Guardian(config)
    rng = random.Random(0)
    rows = [(step, healthy(step, rng) | SICK["saturated"](step) | SICK["length"](step)) for step in range(1, 60)]
    assert observe(guardian, rows) == [] and guardian.knobs == NEUTRAL_KNOBS and guardian.tripped == []


# ------------------------------ saved and loaded ------------------------------


@st.composite
def troubled(draw: st.DrawFn) -> list[tuple[int, dict]]:
    """A stream with any sicknesses at any times, stages that change, and metrics that are missing."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    steps = draw(st.integers(1, 160))
    switch = draw(st.integers(0, 40))
    bouts = draw(
        st.lists(st.tuples(st.sampled_from(sorted(SICK)), st.integers(1, 160), st.integers(1, 80)), max_size=6)
    )
    rows = []
    for step in range(1, steps + 1):
        metrics = healthy(step, rng, stage=1 if step <= switch else 2)
        for rule, first, length in bouts:
            if first <= step < first + length:
                metrics |= SICK[rule](step)
        for name in [name for name in metrics if rng.random() < 0.02]:
            del metrics[name]
        rows.append((step, metrics))
    return rows


@settings(max_examples=40, deadline=None)
@given(rows=troubled(), data=st.data(), policy=st.sampled_from(["warn", "adapt", "stop"]))
def test_cut_anywhere_it_goes_on_as_if_never_stopped(rows: list, data: st.DataObject, policy: str) -> None:
    config = loaded(
        {"policy": policy, "window": 8, "count": 5, "baseline": 4, "no_improvement": {"metric": "val-gad/rouge_l"}}
    )
    cut = data.draw(st.integers(0, len(rows)), label="cut")
    whole, first, second = Guardian(config), Guardian(config), Guardian(config)
    before, after = observe(whole, rows[:cut]), None
    assert observe(first, rows[:cut]) == before
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert second.state_dict() == first.state_dict()
    for step, metrics in rows[cut:]:
        after = whole.observe(step, metrics)
        assert second.observe(step, metrics) == after
        assert second.knobs == whole.knobs and second.stop == whole.stop and second.tripped == whole.tripped
    assert second.state_dict() == whole.state_dict()
    # Knobs are bounded, whatever comes.
    for name, value in whole.knobs.items():
        limit, neutral = getattr(config.limits, name), NEUTRAL_KNOBS[name]
        assert min(limit, neutral) <= value <= max(limit, neutral)


def test_settings_may_change_between_two_starts() -> None:
    old = Guardian(loaded({"policy": "adapt"}))
    observe(old, stream("saturated", range(1, 41), 40))
    assert old.knobs["discriminator_lr_factor"] == 0.25
    state = json.loads(json.dumps(old.state_dict()))
    # A rule less, a shorter window, another policy: the knobs go back to neutral where nothing may turn them.
    new = Guardian(loaded({"policy": "warn", "window": 5, "count": 4, "kl": {"policy": "off"}}))
    new.load_state_dict(state)
    assert new.knobs == NEUTRAL_KNOBS and new.tripped == ["saturated"]
    events = observe(new, stream(None, [], 30))
    assert [(event.rule, event.action) for event in events] == [("saturated", "info")]


@pytest.mark.parametrize("before", ["warn", "adapt", "stop"])
@pytest.mark.parametrize("goes_on", [True, False])
def test_what_had_only_warned_ends_the_run_that_is_resumed_to_stop_for_it(before: str, goes_on: bool) -> None:
    old = Guardian(loaded({"policy": before}))
    observe(old, stream("length", range(41, 141), 60))
    assert old.tripped == ["length"]
    new = Guardian(loaded({"policy": "stop"}))
    new.load_state_dict(json.loads(json.dumps(old.state_dict())))
    if before == "stop":
        assert new.stop == old.stop and observe(new, stream("length", range(1, 20), 19)) == []
        return
    assert new.stop is None
    events = observe(new, stream("length", range(1, 61) if goes_on else [], 60))
    # It stands until the window holds hardly anything bad.
    assert [(event.rule, event.action, event.step) for event in events][0] == ("length", "stop", 1)
    assert [event.action for event in events[1:]] == ([] if goes_on else ["info"])
    assert new.stop is not None and new.stop.step == 1


# ------------------------------ configuration ------------------------------


def test_by_default_everything_warns_and_only_broken_numbers_stop() -> None:
    config = GuardianConfig()
    assert {name: config.policy_of(name) for name in config.rules()} == {
        name: "stop" if name == "nonfinite" else "warn" for name in config.rules()
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rule_has_a_policy_of_its_own(policy: str) -> None:
    config = loaded({"policy": "warn", "kl": {"policy": policy}})
    assert config.policy_of("kl") == policy and config.policy_of("weak") == "warn"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy", "panic"),
        ("policy", "True"),
        ("kl.policy", "loud"),
        ("window", 1),
        ("count", 0),
        ("count", 21),
        ("baseline", 0),
        ("saturated.accuracy", 1.5),
        ("saturated.fraction", -0.1),
        ("weak.accuracy", float("nan")),
        ("oscillation.deviation", -1),
        ("length.highest", 0.9),
        ("length.lowest", 1.1),
        ("length.growth", 0.5),
        ("score_length.correlation", 2),
        ("repetition.excess", 1.01),
        ("collapse.self_bleu", 90),
        ("collapse.distinct_fall", -1),
        ("kl.highest", -0.1),
        ("entropy.fall", 1.5),
        ("entropy.rise", 0.5),
        ("nonfinite.window", 0),
        ("nonfinite.count", 11),
        ("skipped.count", 0),
        ("end_of_text.difference", 1.5),
        ("untrusted.steps", 0),
        ("indistinguishable.margin", 0.6),
        ("indistinguishable.validations", 0),
        ("indistinguishable.once_apart", 0.4),
        ("no_improvement.metric", ""),
        ("no_improvement.direction", "sideways"),
        ("no_improvement.patience", 0),
        ("no_improvement.delta", -1),
        ("limits.actor_lr_factor", 0),
        ("limits.discriminator_lr_factor", 1.5),
        ("limits.discriminator_steps", 0),
        ("limits.length_penalty", -0.1),
        ("limits.discriminator_every", 8),
        ("nonsense", 1),
        ("kl.nonsense", 1),
        ("weak.accuracy", "high"),
    ],
)
def test_bad_values_name_their_key(key: str, value: Any) -> None:
    section = OmegaConf.create({})
    OmegaConf.update(section, key, value, force_add=True)
    with pytest.raises(GadConfigError) as error:
        loaded(section)
    assert f"gad.guardian.{key}" in str(error.value) and "\n" not in str(error.value)


def test_every_number_of_every_section_has_a_range() -> None:
    config = GuardianConfig()
    for section in (config, *config.sections().values()):
        for entry in fields(section):
            value = getattr(section, entry.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert "range" in entry.metadata, f"{type(section).__name__}.{entry.name}"


@given(low=st.floats(-5, 5), width=st.floats(0, 5), value=st.floats(-20, 20))
def test_a_range_holds_its_ends_and_nothing_beyond(low: float, width: float, value: float) -> None:
    @dataclass
    class Some(Section):
        top: float = low + width
        one: float = limited(value, low, low + width)
        open: float = limited(value, low)
        named: float = limited(value, low, "top")

    inside = low <= value <= low + width
    for name, fits in (("one", inside), ("open", low <= value), ("named", inside)):
        some = Some(**{other: low for other in ("one", "open", "named") if other != name})
        if fits:
            some.validate("gad.some.")
        else:
            with pytest.raises(GadConfigError, match=rf"gad\.some\.{name} must be at least"):
                some.validate("gad.some.")
