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
"""A judge's marks as the reward: one question to an OpenAI-compatible API for all answers to a prompt.

    export GAD_REWARD_URL=http://localhost:8000/v1 GAD_REWARD_MODEL=a-judge GAD_REWARD_STORE=/runs/a/judge.sqlite
    python -m verl.trainer.main_ppo --config-name gad_trainer gad=paper \\
        gad.reward.group_function=$PWD/examples/rewards/judge.py:marks gad.reward.task_weight=1.0 \\
        gad.reward.discriminator_weight=0 ...

``gad=paper``, since the default lets a reward teach as far as the discriminator knows, which the judge is not asked
about. The key is read from the variable that GAD_REWARD_KEY_ENV names (OPENAI_API_KEY). Every reply is kept in the
store under the content of its question, so that a resumed run asks nothing twice; a question without an answer, or
whose reply cannot be read, gives its prompt no direction in that step. The judge reads the teacher's text as an example
of a good answer.
"""

import functools
import os
import re
from collections.abc import Sequence
from typing import Any

from gad_verl.tools.api import AnswerStore, ChatRequest, Endpoint, ask_for_texts, request_key

HIGHEST = 10
QUESTION = """\
Rate the answers to the request below from 0 (useless) to {highest} (excellent): is what it says right, helpful, \
complete, and no longer than it has to be? Answers may be equal. An example of an excellent answer is given; another \
way may be as good.

[Request]
{request}

[Excellent answer]
{teacher}

{answers}

Reply with one line for each answer and nothing else, its number, a colon, and the mark, such as "1: 7"."""


@functools.cache
def connection() -> tuple[Endpoint, AnswerStore]:
    """Where to ask, and where the replies are, from the environment of the run."""
    endpoint = Endpoint(
        os.environ["GAD_REWARD_URL"],
        os.environ["GAD_REWARD_MODEL"],
        api_key_env=os.environ.get("GAD_REWARD_KEY_ENV", "OPENAI_API_KEY"),
        max_concurrency=int(os.environ.get("GAD_REWARD_CONCURRENCY", "16")),
        attempts=int(os.environ.get("GAD_REWARD_ATTEMPTS", "4")),
    )
    return endpoint, AnswerStore(os.environ["GAD_REWARD_STORE"])


def ask(questions: Sequence[str], max_tokens: int) -> list[str | None]:
    """The replies; None where there is none."""
    endpoint, store = connection()
    sampling = {"temperature": 0.0, "max_tokens": max_tokens}
    requests = []
    for question in questions:
        messages = ({"role": "user", "content": question},)
        key = request_key(messages, sampling, endpoint.model, 0)
        requests.append(ChatRequest(key, messages, sampling, optional=("temperature",)))
    return ask_for_texts(endpoint, requests, store)


def request_of(messages: Sequence[dict[str, Any]]) -> str:
    """The prompt as a judge reads it."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"({message['role']}) {message['content']}" for message in messages)


def read_marks(reply: str | None, count: int) -> list[float] | None:
    """The marks of a reply, from 0 to 1; None if it does not give each answer exactly one on the scale."""
    found: dict[int, float] = {}
    for number, mark in re.findall(
        r"^\W*(\d+)[\s*_]*[:.)\]]+[\s*_]*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$", reply or "", re.MULTILINE
    ):
        if int(number) in found or float(mark) > HIGHEST:
            return None
        found[int(number)] = float(mark) / HIGHEST
    return [found[number] for number in range(1, count + 1)] if sorted(found) == [*range(1, count + 1)] else None


def marks(groups: Sequence[Any]) -> list[list[float | None]]:
    """Reward of each answer (``gad.reward.group_function``): the judge's mark over the highest.

    Args:
        groups: Of :class:`gad_verl.trainer.group_rewards.AnswerGroup`.
    """
    questions, there = [], []
    for group in groups:
        # Equal answers get equal marks, and are paid for once.
        texts = list(dict.fromkeys(text for text in group.answers if text is not None))
        there.append(texts)
        shown = "\n\n".join(f"[Answer {number}]\n{text}" for number, text in enumerate(texts, 1))
        request = request_of(group.messages)
        questions.append(
            QUESTION.format(highest=HIGHEST, request=request, teacher=group.teacher_texts[0], answers=shown)
        )
    replies = ask(questions, max_tokens=16 * max(map(len, there), default=1) + 16)
    rewards: list[list[float | None]] = []
    for group, texts, reply in zip(groups, there, replies, strict=True):
        read = read_marks(reply, len(texts))
        of_text: dict[str, float] = {} if read is None else dict(zip(texts, read, strict=True))
        rewards.append([None if text is None else of_text.get(text) for text in group.answers])
    return rewards
