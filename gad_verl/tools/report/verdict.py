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
"""What went well in a run and what did not, in words, by rules that anyone can read here.

Each rule looks at the end of the adversarial stage: its last quarter, at least ``FEWEST`` steps. The thresholds are
those of ``docs/curves.md``; those without a source are rules of thumb, and the page says so. A rule whose metrics were
not logged says that it cannot tell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gad_verl.tools.report.runs import ADVERSARIAL, DISCRIMINATOR_ONLY, EMPTY, SEQKD, WARMUP, Run, Series, duration

Level = Literal["good", "watch", "bad", "unknown", "note"]

FEWEST = 5
HEALTHY_ACCURACY = (0.70, 0.85)

_TOO_STRONG = 0.95
_GUESSING = 0.60
_SWING = 0.5
_SATURATED_LOSS = 0.01
_SATURATED_SHARE = 0.5
_NO_SPREAD = (0.05, 0.5)
_LENGTH_GROWTH = (1.2, 1.5)
_LENGTH_RATIO = (0.67, 1.5)
_LENGTH_CORRELATION = 0.7
_FINISHED_GAP = 0.2
_HELD_OUT_GAP = (0.15, 0.25)
_FAILED_SHARE = 0.02
_SPIKE = 20.0
_ENTROPY_FALL = 0.25
_NO_TRUST = 0.05
_EVENT_TEXT = 240


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict.

    Args:
        level: "good", "watch" (may be a problem), "bad", "unknown" (cannot be told) or "note" (neither).
        topic: What it is about, in a word or two.
        text: The sentence, with its figures.
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
    """Apply every rule to a run."""
    findings = [finding for rule in _RULES for finding in _listed(rule(run))]
    order = ("bad", "watch", "good", "unknown", "note")
    findings.sort(key=lambda finding: order.index(finding.level))
    return Verdict(_headline(run, findings), findings)


def _listed(found: "Finding | list[Finding] | None") -> list[Finding]:
    return found if isinstance(found, list) else [found] if found else []


def _headline(run: Run, findings: list[Finding]) -> str:
    count = {
        level: sum(finding.level == level for finding in findings) for level in ("good", "watch", "bad", "unknown")
    }
    if not any(count[level] for level in ("good", "watch", "bad")):
        return "Nothing can be judged yet."
    if count["bad"]:
        first = "Something went wrong."
    elif count["watch"]:
        first = "Nothing is clearly wrong, but not all is well."
    elif count["unknown"] > count["good"]:
        first = "Nothing looks wrong, but most cannot be told yet."
    elif _has_adversarial(run):
        first = "The curves look healthy."
    else:
        first = "Nothing looks wrong so far."
    parts = [
        (count["bad"], "wrong"),
        (count["watch"], "to watch"),
        (count["good"], "in order"),
        (count["unknown"], "that cannot be told"),
    ]
    return f"{first} Of the checks: {', '.join(f'{number} {name}' for number, name in parts if number)}."


# --------------------------------------------------------------------------------------------------------------- parts


def _has_adversarial(run: Run) -> bool:
    return any(span.stage == ADVERSARIAL for span in run.spans)


def _adversarial(run: Run, metric: str) -> Series:
    return run.in_stages(metric, (ADVERSARIAL,)) if run.spans else run.get(metric)


def last_part(series: Series) -> Series:
    """The end that the verdict speaks of: the last quarter, at least FEWEST points; none where there are fewer."""
    if len(series) < FEWEST:
        return EMPTY
    size = max(FEWEST, len(series) // 4)
    return Series(series.steps[-size:], series.values[-size:])


def _begin(series: Series) -> Series:
    size = max(FEWEST, len(series) // 4)
    return Series(series.steps[:size], series.values[:size])


def _median(series: Series) -> float:
    return float(np.median(series.values))


def _steps(series: Series) -> str:
    return f"steps {int(series.steps[0])} to {int(series.steps[-1])}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _short(event: Mapping[str, Any]) -> str:
    text = str(event.get("text", ""))
    return text if len(text) <= _EVENT_TEXT else f"{text[:_EVENT_TEXT]} …"


def _too_few(run: Run, topic: str, metric: str) -> Finding:
    count = len(_adversarial(run, metric))
    if count:
        return Finding("unknown", topic, f"{metric} was logged at {count} adversarial steps; {FEWEST} are needed.")
    if run.spans and not _has_adversarial(run):
        return Finding("unknown", topic, "The run has not reached the adversarial stage.")
    return Finding("unknown", topic, f"{metric} was not logged.")


def _is_seqkd(run: Run) -> bool:
    return bool(run.spans) and all(span.stage == SEQKD for span in run.spans)


# --------------------------------------------------------------------------------------------------------------- rules


def _course(run: Run) -> Finding:
    if not run.spans:
        return Finding("unknown", "course", "The stages are not known: gad/stage was not logged.")
    stages = ", ".join(
        f"{span.name} (step {span.first})"
        if span.first == span.last
        else f"{span.name} (steps {span.first} to {span.last})"
        for span in run.spans
    )
    return Finding("note", "course", f"Stages: {stages}.")


def _accuracy(run: Run) -> Finding | None:
    if _is_seqkd(run):
        return None
    topic = "D's accuracy"
    end = last_part(_adversarial(run, "disc/accuracy"))
    if not len(end):
        return _too_few(run, topic, "disc/accuracy")
    low, high = HEALTHY_ACCURACY
    middle = _median(end)
    inside = float(np.mean((end.values >= low) & (end.values <= high)))
    said = (
        f"Median {middle:.2f} in {_steps(end)}; {inside:.0%} of these steps lie in the band of healthy replications, "
        f"{low:.2f} to {high:.2f}."
    )
    bottom, top = np.quantile(end.values, [0.05, 0.95])
    if top - bottom > _SWING:
        return Finding(
            "bad", topic, f"It swings between {bottom:.2f} and {top:.2f}: the two sides chase each other. {said}"
        )
    if middle > _TOO_STRONG:
        return Finding(
            "bad",
            topic,
            f"{said} The discriminator is too strong, or a shortcut such as the end of the text is enough.",
        )
    if middle < _GUESSING:
        return Finding(
            "watch",
            topic,
            f"{said} It guesses: either the student is hard to tell from the teacher or the discriminator is weak. "
            "The curve alone cannot say which; the two-sample accuracy of gad-verl evaluate can. Where it guesses, GAD "
            "may harm the student: gad.trust lets it wait (docs/stability.md).",
        )
    if low <= middle <= high:
        return Finding("good", topic, said)
    return Finding("watch", topic, f"{said} It lies {'above' if middle > high else 'below'} the band.")


def _warmup_of_discriminator(run: Run) -> Finding | None:
    early = run.in_stages("disc/accuracy", (DISCRIMINATOR_ONLY, WARMUP)) if run.spans else EMPTY
    if len(early) < FEWEST:
        return None
    highest = float(early.values.max())
    where = int(early.steps[early.values.argmax()])
    if highest < HEALTHY_ACCURACY[0]:
        return Finding(
            "watch",
            "D's warmup",
            f"The accuracy never passed {highest:.2f} before the adversarial stage: the discriminator learned little.",
        )
    return Finding(
        "good", "D's warmup", f"The discriminator learned to tell the sides apart: {highest:.2f} at step {where}."
    )


def _saturation(run: Run) -> Finding | None:
    if _is_seqkd(run):
        return None
    topic = "saturation"
    loss, share = (last_part(_adversarial(run, metric)) for metric in ("disc/loss", "disc/saturated_fraction"))
    if not len(loss) and not len(share):
        return _too_few(run, topic, "disc/loss")
    said = []
    if len(loss):
        said.append(f"D's loss is {_number(_median(loss))} (median of {_steps(loss)}; ln 2 = 0.693 is guessing)")
    if len(share):
        said.append(
            f"{share.values.mean():.0%} of the pairs have sigmoid(margin) above 0.99 (mean of {_steps(share)}; "
            f"{share.values[-1]:.0%} at the last step)"
        )
    text = "; ".join(said) + "."
    if (len(loss) and _median(loss) < _SATURATED_LOSS) or (len(share) and share.values.mean() > _SATURATED_SHARE):
        return Finding("bad", topic, f"{text} The discriminator is saturated, the student gets hardly any direction.")
    if len(share) and share.values[-1] > _SATURATED_SHARE:
        return Finding("watch", topic, f"{text} It is about to saturate.")
    return Finding("good", topic, text)


def _spread(run: Run) -> Finding | None:
    if _is_seqkd(run):
        return None
    topic = "direction for the student"
    end = last_part(_adversarial(run, "disc/no_spread_fraction"))
    if not len(end):
        return _too_few(run, topic, "disc/no_spread_fraction")
    share = float(end.values.mean())
    text = f"{share:.1%} of the groups have responses that all score the same ({_steps(end)})."
    if share > _NO_SPREAD[1]:
        return Finding("bad", topic, f"{text} Most groups give GRPO no direction.")
    return Finding("watch" if share > _NO_SPREAD[0] else "good", topic, text)


def _length(run: Run) -> Finding | None:
    topic = "length"
    series = _adversarial(run, "gad/length_ratio")
    if _is_seqkd(run):
        return None
    end = last_part(series)
    if not len(end):
        return _too_few(run, topic, "gad/length_ratio")
    ratio, growth = _median(end), _median(end) / max(_median(_begin(series)), 1e-9)
    text = f"Responses are {ratio:.2f} times as long as the teacher's (median of {_steps(end)})."
    correlation = last_part(_adversarial(run, "gad/score_length_correlation"))
    if len(correlation):
        text += f" Score and length correlate by {_median(correlation):.2f}."
    if len(series) >= 2 * FEWEST and growth > _LENGTH_GROWTH[0]:
        level: Level = "bad" if growth > _LENGTH_GROWTH[1] and ratio > _LENGTH_RATIO[1] else "watch"
        return Finding(
            level, topic, f"{text} They grew by the factor {growth:.2f} in the stage: a sign of reward hacking."
        )
    if not _LENGTH_RATIO[0] <= ratio <= _LENGTH_RATIO[1]:
        return Finding("watch", topic, f"{text} That is far from 1.")
    if len(correlation) and abs(_median(correlation)) > _LENGTH_CORRELATION:
        return Finding("watch", topic, f"{text} The discriminator judges length.")
    return Finding("good", topic, text)


def _held_out_length(run: Run) -> Finding | None:
    series = run.get("val-gad/length_ratio")
    if not len(series):
        return None
    ratio, step = float(series.values[-1]), int(series.steps[-1])
    text = f"On held-out prompts the responses are {ratio:.2f} times as long as the teacher's (step {step})."
    if not _LENGTH_RATIO[0] <= ratio <= _LENGTH_RATIO[1]:
        return Finding("watch", "held-out length", f"{text} That is far from 1: read the texts below.")
    return Finding("good", "held-out length", text)


def _finishing(run: Run) -> Finding | None:
    topic = "finishing"
    student, teacher = (_adversarial(run, f"gad/{side}_finished_rate") for side in ("student", "teacher"))
    if _is_seqkd(run):
        return None
    end = last_part(student)
    if not len(end):
        return _too_few(run, topic, "gad/student_finished_rate")
    rate, fall = _median(end), _median(_begin(student)) - _median(end)
    text = f"{rate:.0%} of the responses end by themselves (median of {_steps(end)})"
    if len(last_part(teacher)):
        others = _median(last_part(teacher))
        text += f", {others:.0%} of the teacher's texts are uncut"
        if abs(others - rate) > _FINISHED_GAP:
            return Finding(
                "watch",
                topic,
                f"{text}. At such different rates the discriminator needs nothing but the end of the text.",
            )
    if fall > _FINISHED_GAP:
        return Finding("watch", topic, f"{text}. The rate fell by {fall:.0%} in the stage.")
    return Finding("good", topic, f"{text}.")


def _held_out(run: Run) -> Finding | None:
    if _is_seqkd(run):
        return None
    topic = "held-out prompts"
    held_out, training = _adversarial(run, "val-gad/accuracy"), _adversarial(run, "disc/accuracy")
    if not len(held_out):
        return _too_few(run, topic, "val-gad/accuracy")
    step = int(held_out.steps[-1])
    before = training.between(0, step)
    near = Series(before.steps[-2 * FEWEST :], before.values[-2 * FEWEST :])
    if len(near) < FEWEST:
        return Finding("unknown", topic, f"Fewer than {FEWEST} adversarial steps lie before the last validation.")
    gap = float(near.values.mean()) - float(held_out.values[-1])
    text = (
        f"D's accuracy is {held_out.values[-1]:.2f} on held-out prompts (step {step}) and {near.values.mean():.2f} in "
        f"training ({_steps(near)})."
    )
    if gap > _HELD_OUT_GAP[0]:
        return Finding("bad" if gap > _HELD_OUT_GAP[1] else "watch", topic, f"{text} The discriminator memorises.")
    return Finding("good", topic, text)


def _supervised(run: Run) -> Finding | None:
    loss = run.in_stages("actor/loss", (WARMUP, SEQKD)) if run.spans else EMPTY
    if len(loss) < FEWEST:
        return None
    size = min(FEWEST, len(loss) // 2)
    first, last = float(loss.values[:size].mean()), float(loss.values[-size:].mean())
    name = "SeqKD" if _is_seqkd(run) else "the warmup"
    text = f"Cross-entropy on the teacher's texts went from {first:.3f} to {last:.3f} in {name} ({_steps(loss)})."
    return Finding("good" if last < first else "watch", "imitation", text)


def _stability(run: Run) -> list[Finding]:
    findings = []
    logged = [metric for metric in ("disc/grad_norm", "actor/grad_norm") if len(run.get(metric))]
    troubles = []
    for metric, what in (
        ("disc/skipped_steps", "updates of the discriminator were left out because a gradient was not finite"),
        ("gad/nonfinite_scores", "scores were not finite"),
    ):
        total = float(run.get(metric).values.sum())
        if total:
            troubles.append(f"{total:.0f} {what}")
    if run.not_finite:
        worst = sorted(run.not_finite, key=lambda name: -run.not_finite[name])[:3]
        named = ", ".join(f"{name} ({run.not_finite[name]})" for name in worst)
        troubles.append(f"{len(run.not_finite)} metrics were NaN or infinite at times: {named}")
    failed, pairs = run.get("gad/failed_rollouts").values.sum(), run.get("disc/num_pairs").values.sum()
    if failed > _FAILED_SHARE * (failed + pairs):
        troubles.append(f"{failed:.0f} of {failed + pairs:.0f} responses never came")
    for metric in logged:
        series = run.get(metric)
        middle = _median(series)
        if len(series) >= 2 * FEWEST and middle > 0 and series.values.max() > _SPIKE * middle:
            step = int(series.steps[series.values.argmax()])
            troubles.append(
                f"{metric} reached {_number(float(series.values.max()))} at step {step}, "
                f"{series.values.max() / middle:.0f} times its median"
            )
    if troubles:
        findings.append(Finding("watch", "stability", "; ".join(troubles) + "."))
    elif logged:
        findings.append(
            Finding(
                "good", "stability", f"No update was left out, no value was NaN, {' and '.join(logged)} had no spike."
            )
        )
    else:
        findings.append(Finding("unknown", "stability", "No gradient norm was logged."))
    return findings


def _entropy(run: Run) -> Finding | None:
    series = _adversarial(run, "actor/entropy")
    end = last_part(series)
    if not len(end) or len(series) < 2 * FEWEST:
        return None
    first, last = _median(_begin(series)), _median(end)
    text = f"The student's entropy went from {first:.2f} to {last:.2f} in the adversarial stage."
    if last < _ENTROPY_FALL * first:
        return Finding("watch", "variety", f"{text} The responses become alike.")
    return Finding("good", "variety", text)


def _kl(run: Run) -> Finding | None:
    series = _adversarial(run, "actor/kl_loss")
    end = last_part(series)
    if not len(end):
        return None
    return Finding("note", "KL", f"The KL to the reference is {_number(_median(end))} (median of {_steps(end)}).")


def _validation(run: Run) -> Finding | None:
    series = run.get("val-gad/rouge_l")
    if len(series) < 2:
        return None
    return Finding(
        "note",
        "ROUGE-L",
        f"{series.values[0]:.3f} at step {int(series.steps[0])}, {series.values[-1]:.3f} at step "
        f"{int(series.steps[-1])}. A diagnostic: it may fall while answers get better.",
    )


def _events(run: Run) -> Finding | None:
    if run.info is None:
        return Finding("unknown", "events", "There is no record of events.")
    count = {action: sum(event.get("action") == action for event in run.events) for action in ("warn", "adapt", "stop")}
    if count["stop"]:
        last = [event for event in run.events if event.get("action") == "stop"][-1]
        return Finding("bad", "events", f"The run was stopped at step {last['step']}: {_short(last)}")
    if count["warn"] or count["adapt"]:
        latest = [event for event in run.events if event.get("action") in ("warn", "adapt")][-1]
        said = f"Noted: warnings {count['warn']}, adaptations {count['adapt']}. The last, at step {latest['step']}: "
        return Finding("watch", "events", said + _short(latest))
    return Finding("good", "events", "No warning is noted.")


def _trust(run: Run) -> Finding | None:
    found = []
    for metric in sorted(name for name in run.metrics if name.startswith("gad/trust")):
        end = last_part(_adversarial(run, metric))
        if len(end):
            found.append(f"{metric} {_number(_median(end))}")
    if not found:
        return None
    text = f"Medians at the end: {', '.join(found)}."
    factor = last_part(_adversarial(run, "gad/trust_factor"))
    if len(factor) and _median(factor) < _NO_TRUST:
        return Finding("watch", "trust", f"{text} The student hardly learns.")
    return Finding("note", "trust", text)


def _time(run: Run) -> Finding | None:
    steps = run.get("timing_s/step")
    if not len(steps):
        return None
    text = f"{len(steps)} steps took {duration(steps.values.sum())}, {_number(_median(steps))} s each (median)"
    parts = {
        name: float(series.values.sum())
        for name, series in run.metrics.items()
        if name.startswith("timing_s/") and name != "timing_s/step"
    }
    if parts:
        most = max(parts, key=lambda name: parts[name])
        text += f"; most of it in {most.removeprefix('timing_s/')} ({parts[most] / steps.values.sum():.0%})"
    return Finding("note", "time", f"{text}.")


def _damage(run: Run) -> Finding | None:
    if not run.damaged_lines:
        return None
    return Finding(
        "watch", "file", f"{run.damaged_lines} lines of the metrics file could not be read and are left out."
    )


_RULES: tuple[Callable[[Run], "Finding | list[Finding] | None"], ...] = (
    _course,
    _accuracy,
    _warmup_of_discriminator,
    _saturation,
    _spread,
    _length,
    _held_out_length,
    _finishing,
    _held_out,
    _supervised,
    _stability,
    _entropy,
    _kl,
    _validation,
    _events,
    _trust,
    _time,
    _damage,
)
