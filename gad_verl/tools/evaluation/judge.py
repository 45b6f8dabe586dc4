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
"""The judge: asks an OpenAI-compatible API for reference answers and for marks, in both orders, and keeps every reply.

Nothing is asked twice: a reply is stored under the content of its request, so that checkpoints that share a store share
reference answers, and an interrupted run goes on where it was.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from gad_verl.errors import GadConfigError, GadEndpointError
from gad_verl.tools.api import AnswerStore, ChatRequest, Endpoint, check_endpoint, request_key
from gad_verl.tools.api.requests import check_json
from gad_verl.tools.data.cleaning import strip_thinking
from gad_verl.tools.evaluation.judge_prompts import Messages, rating_request, reference_request
from gad_verl.tools.evaluation.judge_replies import parse_scores
from gad_verl.tools.evaluation.rows import Row

logger = logging.getLogger(__name__)

# A reply that cannot be read is asked for again with these: at temperature 0 the same reply would come back.
_RETRY_TEMPERATURE = 0.7
_ORDERS = 2


@dataclass(frozen=True)
class JudgeSettings:
    """How the judge is asked.

    Args:
        attempts: How often one rating is asked for at most, until its reply can be read.
        rating_tokens: Longest reply to a rating.
        reference_tokens: Longest reference answer.
        options: Fields of the request's body, over the defaults; None removes one (some models take no temperature).
    """

    attempts: int = 3
    rating_tokens: int = 512
    reference_tokens: int = 1536
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("attempts", "rating_tokens", "reference_tokens"):
            if getattr(self, name) < 1:
                raise GadConfigError(f"--judge-{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")

        check_json(self.options, "--judge-option")

    @property
    def optional(self) -> tuple[str, ...]:
        """Fields that nobody asked for: they are left out where the judge's API takes none."""
        return tuple(name for name in ("temperature", "seed") if name not in self.options)

    def sampling(self, max_tokens: int, attempt: int = 0) -> dict[str, Any]:
        """Body of a request, apart from its messages."""
        body = {"temperature": 0.0 if attempt == 0 else _RETRY_TEMPERATURE, "max_tokens": max_tokens, "seed": attempt}
        if self.options.get("max_completion_tokens") is not None:
            body.pop("max_tokens")  # one limit has two names
        return {name: value for name, value in {**body, **self.options}.items() if value is not None}


@dataclass
class JudgeCounts:
    """What happened on the way.

    Args:
        ratings: Ratings wanted, each order counted.
        asked_again: Ratings whose first reply could not be read.
        unparsed: Ratings of which no reply could be read.
        unanswered: Ratings and references that the API did not answer.
        empty_references: Prompts to which the judge wrote nothing, or nothing but thoughts.
        cut_replies: Ratings and references that could not be read and were stopped by their length.
        sent: Requests sent in this run.
    """

    ratings: int = 0
    asked_again: int = 0
    unparsed: int = 0
    unanswered: int = 0
    empty_references: int = 0
    cut_replies: int = 0
    sent: int = 0


class Judge:
    """Asks for references and marks.

    Args:
        endpoint: Where the judge is.
        store: Where replies are kept; stays open.
        settings: How it is asked.
    """

    def __init__(self, endpoint: Endpoint, store: AnswerStore, settings: JudgeSettings | None = None) -> None:
        self.endpoint = endpoint
        self.settings = settings or JudgeSettings()
        self.counts = JudgeCounts()
        self._store = store
        self._checked = False
        self._heard = False
        self._source_is_noted = False

    def check(self) -> None:
        """Find out whether the API answers, once.

        Raises:
            GadEndpointError: Unreachable, unauthorised, an unknown model.
            GadConfigError: The key's variable is not set.
        """
        if not self._checked:
            check_endpoint(self.endpoint, self.settings.sampling(1), self.settings.optional)
            self._checked = True

    def references(self, rows: Sequence[Row]) -> list[str | None]:
        """The judge's own answer to each prompt; None where it wrote nothing or the API refused.

        Raises:
            GadEndpointError: If the API fails; what was answered is kept.
        """
        sampling = self.settings.sampling(self.settings.reference_tokens)
        requests = [self._request(reference_request(row.chat), sampling) for row in rows]
        self._ask(requests, "References")
        references: list[str | None] = []
        for request in requests:
            answer = self._store.get(request.key)
            # Its thoughts are no answer: the rating would show them as one.
            text = None if answer is None else strip_thinking(answer.text).strip()
            self.counts.unanswered += text is None
            self.counts.empty_references += text == ""
            self.counts.cut_replies += text == "" and answer.finish_reason == "length"
            references.append(text or None)
        return references

    def rate(
        self,
        pairs: Sequence[tuple[str, str, str]],
        what: str = "Ratings",
        images: Sequence[Sequence[bytes]] | None = None,
    ) -> np.ndarray:
        """Marks of pairs of texts in both orders.

        Args:
            pairs: Question, first text, second text.
            what: Name for the progress bar.
            images: Of each question; None where no question has any.

        Returns:
            Shape (pairs, 4): marks of the first and the second text where the first came first, then where the second
            came first (the form of :mod:`gad_verl.tools.evaluation.preferences`). NaN where no reply could be read.

        Raises:
            GadEndpointError: If the API fails; what was answered is kept.
        """
        orders: list[Messages] = []
        for (question, *texts), seen in zip(pairs, images or [()] * len(pairs), strict=True):
            orders += [rating_request(question, *both, seen) for both in (texts, texts[::-1])]
        marks: list[tuple[float, float] | None] = [None] * len(orders)
        missing = list(range(len(orders)))
        self.counts.ratings += len(orders)
        for attempt in range(self.settings.attempts):
            sampling = self.settings.sampling(self.settings.rating_tokens, attempt)
            requests = {number: self._request(orders[number], sampling, attempt) for number in missing}
            self._ask(list(requests.values()), what if attempt == 0 else f"{what}, again {attempt}", attempt > 0)
            silent = [number for number, request in requests.items() if request.key not in self._store]
            self.counts.unanswered += len(silent)
            for number, request in requests.items():
                answer = self._store.get(request.key)
                marks[number] = None if answer is None else parse_scores(answer.text)
            self.counts.cut_replies += sum(
                marks[number] is None
                and (answer := self._store.get(request.key)) is not None
                and answer.finish_reason == "length"
                for number, request in requests.items()
            )
            missing = [number for number in missing if marks[number] is None and number not in set(silent)]
            if attempt == 0:
                self.counts.asked_again += len(missing) if self.settings.attempts > 1 else 0
            if not missing:
                break
        self.counts.unparsed += len(missing)
        if missing and self.counts.cut_replies:
            logger.warning(
                "%d replies of the judge were stopped by their length before they could be read: a judge that thinks "
                "first needs a larger --judge-rating-tokens (%d) and --judge-reference-tokens (%d)",
                self.counts.cut_replies,
                self.settings.rating_tokens,
                self.settings.reference_tokens,
            )
        table = np.full((len(pairs), 2 * _ORDERS), np.nan)
        for number, scores in enumerate(marks):
            if scores is not None:
                pair, swapped = divmod(number, _ORDERS)
                table[pair, 2 * swapped : 2 * swapped + 2] = scores[::-1] if swapped else scores
        return table

    def _request(self, messages: Messages, sampling: Mapping[str, Any], attempt: int = 0) -> ChatRequest:
        return ChatRequest(
            request_key(messages, sampling, self.endpoint.model, attempt), messages, sampling, self.settings.optional
        )

    def _note_source(self) -> None:
        """Note in the store, once, where replies of this model come from; say so where others came from elsewhere."""
        if self._source_is_noted:
            return
        self._source_is_noted = True
        model, url = self.endpoint.model, self.endpoint.base_url
        before = self._store.noted(f"base URL of {model}", url)
        if before != url:
            logger.warning(
                "%s: replies of %r there came from %s, and count as replies of %s too; name another --judge-store if "
                "that is another model",
                self._store.path,
                model,
                before,
                url,
            )

    def _ask(self, requests: Sequence[ChatRequest], what: str, again: bool = False) -> None:
        missing = [request for request in requests if request.key not in self._store]
        self._heard = self._heard or len(missing) < len(requests)
        if not missing:
            self._note_source()
            return
        # Here and not above: what only reads results needs no client.
        from gad_verl.tools.api import answer_all_sync

        self.check()
        self._note_source()
        with tqdm(total=len(requests), initial=len(requests) - len(missing), desc=what, unit="reply") as bar:

            def progress(*_: Any) -> None:
                bar.update()

            summary = answer_all_sync(self.endpoint, missing, self._store, progress=progress, heard=self._heard)
        self.counts.sent += summary.asked
        failed = summary.failed.total()
        for reason, number in summary.failed.most_common():
            logger.warning("%d requests to the judge got no answer: %s", number, summary.last_faults[reason])
        # Of a judge that has answered before, requests that are refused for good are the fault of their texts.
        is_down = not self._heard or summary.failed.keys() != {"rejected"}
        if failed == len(requests) and is_down and not again:
            words = summary.last_faults[summary.failed.most_common(1)[0][0]]
            raise GadEndpointError(
                f"the judge {self.endpoint.model!r} answered none of {failed} requests; the last one: {words}. A field "
                "that it does not take is removed by --judge-option NAME=null; the same command asks again"
            )
        self._heard = self._heard or failed < len(requests)
        if failed:
            logger.warning(
                "%d of %d requests to the judge have no answer; the same command asks again", failed, len(missing)
            )
