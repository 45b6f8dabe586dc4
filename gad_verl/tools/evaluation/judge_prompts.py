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
"""What a judge is asked. The criteria and the scale are the paper's (arXiv 2511.10643), the words are our own."""

from collections.abc import Mapping, Sequence
from typing import Any

from gad_verl.data.images import for_api

_SYSTEM = "You compare answers that two assistants gave to the same question, and you rate both of them fairly."

_TASK = """\
[Question]
{question}
[End of the question]

[Answer of Assistant 1]
{first}
[End of the answer of Assistant 1]

[Answer of Assistant 2]
{second}
[End of the answer of Assistant 2]

Rate the two answers for helpfulness, relevance, accuracy and level of detail. Give each assistant one overall score \
from 1 (worst) to 10 (best). Which answer comes first must not matter to you.
Write the two scores on the first line and nothing else there: the score of Assistant 1, a space, the score of \
Assistant 2. Explain the scores in the lines that follow."""

Messages = tuple[dict[str, Any], ...]


def reference_request(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """The judge answers the prompt itself, and sees its images (``Row.chat``)."""
    return tuple(for_api([{"role": message["role"], "content": message["content"]} for message in messages]))


def rating_request(question: str, first: str, second: str, images: Sequence[bytes] = ()) -> Messages:
    """The judge rates two answers, in this order; the images of the question follow in theirs."""
    task = _TASK.format(question=question, first=first.strip(), second=second.strip())
    if not images:
        return ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": task})
    parts = [{"type": "text", "text": task}, *({"type": "image", "image": image} for image in images)]
    return tuple(for_api([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": parts}]))
