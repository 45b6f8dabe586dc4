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
"""Scripted judges on the loopback interface."""

import re
from collections.abc import Callable
from typing import Any

# As gad_verl.tools.evaluation.judge_prompts lays a rating out.
_TASK = re.compile(
    r"\[Question\]\n(.*)\n\[End of the question\]"
    r".*\[Answer of Assistant 1\]\n(.*)\n\[End of the answer of Assistant 1\]"
    r".*\[Answer of Assistant 2\]\n(.*)\n\[End of the answer of Assistant 2\]",
    re.DOTALL,
)

# Question, first answer, second answer, body of the request -> reply.
Opinion = Callable[[str, str, str, dict[str, Any]], str]


def text_of(body: dict[str, Any]) -> str:
    """The text of the last message, which may have images."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def rating_of(body: dict[str, Any]) -> tuple[str, str, str] | None:
    """Question and both answers of a rating; None for the request of a reference."""
    match = _TASK.search(text_of(body))
    return None if match is None else (match[1], match[2], match[3])


def scripted(opinion: Opinion) -> Callable[[dict[str, Any]], tuple[str, str]]:
    """An ``answer`` for :class:`fault_server.FaultServer`: references name their question, ratings are the opinion."""

    def answer(body: dict[str, Any]) -> tuple[str, str]:
        rating = rating_of(body)
        if rating is None:
            return f"reference to {text_of(body)}", "stop"
        return opinion(*rating, body), "stop"

    return answer


def by_length(question: str, first: str, second: str, body: dict[str, Any]) -> str:
    """One point for every character, at most ten, at least one: knows the texts and not the places."""
    return "{} {}\nThe longer the better.".format(*(max(1, min(10, len(text))) for text in (first, second)))


def always_first(question: str, first: str, second: str, body: dict[str, Any]) -> str:
    """Prefers the place."""
    return "9 5\nThe first answer is better."


def mumbling(question: str, first: str, second: str, body: dict[str, Any]) -> str:
    """Cannot be read."""
    return "Both answers have something to them."
