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
"""Rules that the user has written: named by the configuration, watched like the others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from streams import stream

from gad_verl import cli
from gad_verl.config import GuardianConfig
from gad_verl.errors import GadConfigError
from gad_verl.guardian import Guardian
from gad_verl.preflight import check_config

RULES = """
from gad_verl.guardian.rule import Reading, Rule, number
from gad_verl.guardian.windows import Baseline


class Slow(Rule):
    name = "slow"

    def __init__(self, config, guardian):
        super().__init__(config, guardian)
        self.usual = Baseline(guardian.baseline)

    def read(self, metrics):
        seconds = number(metrics, "seconds")
        if seconds is None:
            return None
        usual = self.usual.add(seconds)
        return Reading(usual is not None and seconds > 2 * usual, {"seconds": seconds})

    def finding(self, figures):
        return f"a step takes {figures['seconds']:.0f} s"

    @property
    def remedy(self):
        return "Look at the machine."


class Unfinished(Rule):
    name = "unfinished"


class Taken(Slow):
    name = "saturated"


NOT_A_RULE = 3
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.py"
    path.write_text(RULES, encoding="utf-8")
    return path


def steps(first: int, last: int) -> list[tuple[int, dict]]:
    """A healthy run whose steps become slow at step 31."""
    rows = [row for row in stream("weak", range(0), 80) if first <= row[0] <= last]
    return [(step, {**metrics, "seconds": 10.0 if step <= 30 else 50.0}) for step, metrics in rows]


def config(rules: Path, **settings: object) -> GuardianConfig:
    result = GuardianConfig(custom_rules=[f"{rules}:Slow"], window=10, count=5, **settings)
    result.validate()
    return result


def test_it_is_watched_like_the_others(rules: Path) -> None:
    guardian = Guardian(config(rules))
    events = [event for step, metrics in steps(1, 40) for event in guardian.observe(step, metrics)]
    assert [(event.step, event.rule, event.action) for event in events] == [(35, "slow", "warn")]
    assert "Look at the machine." in events[0].text and guardian.tripped == ["slow"]


def test_the_policy_of_all_rules_holds_for_it(rules: Path) -> None:
    stopping = Guardian(config(rules, policy="stop"))
    for step, metrics in steps(1, 40):
        stopping.observe(step, metrics)
    assert stopping.stop is not None and stopping.stop.rule == "slow"
    silent = Guardian(config(rules, policy="off"))
    assert [event for step, metrics in steps(1, 40) for event in silent.observe(step, metrics)] == []


def test_its_memory_is_in_the_checkpoint(rules: Path) -> None:
    whole, first = Guardian(config(rules)), Guardian(config(rules))
    events = [event for step, metrics in steps(1, 40) for event in whole.observe(step, metrics)]
    for step, metrics in steps(1, 32):
        first.observe(step, metrics)
    second = Guardian(config(rules))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [event for step, metrics in steps(33, 40) for event in second.observe(step, metrics)] == events
    # A run that goes on without the rule.
    Guardian(GuardianConfig()).load_state_dict(first.state_dict())


def test_from_the_command_line(rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps(1, 60)]
    metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli.main(["guardian", str(metrics), "--set", f"custom_rules=[{rules}:Slow]"]) == 0
    assert "slow: a step takes 40 s" in capsys.readouterr().out
    assert cli.main(["guardian", str(metrics), "--set", f"custom_rules=[{rules}:Missing]"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gad-verl: gad.guardian.custom_rules: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NOT_A_RULE", "must be a subclass"),
        ("Unfinished", "with read, finding and remedy"),
        ("Taken", "takes the name 'saturated'"),
        ("Missing", "cannot be loaded"),
    ],
)
def test_what_cannot_work_is_refused(rules: Path, name: str, message: str) -> None:
    with pytest.raises(GadConfigError, match=message):
        GuardianConfig(custom_rules=[f"{rules}:{name}"]).custom_rule_classes()


def test_the_same_rule_twice_is_refused(rules: Path) -> None:
    with pytest.raises(GadConfigError, match="which another rule has"):
        GuardianConfig(custom_rules=[f"{rules}:Slow"] * 2).custom_rule_classes()


def test_the_check_before_a_run_refuses_it(rules: Path, compose_config: Callable[..., DictConfig]) -> None:
    good, bad = (
        compose_config("gad_cpu", f"gad.guardian.custom_rules=['{rules}:{name}']") for name in ("Slow", "Missing")
    )
    check_config(good)
    with pytest.raises(GadConfigError, match=r"custom_rules: .*Missing cannot be loaded"):
        check_config(bad)
