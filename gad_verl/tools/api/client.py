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
"""Asks an API for many answers, at its pace, over its faults, and only for what is not stored yet."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai
import tenacity

from gad_verl.data.content import is_blank
from gad_verl.errors import GadEndpointError
from gad_verl.tools.api.connection import open_client
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.faults import PassingError, RejectedError
from gad_verl.tools.api.gate import Gate
from gad_verl.tools.api.manner import Manner
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest, answer_limit, estimate_prompt_tokens
from gad_verl.tools.api.store import AnswerStore
from gad_verl.tools.api.transport import ask_once

logger = logging.getLogger(__name__)

# So many requests that fail in a row, with no answer between, end the run: the API is down, or refuses everything.
MIN_FAILURES_IN_A_ROW = 10
# A pause that the API asks for is said aloud from here on.
LONG_PAUSE_S = 20.0
# Requests that are in the store already need no waiting: the loop is given to the others from time to time.
_BREATH = 256


@dataclass
class Summary:
    """What a run of :func:`answer_all` has done; it grows while the run goes on.

    Attributes:
        stored: Requests whose answer was in the store already.
        asked: Requests that were sent, each counted once.
        answered: Of these, the ones whose answer is in the store now.
        attempts: Times that something was sent, retries included.
        failed: Requests without an answer, by reason; ``rejected`` are those the API refuses for good.
        faults: Attempts that failed and were made again, by reason.
        last_faults: The latest fault of each reason, in words.
        thoughts_alone: New answers without text whose thoughts came in a field of their own.
    """

    stored: int = 0
    asked: int = 0
    answered: int = 0
    attempts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    last_faults: dict[str, str] = field(default_factory=dict)
    thoughts_alone: int = 0

    @property
    def retries(self) -> int:
        """Attempts beyond the first of each request."""
        return self.attempts - self.asked

    def __add__(self, other: "Summary") -> "Summary":
        numbers = {name: value + vars(other)[name] for name, value in vars(self).items() if name != "last_faults"}
        return Summary(**numbers, last_faults={**self.last_faults, **other.last_faults})


# Called after each request that is settled: the summary, and the answer, from the store or new; None for a failure.
Progress = Callable[[Summary, ChatRequest, ChatAnswer | None], None]


class Stop:
    """Ends calls of :func:`answer_all` that belong together: nothing more is sent, and what was sent may arrive.

    Attributes:
        error: Why; None while they go on.
    """

    def __init__(self) -> None:
        self.error: GadEndpointError | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    def now(self, error: GadEndpointError) -> None:
        """End them: who waits for his turn or for a next attempt is not needed any more."""
        self.error = self.error or error
        for task in self._waiting - {asyncio.current_task()}:
            task.cancel()

    @contextmanager
    def patience(self) -> Iterator[None]:
        """A part of a worker's task in which it has paid for nothing yet; none begins after the end."""
        if self.error is not None:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)


async def answer_all(
    endpoint: Endpoint,
    requests: Iterable[ChatRequest],
    store: AnswerStore,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    heard: bool = False,
) -> Summary:
    """Ask for every answer that the store lacks.

    Requests are taken from the iterable as they can be sent, so that any number of them fits the memory. Two with the
    same key are asked once. Cancelling it (Ctrl-C) drops the requests in flight and keeps every answer that arrived.
    An error that ends it lets the requests in flight arrive first: they are paid for.

    Args:
        endpoint: Where to ask, and the limits to keep.
        requests: What to ask.
        store: Where the answers are and go; stays open.
        progress: Called after each request that is settled.
        stop: Shared by calls that end together; None for one alone.
        heard: Whether the API is known to answer such requests, by an earlier call: refusals alone end no run then.

    Returns:
        Counts. Requests that failed for good are in ``failed``; the same call later asks for them again.

    Raises:
        GadEndpointError: The key is refused, the model is unknown, or so many requests in a row failed that going on
            is pointless. The answers so far are in the store.
        GadDataError: An answer cannot be written.
    """
    run = _Run(endpoint, iter(requests), store, progress, stop or Stop(), heard)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(endpoint.max_concurrency):
                group.create_task(run.work())
    except BaseExceptionGroup as errors:
        raise first_leaf(errors) from None
    finally:
        await run.close()
    if run.stop.error is not None:
        raise run.stop.error
    return run.summary


def answer_all_sync(
    endpoint: Endpoint,
    requests: Iterable[ChatRequest],
    store: AnswerStore,
    *,
    progress: Progress | None = None,
    heard: bool = False,
) -> Summary:
    """:func:`answer_all` for code without an event loop. Ctrl-C ends it with KeyboardInterrupt and nothing lost."""
    return asyncio.run(answer_all(endpoint, requests, store, progress=progress, heard=heard))


class _Run:
    """What the workers of one run share."""

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Iterator[ChatRequest],
        store: AnswerStore,
        progress: Progress | None,
        stop: Stop,
        heard: bool,
    ) -> None:
        self.endpoint = endpoint
        self.requests = requests
        self.store = store
        self.progress = progress
        self.stop = stop
        self.heard = heard
        self.manner = Manner(endpoint.stream)
        self.summary = Summary()
        self.gate = Gate(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self.in_flight: set[str] = set()
        self.failures_in_a_row = 0
        self.mean_answer_tokens: float | None = None
        self._client: openai.AsyncOpenAI | None = None

    @property
    def client(self) -> openai.AsyncOpenAI:
        """Opened for the first request that is sent: where everything is stored, neither key nor server is needed."""
        if self._client is None:
            self._client = open_client(self.endpoint)
        return self._client

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def work(self) -> None:
        """One worker: takes the next request until there is none."""
        for seen, request in enumerate(self.requests):
            if self.stop.error is not None:
                return
            if seen % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            if request.key in self.in_flight:
                continue
            if (answer := self.store.get(request.key)) is not None:
                self.summary.stored += 1
                self._settle(request, answer)
                continue
            self.in_flight.add(request.key)
            try:
                await self._ask(request)
            except GadEndpointError as error:
                self.stop.now(error)
                return
            finally:
                self.in_flight.discard(request.key)

    async def _ask(self, request: ChatRequest) -> None:
        self.summary.asked += 1
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=self._attempts_used_up(),
                wait=self._seconds_to_wait,
                retry=tenacity.retry_if_exception_type(PassingError),
                before_sleep=self._note_fault,
                sleep=self._sleep,
                reraise=True,
            ):
                with attempt:
                    answer = await self._attempt(request)
        except PassingError as error:
            self._fail(request, error.reason, str(error))
        except RejectedError as error:
            self.store.put_rejected(request.key, str(error))
            self._fail(request, "rejected", str(error))
        else:
            # From the arrival to here nothing waits: an answer that came is stored, whatever interrupts the run.
            self.store.put(answer)
            self.failures_in_a_row = 0
            self.summary.answered += 1
            self.summary.thoughts_alone += answer.thoughts and is_blank(answer.text)
            self._settle(request, answer)

    async def _sleep(self, seconds: float) -> None:
        with self.stop.patience():
            await asyncio.sleep(seconds)

    async def _attempt(self, request: ChatRequest) -> ChatAnswer:
        prompt = estimate_prompt_tokens(request.messages)
        estimated = prompt + (self.mean_answer_tokens or answer_limit(request.sampling))
        with self.stop.patience():
            await self.gate.enter(estimated)
        self.summary.attempts += 1
        try:
            answer = await ask_once(self.client, self.endpoint, request, self.manner)
        except PassingError as error:
            if not error.counted:
                self.gate.correct(estimated, 0)
            raise
        except RejectedError:
            self.gate.correct(estimated, 0)
            raise
        if answer.completion_tokens is not None:
            self.gate.correct(estimated, (answer.prompt_tokens or prompt) + answer.completion_tokens)
            mean = self.mean_answer_tokens
            # A running mean that forgets slowly: answers in one file have similar lengths.
            self.mean_answer_tokens = (
                answer.completion_tokens if mean is None else mean + (answer.completion_tokens - mean) / 32
            )
        return answer

    def _attempts_used_up(self) -> Callable[[tenacity.RetryCallState], bool]:
        """Of one request. Who is over the limit while others are answered stands in a queue: attempts count anew."""
        counted, answered = 0, self.summary.answered

        def used_up(state: tenacity.RetryCallState) -> bool:
            nonlocal counted, answered
            error = state.outcome.exception()
            if isinstance(error, PassingError) and error.reason == "rate_limited" and self.summary.answered > answered:
                counted, answered = 0, self.summary.answered
            else:
                counted += 1
            return counted >= self.endpoint.attempts

        return used_up

    def _seconds_to_wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next attempt: a pause that doubles, never shorter than the API asks for, and never all
        requests at once."""
        error = state.outcome.exception()
        growing = tenacity.wait_random_exponential(self.endpoint.backoff_s, self.endpoint.max_backoff_s)(state)
        if error.retry_after_s is None:
            return growing
        if error.retry_after_s > self.endpoint.max_retry_after_s:
            raise GadEndpointError(
                f"{self.endpoint.base_url} asks to wait {error.retry_after_s:.0f} s; run the same command later, it "
                "goes on where it stopped"
            )
        # All are told the same second; if all came back at it, the same ones too many would be refused again.
        return max(growing, error.retry_after_s + tenacity.wait_random(0, self.endpoint.backoff_s / 4)(state))

    def _note_fault(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception()
        self.summary.faults[error.reason] += 1
        self.summary.last_faults[error.reason] = str(error)
        if error.retry_after_s is not None:
            # It holds for the key, not for the one request: the others would only be refused as well.
            self.gate.pause(error.retry_after_s)
            if error.retry_after_s >= LONG_PAUSE_S:
                logger.warning("%s asks to wait %.0f s", self.endpoint.base_url, error.retry_after_s)

    def _fail(self, request: ChatRequest, reason: str, detail: str) -> None:
        self.summary.failed[reason] += 1
        self.summary.last_faults[reason] = detail
        # Prompts that are too long may stand side by side in a file, and who refuses them is there: refusals end the
        # run only where nothing else came.
        nothing_came = not (self.heard or self.summary.answered or self.summary.stored)
        self.failures_in_a_row += reason != "rejected" or nothing_came
        self._settle(request, None)
        limit = max(MIN_FAILURES_IN_A_ROW, 2 * self.endpoint.max_concurrency)
        if self.failures_in_a_row >= limit:
            raise GadEndpointError(
                f"{self.endpoint.base_url}: {self.failures_in_a_row} requests in a row failed, the last one with "
                f"{detail}; answers so far are kept, and the same command goes on"
            )

    def _settle(self, request: ChatRequest, answer: ChatAnswer | None) -> None:
        if self.progress is not None:
            self.progress(self.summary, request, answer)


def first_leaf(errors: BaseExceptionGroup) -> BaseException:
    """The first single error in a group of groups: what a user is told of tasks that failed together."""
    error = errors.exceptions[0]
    return first_leaf(error) if isinstance(error, BaseExceptionGroup) else error
