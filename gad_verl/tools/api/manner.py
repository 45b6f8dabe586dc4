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
"""How an API wants to be asked, where it differs from the others: found out by its refusals, once for all requests."""

import logging
import re
from dataclasses import dataclass, field
from typing import Any

from gad_verl.tools.api.faults import RejectedError
from gad_verl.tools.api.requests import ChatRequest

logger = logging.getLogger(__name__)

_LIMIT, _LIMIT_OF_O_SERIES = "max_tokens", "max_completion_tokens"
_ONLY_STREAMS = re.compile(
    r"\b(?:only|must|requires?|required|please|enable|needs?)\b[^.]{0,60}\bstream|\bstream\w*\b[^.]{0,40}\b(?:required|only|must)\b",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(
    r"unsupported|not supported?|unrecogni[sz]ed|unknown|extra (?:inputs|fields)|not permitted|not allowed|unexpected"
    r"|only the default|does not (?:accept|take|support)",
    re.IGNORECASE,
)


@dataclass
class Manner:
    """What was learned of an API. Nothing that is learned changes what an answer is drawn from, but for what the caller
    named optional.

    Attributes:
        stream: Answers are asked for as a stream.
        usage_in_stream: Streams are asked for their counts of tokens.
        other_limit: The limit of an answer is called ``max_completion_tokens``.
        left_out: Optional fields that it does not take.
    """

    stream: bool = False
    usage_in_stream: bool = True
    other_limit: bool = False
    left_out: set[str] = field(default_factory=set)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The body of a request, but for the model."""
        sampling = {name: value for name, value in request.sampling.items() if name not in self.left_out}
        if self.other_limit and _LIMIT in sampling:
            limit = sampling.pop(_LIMIT)
            sampling.setdefault(_LIMIT_OF_O_SERIES, limit)
        if self.stream:
            sampling["stream"] = True
            if self.usage_in_stream:
                sampling["stream_options"] = {"include_usage": True}
        return {"messages": list(request.messages), **sampling}

    def learn(self, request: ChatRequest, sent: dict[str, Any], error: RejectedError) -> bool:
        """Read a refusal.

        Args:
            request: What was asked.
            sent: The body that was refused.
            error: The refusal.

        Returns:
            Whether the request now has another body, so that it is worth sending once more.
        """
        words = str(error)
        if _LIMIT in sent and (
            _LIMIT_OF_O_SERIES in words or (error.param, error.code) == (_LIMIT, "unsupported_parameter")
        ):
            self.other_limit = True
        if "stream" not in sent and _ONLY_STREAMS.search(words):
            self.stream = True
        if "stream_options" in sent and "stream_options" in words:
            self.usage_in_stream = False
        for name in request.optional:
            is_meant = error.param == name or re.search(rf"\b{name}\b", words) is not None
            if name in sent and is_meant and (error.code.startswith("unsupported") or _NOT_TAKEN.search(words)):
                if name not in self.left_out:
                    logger.warning("the API does not take %s=%s: it is left out", name, sent[name])
                self.left_out.add(name)
        return self.body(request) != sent
