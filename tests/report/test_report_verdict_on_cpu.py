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
"""The verdict of ``gad-verl report`` is the guardian's, rule by rule and step by step."""

import ast
import math
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_run import write_metrics, write_record
from omegaconf import OmegaConf

from gad_verl.config import load_gad_config
from gad_verl.guardian import Event, Guardian
from gad_verl.record import RunRecord
from gad_verl.tools import report
from gad_verl.tools.report.replay import load_settings
from gad_verl.tools.report.runs import read_run
from gad_verl.tools.report.verdict import Verdict, judge

# Metrics that rules read, with the range in which streams of the test move: limits lie inside.
RANGES = {
    "disc/accuracy": (0.3, 1.0),
    "disc/saturated_fraction": (0.0, 1.0),
    "disc/no_spread_fraction": (0.0, 0.3),
    "disc/loss": (0.0, 1.0),
    "disc/skipped_steps": (-2.0, 1.0),
    "gad/prompts": (16.0, 256.0),
    "gad/length_ratio": (0.3, 2.5),
    "gad/score_length_correlation": (-1.0, 1.0),
    "gad/student_finished_rate": (0.5, 1.0),
    "gad/teacher_finished_rate": (0.5, 1.0),
    "gad/self_bleu": (0.5, 1.0),
    "gad/distinct_2": (0.1, 0.8),
    "gad/repetition": (0.0, 0.5),
    "gad/teacher_repetition": (0.0, 0.1),
    "actor/kl_loss": (0.0, 2.0),
    "actor/entropy": (0.05, 2.0),
    "val-gad/accuracy": (0.4, 0.9),
    "val-gad/num_pairs": (50.0, 2000.0),
    "val-gad/rouge_l": (0.1, 0.4),
}


def random_rows(rng: random.Random) -> list[tuple[int, dict[str, float]]]:
    """Metrics that stay about a level for a while and then jump, are missing at times, or are none."""
    rows, levels = [], {name: rng.uniform(*ends) for name, ends in RANGES.items()}
    logged = [name for name in RANGES if rng.random() < 0.9]
    warm = rng.randint(0, 20)
    for step in range(1, rng.randint(2, 150)):
        if rng.random() < 0.05:
            name = rng.choice(list(RANGES))
            levels[name] = rng.uniform(*RANGES[name])
        metrics = {"gad/stage": 1.0 if step <= warm else 2.0}
        for name in logged:
            low, high = RANGES[name]
            value = min(high, max(low, levels[name] + rng.gauss(0, 0.05) * (high - low)))
            if rng.random() > 0.02 and (not name.startswith("val-gad/") or step % 5 == 0):
                metrics[name] = math.nan if rng.random() < 0.01 else value
        rows.append((step, metrics))
    return rows


def random_settings(rng: random.Random) -> dict[str, Any]:
    window = rng.choice([2, 5, 10, 20])
    return {
        "window": window,
        "count": rng.randint(1, window),
        "baseline": rng.choice([1, 5, 10]),
        "policy": rng.choice(["warn", "adapt", "stop"]),
        "saturated": {"accuracy": rng.uniform(0.6, 1.0)},
        "kl": {"policy": rng.choice([None, "off", "warn"]), "highest": rng.uniform(0.1, 2.0)},
        "no_improvement": {"metric": rng.choice([None, "val-gad/rouge_l"]), "patience": rng.randint(1, 8)},
    }


def as_the_trainer_does(guardian: Guardian, rows: list[tuple[int, dict[str, float]]]) -> list[Event]:
    """Metrics of training and of a validation are judged one after the other."""
    events = []
    for step, metrics in rows:
        stage = {"gad/stage": metrics["gad/stage"]}
        validation = {name: value for name, value in metrics.items() if name.startswith("val-")}
        events += guardian.observe(step, {name: metrics[name] for name in metrics if name not in validation})
        if validation:
            events += guardian.observe(step, validation | stage)
    return events


def write_run(folder: Path, rows: list[tuple[int, dict[str, float]]], guardian: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "metrics.jsonl"
    file.write_bytes(b"".join(orjson.dumps({"step": step, "data": metrics}) + b"\n" for step, metrics in rows))
    with RunRecord.open(folder, None) as record:
        record.write_run({"gad": {"guardian": guardian}} if guardian is not None else {}, file)
    return folder


def topics(verdict: Verdict, level: str) -> list[str]:
    return [finding.topic for finding in verdict.findings if finding.level == level]


def text_of(verdict: Verdict, topic: str) -> str:
    (text,) = [finding.text for finding in verdict.findings if finding.topic == topic]
    return text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_the_verdict_is_the_guardians(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows, section = random_rows(rng), random_settings(rng)
    guardian = Guardian(load_settings(section))
    events = as_the_trainer_does(guardian, rows)
    verdict = judge(read_run(write_run(tmp_path / str(seed), rows, section)))

    trips: dict[str, list[int]] = {}
    for event in events:
        if event.action in ("warn", "stop"):
            trips.setdefault(event.rule, []).append(event.step)
    assert set(topics(verdict, "bad")) == set(guardian.tripped)
    assert set(topics(verdict, "watch")) == set(trips) - set(guardian.tripped)
    for rule, steps in trips.items():
        times = f" (the last of {len(steps)} times)" if len(steps) > 1 else ""
        assert f"Tripped at step {steps[-1]}{times}, and " in text_of(verdict, rule)
    silent = [standing for standing in guardian.standings() if standing.rule not in trips]
    assert set(topics(verdict, "good")) == {standing.rule for standing in silent if standing.can_tell}
    for standing in silent:
        if standing.readings:
            assert standing.seen[1:] in text_of(verdict, standing.rule)
        else:
            assert standing.rule in text_of(verdict, "rules without readings")
    assert "kl" not in {finding.topic for finding in verdict.findings} or section["kl"]["policy"] != "off"
    if guardian.tripped:
        assert verdict.headline.startswith("Tripped: ")
        assert all(rule in verdict.headline for rule in guardian.tripped)


@pytest.mark.parametrize(
    ("metrics", "tripped"),
    [
        # The report had limits of its own once: here it warned where the guardian did not, or the other way round.
        ({"disc/accuracy": 0.97, "disc/saturated_fraction": 0.3}, []),
        ({"disc/accuracy": 0.88}, []),
        ({"disc/no_spread_fraction": 0.07}, []),
        ({"gad/length_ratio": 0.6}, []),
        ({"gad/score_length_correlation": 0.75}, []),
        ({"gad/student_finished_rate": 0.7, "gad/teacher_finished_rate": 1.0, "disc/accuracy": 0.8}, []),
        ({"actor/kl_loss": 1.5}, ["kl"]),
        ({"gad/repetition": 0.5, "gad/teacher_repetition": 0.05}, ["repetition"]),
        ({"gad/self_bleu": 0.95, "gad/distinct_2": 0.5}, ["collapse"]),
    ],
)
def test_the_report_has_no_opinion_of_its_own(tmp_path: Path, metrics: dict[str, float], tripped: list[str]) -> None:
    rows = [(step, {"gad/stage": 2.0, **metrics}) for step in range(1, 41)]
    verdict = judge(read_run(write_run(tmp_path, rows)))
    assert topics(verdict, "bad") == tripped and topics(verdict, "watch") == []


# ------------------------------ no threshold stands twice ------------------------------


def thresholds(source: str) -> list[str]:
    """Comparisons with a number other than 0 and 1, of which counting is made; numbers with a point anywhere else."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        numbers = [one for one in ast.walk(node) if isinstance(one, ast.Constant) and type(one.value) in (int, float)]
        if isinstance(node, ast.Compare):
            found += [ast.unparse(node) for one in numbers if one.value not in (0, 1)]
        elif isinstance(node, ast.Constant) and type(node.value) is float:
            found.append(ast.unparse(node))
    return found


def test_the_judging_modules_hold_no_threshold() -> None:
    folder = Path(str(report.__path__[0]))
    for name in ("verdict", "replay", "notes"):
        assert thresholds((folder / f"{name}.py").read_text(encoding="utf-8")) == [], name
    # And nobody else judges.
    judging = [path.stem for path in folder.glob("*.py") if "Finding(" in path.read_text(encoding="utf-8")]
    assert judging == ["verdict"]


@pytest.mark.parametrize("line", ["if accuracy > 0.95: pass", "_LIMIT = 0.25", "steps[-1] >= 20", "low <= x <= 2"])
def test_a_threshold_would_be_found(line: str) -> None:
    assert thresholds(line) != [] and thresholds("count = len(steps) > 1 and steps[:3]") == []


# ------------------------------ what the replay does not hear ------------------------------


def test_what_custom_rules_and_trust_said_is_taken_from_the_record(tmp_path: Path) -> None:
    write_run(tmp_path, [(step, {"gad/stage": 2.0, "disc/accuracy": 0.8}) for step in range(1, 41)])
    with RunRecord.open(tmp_path, 40) as record:
        record.event(3, "schedule", "stage", "info", "The adversarial stage begins.")
        record.event(5, "guardian", "slow", "warn", "slow: a step takes 40 s")
        record.event(6, "trust", "trust_factor", "warn", "the student waits")
        record.event(8, "trust", "trust_factor", "info", "the student learns")
        # The replay heard this rule and is silent: the settings of a run may have changed on the way.
        record.event(9, "guardian", "weak", "warn", "weak: ...")
    verdict = judge(read_run(tmp_path))
    assert topics(verdict, "bad") == ["slow"] and topics(verdict, "watch") == ["trust, trust_factor"]
    assert "at step 5" in text_of(verdict, "slow") and "takes 40 s" in text_of(verdict, "slow")
    assert "weak" in topics(verdict, "good") and "schedule" not in str(verdict)


def test_a_record_without_metrics_says_what_the_guardian_said(tmp_path: Path) -> None:
    write_record(tmp_path, 4, None)
    verdict = judge(read_run(tmp_path))
    assert topics(verdict, "bad") == ["saturated"] and topics(verdict, "good") == []


def test_code_that_a_record_names_is_not_run(tmp_path: Path) -> None:
    marker, rules = tmp_path / "marker", tmp_path / "rules.py"
    rules.write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    section = {"custom_rules": [f"{rules}:Any"], "window": 4, "count": 2}
    rows = [(step, {"gad/stage": 2.0, "disc/accuracy": 0.5}) for step in range(1, 4)]
    verdict = judge(read_run(write_run(tmp_path / "run", rows, section)))
    assert topics(verdict, "bad") == ["weak"] and not marker.exists()


@pytest.mark.parametrize(
    ("section", "about"),
    [
        (None, "default settings of the guardian: those of the run are not known"),
        ({"kl": {"highest": -1}}, "gad.guardian.kl.highest must be at least 0; got -1"),
        ({"own_rules": []}, "gad.guardian.own_rules is now gad.guardian.custom_rules"),
        ({"policy": "warn"}, "the guardian's settings of the run."),
        ({"kl": {"policy": "off"}, "weak": {"policy": False}}, "Switched off in it: weak, kl."),
        ({"enable": False}, "gad.guardian.enable=False"),
    ],
)
def test_whose_settings_judged_is_said(tmp_path: Path, section: dict | None, about: str) -> None:
    rows = [(step, {"gad/stage": 2.0, "disc/accuracy": 0.8, "actor/kl_loss": 2.0}) for step in range(1, 41)]
    verdict = judge(read_run(write_run(tmp_path, rows, section)))
    assert about in text_of(verdict, "guardian")
    off = section is not None and (section.get("enable") is False or "policy" in section.get("kl", {}))
    assert topics(verdict, "bad") == ([] if off else ["kl"])


# ------------------------------ words ------------------------------


def test_the_headline_is_honest_about_little(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text('{"step": 1, "data": {}}\n', encoding="utf-8")
    assert judge(read_run(tmp_path / "none.jsonl")).headline == "Nothing can be judged yet."
    rows = [(step, {"gad/stage": 2.0, "disc/accuracy": 0.8}) for step in range(1, 21)]
    little = judge(read_run(write_run(tmp_path / "little", rows)))
    assert little.headline.startswith("No rule of the guardian has tripped, but most cannot tell yet.")
    few = judge(read_run(write_run(tmp_path / "few", rows[:14])))
    assert few.headline == "Nothing can be judged yet." and "14 of 15 readings so far" in text_of(few, "weak")
    write_metrics(tmp_path / "healthy.jsonl", 60)
    assert judge(read_run(tmp_path / "healthy.jsonl")).headline.startswith("No rule of the guardian has tripped. Of")


def test_notes_have_the_figures(tmp_path: Path) -> None:
    rows = []
    for step in range(1, 11):
        metrics = {"gad/stage": 1.0 if step <= 4 else 2.0, "timing_s/step": 60.0}
        metrics |= {"timing_s/gen": 45.0, "gad/failed_rollouts": 2.0, "disc/num_pairs": 30.0}
        rows.append((step, metrics))
    rows[2][1]["actor/grad_norm"] = math.inf
    verdict = judge(read_run(write_run(tmp_path, rows)))
    assert text_of(verdict, "course") == "Stages: warmup (step 1 to 4), adversarial (step 5 to 10)."
    assert "actor/grad_norm (1)" in text_of(verdict, "not finite")
    assert "20 responses never came, 300 pairs" in text_of(verdict, "failed rollouts")
    assert "10 steps took 10 minutes" in text_of(verdict, "time") and "gen (75%)" in text_of(verdict, "time")


def test_validation_is_no_part_of_the_steps(tmp_path: Path) -> None:
    """verl times it beside the step, however long it takes; the checkpoint within."""
    rows = [(step, {"timing_s/step": 10.0, "timing_s/gen": 6.0}) for step in range(1, 11)]
    for _, metrics in rows[1::2]:
        metrics |= {"timing_s/testing": 60.0, "timing_s/save_checkpoint": 1.0}
    text = text_of(judge(read_run(write_run(tmp_path / "run", rows))), "time")
    assert text == (
        "10 steps took 100 seconds, 10 s each (median); most of it in gen (60%); and 5 minutes beside the steps in "
        "validation (testing)."
    )
    alone = [(step, {"timing_s/step": 10.0, "timing_s/testing": 30.0}) for step in range(1, 3)]
    text = text_of(judge(read_run(write_run(tmp_path / "alone", alone))), "time")
    assert "most of it" not in text and "60 seconds beside the steps" in text


def test_defaults_of_the_replay_are_those_of_the_configuration() -> None:
    text = files("gad_verl.config").joinpath("gad/gad.yaml").read_text(encoding="utf-8")
    assert load_settings({}) == load_gad_config(OmegaConf.create({"gad": OmegaConf.create(text)})).guardian
