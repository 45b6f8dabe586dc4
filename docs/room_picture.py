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
"""The rooms of the package as a picture: floors from top to bottom, arrows to what a room imports. SVG by plain Python.

Only arrows that no way over other rooms implies are drawn. Colours are readable on a light and on a dark page: text
stands in light boxes, lines are grey.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

Arrow = tuple[str, str]

# What a box says below its name. A room that is new needs words here.
WORDS = {
    "cli": "the command gad-verl",
    "compat": "what is used of verl",
    "config": "YAML and dataclasses",
    "core": "mathematics on tensors",
    "cpu": "platform without GPU",
    "data": "rows, encoding, samplers",
    "discriminator": "worker, engine, loss",
    "errors": "what a user can mend",
    "guardian": "rules on the metrics",
    "plugin": "registers with verl",
    "preflight": "checks before a run",
    "record": "what a run writes down",
    "rollout": "rollout of transformers",
    "trainer": "the step and its parts",
    "workers": "the student's worker",
}
TOOLS = "tools"
# Rooms of a program beside the training, by colour.
_BESIDE = ("cli", TOOLS)

_BOX_WIDTH, _BOX_HEIGHT, _TOOLS_WIDTH = 168.0, 46.0, 470.0
_GAP, _FLOOR_HEIGHT, _MARGIN, _LABELS = 22.0, 96.0, 14.0, 26.0
_LINE, _TEXT, _SMALL = "#7d8694", "#1d2733", "#46525f"
_FILLS = {True: ("#f7e3c0", "#c98f2b"), False: ("#d6e6f7", "#4f86bd")}
_SWEEPS = 12


def reach(arrows: Sequence[Arrow]) -> dict[str, set[str]]:
    """All rooms that a room needs, over any number of arrows. There must be no circle."""
    below: dict[str, set[str]] = {}
    for upper, lower in arrows:
        below.setdefault(upper, set()).add(lower)
    found: dict[str, set[str]] = {}

    def needs(room: str) -> set[str]:
        if room not in found:
            found[room] = set().union(*({other} | needs(other) for other in below.get(room, ())))
        return found[room]

    return {room: needs(room) for pair in arrows for room in pair}


def without_implied(arrows: Iterable[Arrow]) -> list[Arrow]:
    """The arrows that no other way implies (transitive reduction)."""
    every = sorted(set(arrows))
    needs = reach(every)
    return [
        (upper, lower)
        for upper, lower in every
        if not any(lower in needs[middle] for above, middle in every if above == upper and middle != lower)
    ]


@dataclass
class _Node:
    """A box, or a place where an arrow crosses a floor."""

    name: str
    floor: int
    width: float
    x: float = 0.0
    above: list["_Node"] = field(default_factory=list)
    below: list["_Node"] = field(default_factory=list)

    @property
    def is_box(self) -> bool:
        return self.width > 0


def _spread(nodes: Sequence[_Node], wanted: Sequence[float]) -> None:
    """Middles as near to the wanted ones as order and gaps allow (least squares: pool adjacent violators)."""
    offsets = [0.0]
    for left, right in pairwise(nodes):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + _GAP)
    pools: list[list[float]] = []
    for value in (want - offset for want, offset in zip(wanted, offsets, strict=True)):
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (mean, count), (last, more) = pools[-2], pools[-1]
            pools[-2:] = [[(mean * count + last * more) / (count + more), count + more]]
    places = [mean for mean, count in pools for _ in range(int(count))]
    for node, place, offset in zip(nodes, places, offsets, strict=True):
        node.x = place + offset


def _mean_x(nodes: Sequence[_Node], otherwise: float) -> float:
    return sum(node.x for node in nodes) / len(nodes) if nodes else otherwise


def _straight_x(node: _Node) -> float:
    """The mean of the neighbours, in which a long arrow pulls more: it is to be straight between its ends."""
    weights = {id(other): 8 if not (node.is_box or other.is_box) else 1 for other in [*node.above, *node.below]}
    total = sum(weights.values())
    return sum(weights[id(other)] * other.x for other in [*node.above, *node.below]) / total if total else node.x


class RoomPicture:
    """Boxes and arrows with their places.

    Args:
        floors: Floor of each box, 1 is the lowest; an arrow leads to a lower one.
        arrows: From box to box.
        tools: Rooms that the box ``tools`` stands for.

    Raises:
        ValueError: If there are no words for a room.
    """

    def __init__(self, floors: Mapping[str, int], arrows: Iterable[Arrow], tools: Sequence[str]) -> None:
        unknown = set(floors) - set(WORDS) - {TOOLS}
        if unknown:
            raise ValueError(f"WORDS in docs/room_picture.py says nothing of {', '.join(sorted(unknown))}")
        self.floors, self.tools = floors, tools
        self.arrows = without_implied(arrows)
        self._nodes = {
            room: _Node(room, floors[room], _TOOLS_WIDTH if room == TOOLS else _BOX_WIDTH) for room in sorted(floors)
        }
        self._chains = [self._chain(*arrow) for arrow in self.arrows]
        self._rows = self._order()
        self._place()

    def _chain(self, upper: str, lower: str) -> list[_Node]:
        """The boxes of an arrow and a place on each floor between them."""
        ends = self._nodes[upper], self._nodes[lower]
        between = [_Node(f"{upper}>{lower}", floor, 0.0) for floor in range(ends[0].floor - 1, ends[1].floor, -1)]
        chain = [ends[0], *between, ends[1]]
        for one, other in pairwise(chain):
            one.below.append(other)
            other.above.append(one)
        return chain

    def _order(self) -> dict[int, list[_Node]]:
        """Order of each floor with few crossings: each node goes to the mean of its neighbours, up and down."""
        nodes = [*self._nodes.values(), *(node for chain in self._chains for node in chain[1:-1])]
        top = max(self.floors.values())
        rows = {
            floor: sorted((n for n in nodes if n.floor == floor), key=lambda n: n.name) for floor in range(1, top + 1)
        }
        best, fewest = rows, None
        for sweep in range(_SWEEPS):
            downwards = sweep % 2 == 0
            for floor in sorted(rows, reverse=downwards):
                for number, node in enumerate(rows[floor]):
                    node.x = float(number)
                middle = {id(n): _mean_x(n.above if downwards else n.below, n.x) for n in rows[floor]}
                rows[floor] = sorted(rows[floor], key=lambda n: (middle[id(n)], n.name))
                for number, node in enumerate(rows[floor]):
                    node.x = float(number)
            crossings = self._crossings(rows)
            if fewest is None or crossings < fewest:
                best, fewest = {floor: list(row) for floor, row in rows.items()}, crossings
        return best

    @staticmethod
    def _crossings(rows: Mapping[int, Sequence[_Node]]) -> int:
        count = 0
        for floor in rows:
            lines = [
                (place, rows[floor - 1].index(other)) for place, node in enumerate(rows[floor]) for other in node.below
            ]
            count += sum((a - c) * (b - d) < 0 for at, (a, b) in enumerate(lines) for c, d in lines[:at])
        return count

    def _place(self) -> None:
        for row in self._rows.values():
            _spread(row, [0.0] * len(row))
        for sweep in range(8 * _SWEEPS):
            for floor in sorted(self._rows, reverse=sweep % 2 == 0):
                row = self._rows[floor]
                _spread(row, [_straight_x(node) for node in row])
        every = [node for row in self._rows.values() for node in row]
        left = min(node.x - node.width / 2 for node in every) - _MARGIN - _LABELS
        for node in every:
            node.x -= left

    # ------------------------------ drawing ------------------------------

    @property
    def _size(self) -> tuple[float, float]:
        right = max(node.x + node.width / 2 for row in self._rows.values() for node in row) + _MARGIN
        return right, max(self.floors.values()) * _FLOOR_HEIGHT - _FLOOR_HEIGHT + _BOX_HEIGHT + 2 * _MARGIN

    def _top(self, floor: int) -> float:
        return _MARGIN + (max(self.floors.values()) - floor) * _FLOOR_HEIGHT

    def svg(self) -> str:
        """The picture as a file."""
        width, height = self._size
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="system-ui, Helvetica, Arial, DejaVu Sans, sans-serif" role="img">',
            "<title>Rooms of gad_verl, and what they import of each other</title>",
        ]
        for floor in sorted(self._rows, reverse=True):
            middle = self._top(floor) + _BOX_HEIGHT / 2 + 4
            lines.append(f'<text x="8" y="{middle:.0f}" font-size="12" fill="{_LINE}">{floor}</text>')
        lines += [self._arrow(chain) for chain in self._chains]
        lines += [self._box(self._nodes[room]) for room in sorted(self._nodes)]
        return "\n".join([*lines, "</svg>", ""])

    def _box(self, node: _Node) -> str:
        fill, stroke = _FILLS[node.name in _BESIDE]
        words = ", ".join(self.tools) if node.name == TOOLS else WORDS[node.name]
        left, top = node.x - node.width / 2, self._top(node.floor)
        return (
            f'<g id="{escape(node.name)}"><rect x="{left:.1f}" y="{top:.1f}" width="{node.width:.0f}" '
            f'height="{_BOX_HEIGHT:.0f}" rx="6" fill="{fill}" stroke="{stroke}"/>'
            f'<text x="{node.x:.1f}" y="{top + 20:.1f}" font-size="15" font-weight="600" text-anchor="middle" '
            f'fill="{_TEXT}">{escape(node.name)}</text>'
            f'<text x="{node.x:.1f}" y="{top + 37:.1f}" font-size="11.5" text-anchor="middle" '
            f'fill="{_SMALL}">{escape(words)}</text></g>'
        )

    def _arrow(self, chain: Sequence[_Node]) -> str:
        upper, lower = chain[0], chain[-1]
        start = _port(upper, upper.below, chain[1])
        end = _port(lower, lower.above, chain[-2])
        x, y = start, self._top(upper.floor) + _BOX_HEIGHT
        path = [f"M{x:.1f},{y:.1f}"]
        for node in chain[1:]:
            target = end if node is lower else node.x
            bottom = self._top(node.floor) - (6 if node is lower else 0)
            half = (y + bottom) / 2
            path.append(f"C{x:.1f},{half:.1f} {target:.1f},{half:.1f} {target:.1f},{bottom:.1f}")
            x, y = target, bottom
            if node is not lower:
                y += _BOX_HEIGHT
                path.append(f"V{y:.1f}")
        head = f"M{x - 4:.1f},{y - 1:.1f} L{x + 4:.1f},{y - 1:.1f} L{x:.1f},{y + 6:.1f} Z"
        name = f"{upper.name} imports {lower.name}"
        return (
            f'<g><title>{escape(name)}</title><path d="{" ".join(path)}" fill="none" stroke="{_LINE}" '
            f'stroke-width="1.4"/><path d="{head}" fill="{_LINE}"/></g>'
        )


def _port(node: _Node, neighbours: Sequence[_Node], neighbour: _Node) -> float:
    """Where an arrow meets a box: side by side, in the order of their other ends."""
    order = sorted(neighbours, key=lambda other: (other.x, other.name))
    step = min(26.0, (node.width - 24) / max(1, len(order)))
    return node.x + (order.index(neighbour) - (len(order) - 1) / 2) * step
