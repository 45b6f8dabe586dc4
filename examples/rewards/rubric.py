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
"""A rubric as the reward: points that a good answer to this prompt has to make, and the share that an answer makes.

As in judge.py (its environment variables too), with ``rubric.py:share``. The points of a prompt are written once from
the teacher's text, kept in the store, and the same for the whole run: a question for each prompt, then one for each
answer. ROPD (arXiv 2605.07396) derives its rubrics from the student's answers as well, so that they change with the
student; that costs a question per prompt and step, and is left out here.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

POINTS = """\
Below are a request and an excellent answer. Write 4 to 8 points by which other answers to this request can be \
checked: what a good answer must say or do. Each point is one short sentence that is either true or false of an \
answer, on a line of its own that begins with "- ". Write nothing else.

[Request]
{request}

[Excellent answer]
{teacher}"""

CHECK = """\
Below are a request, an answer, and points. Which points are true of the answer? Reply with their numbers, separated \
by commas, or with "none", and nothing else.

[Request]
{request}

[Answer]
{answer}

[Points]
{points}"""
MOST_POINTS = 12


def _judge() -> ModuleType:
    """judge.py beside this file: a run loads this one by its path."""
    spec = importlib.util.spec_from_file_location("gad_examples_judge", Path(__file__).with_name("judge.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


judge = _judge()


def read_points(reply: str | None) -> list[str]:
    """The points of a reply; none where it has none."""
    return re.findall(r"^\s*[-*]\s+(\S.*?)\s*$", reply or "", re.MULTILINE)[:MOST_POINTS]


def read_share(reply: str | None, count: int) -> float | None:
    """Share of the points that a reply says are met; None if it cannot be read."""
    text = (reply or "").strip().strip(".").lower()
    if text == "none":
        return 0.0
    if not re.fullmatch(r"\d+(?:\s*,\s*\d+)*", text):
        return None
    numbers = {int(number) for number in re.findall(r"\d+", text)}
    return len(numbers) / count if numbers <= set(range(1, count + 1)) else None


def share(groups: Sequence[Any]) -> list[list[float | None]]:
    """Reward of each answer (``gad.reward.group_function``): the share of its prompt's points that it makes.

    Args:
        groups: Of :class:`gad_verl.trainer.group_rewards.AnswerGroup`.
    """
    requests = [judge.request_of(group.messages) for group in groups]
    written = judge.ask(
        [
            POINTS.format(request=request, teacher=group.teacher_texts[0])
            for request, group in zip(requests, groups, strict=True)
        ],
        max_tokens=512,
    )
    points = [read_points(reply) for reply in written]
    asked = [
        (number, text)
        for number, group in enumerate(groups)
        for text in dict.fromkeys(group.answers)
        if text is not None and points[number]
    ]
    replies = judge.ask(
        [
            CHECK.format(
                request=requests[number],
                answer=text,
                points="\n".join(f"{place}. {point}" for place, point in enumerate(points[number], 1)),
            )
            for number, text in asked
        ],
        max_tokens=64,
    )
    found = {
        (number, text): read_share(reply, len(points[number]))
        for (number, text), reply in zip(asked, replies, strict=True)
    }
    return [
        [None if text is None else found.get((number, text)) for text in group.answers]
        for number, group in enumerate(groups)
    ]
