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
"""Figures of a run in sentences, without a judgement."""

from collections.abc import Iterator

import numpy as np

from gad_verl.tools.report.lines import EMPTY, Series
from gad_verl.tools.report.runs import SEQKD, WARMUP, Run, duration

# The one time of verl's loop (trainer_base.py, fit) that lies outside of its "step".
_VALIDATION = "testing"


def notes(run: Run) -> Iterator[tuple[str, str]]:
    """Topic and text of each note; what was not logged has none."""
    if run.spans:
        steps = [f"{span.first}" if span.first == span.last else f"{span.first} to {span.last}" for span in run.spans]
        named = (f"{span.name} (step {of_span})" for span, of_span in zip(run.spans, steps, strict=True))
        yield "course", f"Stages: {', '.join(named)}."
    if run.ended_early:
        yield (
            "end",
            f"The run ended at step {run.last_step}, before the {run.total_steps} steps that it was to make.",
        )
    yield from _imitation(run)
    yield from _losses(run)
    steps_taken = run.get("timing_s/step")
    if len(steps_taken):
        yield "time", _time(run, steps_taken)


def _imitation(run: Run) -> Iterator[tuple[str, str]]:
    """How far the cross-entropy on the teacher's texts came, and whether that is more than it scatters."""
    loss = run.in_stages("actor/loss", (WARMUP, SEQKD)) if run.spans else EMPTY
    half = len(loss) // 2
    if half > 1:
        first, last = loss.values[:half], loss.values[half:]
        text = f"Cross-entropy on the teacher's texts: {first.mean():.3f} in the first half, {last.mean():.3f}"
        scatter = np.hypot(first.std(), last.std()) / np.sqrt(half)
        fell = first.mean() - last.mean() > scatter
        yield "imitation", f"{text} in the second{'' if fell else ': no fall that its scatter would not explain'}."


def _losses(run: Run) -> Iterator[tuple[str, str]]:
    """What was lost on the way."""
    failed, pairs = (run.get(name).values.sum() for name in ("gad/failed_rollouts", "disc/num_pairs"))
    left_out = run.get("disc/skipped_steps").values.sum()
    if failed:
        yield "failed rollouts", f"{failed:.0f} responses never came, {pairs:.0f} pairs were judged."
    if left_out:
        yield "updates", f"{left_out:.0f} updates of the discriminator were left out."
    if run.not_finite:
        named = ", ".join(f"{name} ({len(steps)})" for name, steps in sorted(run.not_finite.items()))
        yield "not finite", f"Metrics that were NaN or infinite, and at how many steps: {named}."
    if run.unread:
        named = ", ".join(f"{name} ({count})" for name, count in run.unread.items())
        yield "files", f"Lines that could not be read and are left out, by file: {named}."


def _time(run: Run, steps: Series) -> str:
    spent = {
        name.removeprefix("timing_s/"): float(series.values.sum())
        for name, series in run.metrics.items()
        if name.startswith("timing_s/") and name != "timing_s/step"
    }
    beside = spent.pop(_VALIDATION, 0)
    text = f"{len(steps)} steps took {duration(steps.values.sum())}, {np.median(steps.values):.3g} s each (median)"
    if spent:
        most = max(spent, key=lambda name: spent[name])
        text += f"; most of it in {most} ({spent[most] / steps.values.sum():.0%})"
    return f"{text}; and {duration(beside)} beside the steps in validation ({_VALIDATION})." if beside else f"{text}."
