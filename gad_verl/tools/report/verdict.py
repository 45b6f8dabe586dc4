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
"""The verdict on a run: what the guardian says to its metrics, in the order of a page. No rule stands here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gad_verl.guardian import Event, Standing
from gad_verl.guardian.events import SOURCE
from gad_verl.tools.report.lines import cut
from gad_verl.tools.report.notes import notes
from gad_verl.tools.report.replay import load_settings, recorded_settings, replay
from gad_verl.tools.report.runs import Run

Level = Literal["bad", "watch", "good", "unknown", "note"]
# What each level is called on the page.
LEVELS: dict[Level, str] = {
    "bad": "tripped",
    "watch": "has passed",
    "good": "in order",
    "unknown": "cannot tell",
    "note": "note",
}
_TRIPS = ("warn", "stop")
_TEXT_CHARACTERS = 1500


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict.

    Args:
        level: "bad" (a rule has tripped and stands), "watch" (it had tripped and has passed), "good" (it was silent),
            "unknown" (it had too little to read) or "note" (figures without a judgement).
        topic: The rule, or what a note is about.
        text: Sentences with the figures.
    """

    level: Level
    topic: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The findings on a run, and one line that sums them up."""

    headline: str
    findings: list[Finding]


def judge(run: Run) -> Verdict:
    """Replay the guardian over a run; docs/guardian.md has its rules."""
    settings, about = recorded_settings(run)
    guardian, events = replay(load_settings(settings), run)
    standings = guardian.standings()
    judged = {standing.rule for standing in standings if standing.can_tell}
    findings = [_replayed(standing, events) for standing in standings if standing.readings]
    findings += _recorded(run.events, judged)
    silent = [standing.rule for standing in standings if not standing.readings]
    headline = _headline(findings, silent)
    if silent:
        text = f"Their stage or their metrics were never there: {', '.join(silent)}."
        findings.append(Finding("unknown", "rules without readings", text))
    findings.append(Finding("note", "guardian", about))
    findings += [Finding("note", topic, text) for topic, text in notes(run)]
    findings.sort(key=lambda finding: list(LEVELS).index(finding.level))
    return Verdict(headline, findings)


def _replayed(standing: Standing, events: Sequence[Event]) -> Finding:
    """What a rule says at the end of the run."""
    trips = [event.step for event in events if event.rule == standing.rule and event.action in _TRIPS]
    seen = f"{standing.seen[:1].upper()}{standing.seen[1:]}."
    if standing.tripped:
        return Finding("bad", standing.rule, f"Tripped {_steps(trips)}, and stands. {seen} {standing.remedy}")
    if trips:
        return Finding("watch", standing.rule, f"Tripped {_steps(trips)}, and has passed. {seen}")
    if standing.can_tell:
        return Finding("good", standing.rule, seen)
    return Finding("unknown", standing.rule, f"{standing.readings} of {standing.needed} readings so far. {seen}")


def _recorded(events: Sequence[Mapping[str, Any]], judged: set[str]) -> Iterator[Finding]:
    """What was said while the run trained by those that the replay does not hear: custom rules, trust."""
    by_rule: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in events:
        source, rule = event["source"], event["rule"]
        if (source != SOURCE or rule not in judged) and event["action"] in (*_TRIPS, "info"):
            by_rule.setdefault((source, rule), []).append(event)
    for (source, rule), said in by_rule.items():
        trips = [event for event in said if event["action"] in _TRIPS]
        if trips:
            stands = said[-1] is trips[-1]
            text = f"Noted in the record {_steps([event['step'] for event in trips])}: "
            text += cut(trips[-1]["text"], _TEXT_CHARACTERS)
            topic = rule if source == SOURCE else f"{source}, {rule}"
            yield Finding("bad" if stands else "watch", topic, text if stands else f"{text} It has passed.")


def _steps(steps: Sequence[int]) -> str:
    return f"at step {steps[-1]}" + (f" (the last of {len(steps)} times)" if len(steps) > 1 else "")


def _headline(findings: Sequence[Finding], silent: Sequence[str]) -> str:
    """One line; ``silent`` are the rules without a finding."""
    topics = {level: [finding.topic for finding in findings if finding.level == level] for level in LEVELS}
    topics["unknown"] += silent
    if not (topics["bad"] or topics["watch"] or topics["good"]):
        return "Nothing can be judged yet."
    if topics["bad"]:
        first = f"Tripped: {', '.join(topics['bad'])}."
    elif topics["watch"]:
        first = f"Nothing stands tripped; it had: {', '.join(topics['watch'])}."
    elif len(topics["unknown"]) > len(topics["good"]):
        first = "No rule of the guardian has tripped, but most cannot tell yet."
    else:
        first = "No rule of the guardian has tripped."
    counts = ", ".join(f"{len(topics[level])} {LEVELS[level]}" for level in LEVELS if topics[level])
    return f"{first} Of the rules: {counts}."
