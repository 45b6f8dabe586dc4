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
"""Long series made short enough to draw: the lowest and highest value of each interval stay."""

import numpy as np

from gad_verl.tools.report.lines import EMPTY, Series
from gad_verl.tools.report.runs import Run

SMOOTHED_FROM = 40
"""Series of fewer points are drawn as they are."""

_FEWEST = 5


def last_part(series: Series) -> Series:
    """The end of which key figures speak: the last quarter, at least five points; none where there are fewer."""
    if len(series) < _FEWEST:
        return EMPTY
    size = max(_FEWEST, len(series) // 4)
    return Series(series.steps[-size:], series.values[-size:])


def thin(series: Series, limit: int) -> Series:
    """At most ``limit`` points: of equal intervals of points, the lowest and the highest, and the first and last point.

    Args:
        series: Any series.
        limit: Largest number of points, at least 4.
    """
    count = len(series)
    if count <= limit:
        return series
    edges = np.linspace(0, count, (limit - 2) // 2 + 1).round().astype(int)
    kept = {0, count - 1}
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        part = series.values[start:end]
        kept.update((start + int(part.argmin()), start + int(part.argmax())))
    chosen = np.array(sorted(kept))
    return Series(series.steps[chosen], series.values[chosen])


def moving_mean(values: np.ndarray, window: int, places: np.ndarray | None = None) -> np.ndarray:
    """Mean over the ``window`` values around each one, over fewer at the ends.

    Args:
        values: Any numbers.
        window: How many are averaged.
        places: Indices of the values whose means are wanted; None for all.
    """
    reach = window // 2
    wanted = np.arange(len(values)) if places is None else places
    # Not differences of running sums: behind one huge value they are the sums' rounding errors.
    return np.array([values[max(0, place - reach) : place + reach + 1].mean() for place in wanted.tolist()])


def smooth(run: Run, series: Series, limit: int) -> Series | None:
    """The moving mean over a twentieth of the points, never across the border of two stages.

    Args:
        run: Whose stages count.
        series: Of that run.
        limit: Largest number of points.

    Returns:
        None for a series too short to need it.
    """
    if len(series) < SMOOTHED_FROM:
        return None
    window = max(5, len(series) // 20)
    chosen = np.unique(np.linspace(0, len(series) - 1, min(limit, len(series))).round().astype(int))
    means = []
    stage = np.zeros(len(series), dtype=int)
    for span in run.spans:
        stage[series.steps >= span.first] += 1
    for number in np.unique(stage):
        of_stage = np.flatnonzero(stage == number)
        places = chosen[stage[chosen] == number] - of_stage[0]
        means.append(moving_mean(series.values[of_stage], window, places))
    return Series(series.steps[chosen], np.concatenate(means))
