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
"""The client against a server on loopback that fails in every way the protocol knows."""

import asyncio
import gc
import itertools
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from fault_server import Faults, FaultServer, most_in_a_window

from gad_verl.errors import GadConfigError, GadEndpointError
from gad_verl.tools.api import (
    AnswerStore,
    ChatAnswer,
    ChatRequest,
    Endpoint,
    Summary,
    answer_all,
    answer_all_sync,
    ask_for_texts,
    check_endpoint,
)
from gad_verl.tools.api.faults import retry_after

SECRET = "sk-test-5ecret0123456789"


def endpoint_of(server: FaultServer, **more: Any) -> Endpoint:
    settings = {"timeout_s": 5.0, "backoff_s": 0.01, "max_backoff_s": 0.1, "attempts": 12}
    return Endpoint(**{"base_url": server.base_url, "model": server.model, **settings, **more})


def requests_of(count: int, start: int = 0) -> Iterator[ChatRequest]:
    for i in range(start, count):
        yield ChatRequest(f"{i:05}", ({"role": "user", "content": f"question {i}"},), {"max_tokens": 8, "seed": 1})


def run(endpoint: Endpoint, count: int, path: Path, **more: Any) -> Summary:
    with AnswerStore(path) as store:
        return answer_all_sync(endpoint, requests_of(count), store, **more)


def texts(path: Path) -> dict[str, str]:
    with AnswerStore(path) as store:
        return {key: store.get(key).text for key in store.keys()}


def expected(count: int) -> dict[str, str]:
    return {f"{i:05}": f"Answer to: question {i}" for i in range(count)}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def test_a_thousand_requests_under_faults_within_the_limit(db: Path) -> None:
    """Every fault, 30 % of all requests; complete, right, none asked after it was stored, and the limit is kept."""
    per_second = 150
    with FaultServer(faults=Faults.evenly(0.3, silence_s=10, seed=7)) as server:
        endpoint = endpoint_of(server, timeout_s=2.0, max_concurrency=32, requests_per_minute=60 * per_second)
        begin = time.monotonic()
        summary = run(endpoint, 1000, db)
        assert texts(db) == expected(1000)
        assert (summary.answered, summary.asked, summary.stored, summary.failed) == (1000, 1000, 0, Counter())
        met = Counter(received.fault for received in server.received)
        assert len(met) == 7 and 350 < len(server.received) - 1000 < 600
        # On a busy machine a few requests may run out of time before the server sees them, or after its answer.
        assert len(server.received) <= summary.attempts == 1000 + summary.retries and met[None] < 1100
        last = {received.prompt: received.fault for received in server.received}
        assert set(last.values()) == {None}
        times = sorted(received.time for received in server.received)
        assert times[-1] - begin >= (len(times) - 1) / per_second
        # Arrival is measured at the server, whose thread may have stood still for a moment; test_gate has exact clocks.
        assert most_in_a_window(times, 2.0) <= 1.25 * 2 * per_second
        assert server.most_in_flight <= 32


def test_tokens_per_minute_are_kept_by_the_apis_own_count(db: Path) -> None:
    def long(body: dict[str, Any]) -> tuple[str, str]:
        return "word " * 98, "stop"

    with FaultServer(answer=long) as server:
        # 2 words of the prompt and 98 of the answer; 100 requests of 100 tokens at 12,000 a minute: 0.5 s each.
        run(endpoint_of(server, tokens_per_minute=300_000), 100, db)
        times = sorted(received.time for received in server.received)
    # The first estimates are off (max_tokens 8 instead of 98); from the corrections on it is 50 a second.
    assert most_in_a_window(times[20:], 1.0) <= 50 + 25


def test_only_what_is_missing_is_asked(db: Path) -> None:
    with FaultServer() as server:
        first = run(endpoint_of(server), 30, db)
        second = run(endpoint_of(server), 50, db)
        third = run(endpoint_of(server), 50, db)
    assert (first.answered, second.stored, second.asked, third.stored, third.asked) == (30, 30, 20, 50, 0)
    assert max(Counter(received.prompt for received in server.received).values()) == 1


def test_the_same_key_is_asked_once(db: Path) -> None:
    with FaultServer(latency_s=0.05) as server, AnswerStore(db) as store:
        twice = [request for request in requests_of(5) for _ in range(2)]
        answer_all_sync(endpoint_of(server), twice, store)
        assert len(server.received) == 5


def test_requests_are_pulled_as_they_are_sent(db: Path) -> None:
    """With 200,000 prompts neither the iterator is drained in advance nor a task made for each."""
    pulled, tasks = 0, 0

    def many() -> Iterator[ChatRequest]:
        nonlocal pulled
        for request in requests_of(200):
            pulled += 1
            yield request

    def watch(summary: Summary, request: ChatRequest, answer: ChatAnswer | None) -> None:
        nonlocal tasks
        assert pulled <= summary.answered + 4
        tasks = max(tasks, len(asyncio.all_tasks()))

    with FaultServer() as server, AnswerStore(db) as store:
        answer_all_sync(endpoint_of(server, max_concurrency=4), many(), store, progress=watch)
        assert server.most_in_flight <= 4 and tasks < 20


@pytest.mark.parametrize("value", ["0.4", "date"])
def test_retry_after_is_respected(db: Path, value: str) -> None:
    with FaultServer(faults=Faults(rate_limited=0.12, retry_after=value, seed=3)) as server:
        # One at a time: whatever comes next, the same request or another, has to wait.
        run(endpoint_of(server, max_concurrency=1), 20, db)
        gaps = [after.time - one.time for one, after in itertools.pairwise(server.received) if one.fault]
    assert gaps
    # The date is two seconds ahead, and has no fractions of a second.
    assert min(gaps) >= (0.4 if value == "0.4" else 0.9)


def test_retry_after_holds_for_the_whole_run(db: Path) -> None:
    """A request that waits for its turn is kept back by the refusal of another one."""
    with FaultServer(latency_s=0.02, answer=lambda body: ("fine", "stop")) as server:
        refused_at: list[float] = []

        def refuse_once(content: str, occurrence: int) -> str | None:
            if len(server.received) != 3 or refused_at:
                return None
            refused_at.append(time.monotonic())
            return "rate_limited"

        server.faults = Faults(retry_after="1.5")
        object.__setattr__(server.faults, "draw", refuse_once)
        run(endpoint_of(server, max_concurrency=4), 40, db)
        later = [received.time for received in server.received if received.time > refused_at[0]]
    # Up to three others were on their way; then nobody comes for a second and a half.
    assert max(after - before for before, after in itertools.pairwise(sorted([refused_at[0], *later]))) >= 1.2


@pytest.mark.parametrize("retry_after_s", ["0.02", None])
def test_a_rate_limit_that_is_kept_busy_leaves_no_request_without_an_answer(
    db: Path, retry_after_s: str | None
) -> None:
    """Many workers, an API that lets few of them in: who is refused while others are answered stands in a queue."""
    admitted: list[float] = []

    def at_most_two_at_once(content: str, occurrence: int) -> str | None:
        now = time.monotonic()
        if sum(now - one < 0.05 for one in admitted) >= 2:
            return "rate_limited"
        admitted.append(now)
        return None

    with FaultServer(faults=Faults(retry_after=retry_after_s)) as server:
        object.__setattr__(server.faults, "draw", at_most_two_at_once)
        summary = run(endpoint_of(server, max_concurrency=16, attempts=5, backoff_s=0.1, max_backoff_s=0.2), 60, db)
    assert (summary.answered, summary.failed) == (60, Counter())
    assert summary.faults["rate_limited"]


def test_a_request_that_alone_is_refused_uses_up_its_attempts(db: Path) -> None:
    """Larger than the limit of a minute: no other answer makes it smaller."""
    with FaultServer(faults=Faults(retry_after="0")) as server:
        object.__setattr__(
            server.faults, "draw", lambda content, occurrence: "rate_limited" if '"question 5"' in content else None
        )
        summary = run(endpoint_of(server, max_concurrency=4, attempts=3), 40, db)
    assert (summary.answered, summary.failed) == (39, Counter(rate_limited=1))
    assert summary.faults["rate_limited"] >= 2


def test_too_long_a_wait_ends_the_run(db: Path) -> None:
    with FaultServer(faults=Faults(rate_limited=1.0, retry_after="3600")) as server:
        with pytest.raises(GadEndpointError, match="asks to wait 3600 s; run the same command later"):
            run(endpoint_of(server), 5, db)


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "3"}) == 3 and retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
    assert [retry_after({"retry-after": value}) for value in ("", "soon", "nan", "inf", "-1")] == [None] * 5
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refuses the key in OPENAI_API_KEY"), (403, "does not allow"), (404, "no model"), (402, "paid first")],
)
def test_an_error_that_stays_ends_the_run_at_once(db: Path, status: int, message: str) -> None:
    with FaultServer(answer=lambda body: status) as server:
        with pytest.raises(GadEndpointError, match=message) as error:
            run(endpoint_of(server, max_concurrency=3), 100, db)
        assert len(server.received) <= 3 and "\n" not in str(error.value)
    assert texts(db) == {}


def test_a_refused_request_is_noted_and_the_others_go_on(db: Path) -> None:
    def too_long(body: dict[str, Any]) -> tuple[str, str] | int:
        return 400 if body["messages"][-1]["content"].endswith("7") else ("fine", "stop")

    with FaultServer(answer=too_long) as server:
        summary = run(endpoint_of(server), 40, db)
        assert (summary.answered, summary.failed, len(server.received)) == (36, Counter(rejected=4), 40)
        assert summary.retries == 0
    with AnswerStore(db) as store:
        assert "status 400: This request cannot be processed" in store.rejection("00017")


def test_an_api_that_refuses_everything_is_left(db: Path) -> None:
    with FaultServer(answer=lambda body: 400) as server:
        with pytest.raises(GadEndpointError, match="10 requests in a row failed, the last one with status 400"):
            run(endpoint_of(server, max_concurrency=2), 500, db)
        assert len(server.received) < 20


def test_a_server_that_stays_away_ends_the_run_and_keeps_the_answers(db: Path) -> None:
    asked = 0

    def dying(body: dict[str, Any]) -> tuple[str, str] | int:
        nonlocal asked
        asked += 1
        return 503 if asked > 25 else ("fine", "stop")

    with FaultServer(answer=dying) as server:
        with pytest.raises(
            GadEndpointError, match="requests in a row failed, the last one with server_error: status 503"
        ):
            run(endpoint_of(server, attempts=2, max_concurrency=4), 500, db)
    assert len(texts(db)) == 25


def test_refusals_side_by_side_are_no_api_that_is_down(db: Path) -> None:
    """Prompts that are filtered, and among them one that times out: the API answers, and so the run goes on."""

    def answer(body: dict[str, Any]) -> tuple[str, str] | int:
        number = int(body["messages"][-1]["content"].split()[-1])
        return 503 if number == 30 else 400 if 5 <= number < 35 else ("fine", "stop")

    with FaultServer(answer=answer) as server:
        summary = run(endpoint_of(server, attempts=1, max_concurrency=1), 40, db)
    assert summary.failed == {"rejected": 29, "server_error": 1} and summary.answered == 10


def test_refusals_of_an_earlier_call_leave_the_new_requests_their_turn(db: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[str, str] | int:
        return 400 if 1 <= int(body["messages"][-1]["content"].split()[-1]) <= 30 else ("fine", "stop")

    with FaultServer(answer=answer) as server, AnswerStore(db) as store:
        endpoint = endpoint_of(server, max_concurrency=1)
        assert ask_for_texts(endpoint, [*requests_of(31)], store) == ["fine"] + [None] * 30
        assert ask_for_texts(endpoint, [*requests_of(32)], store) == ["fine"] + [None] * 30 + ["fine"]


def test_failures_are_counted_by_reason_and_asked_again_later(db: Path) -> None:
    with FaultServer(faults=Faults(server_error=0.3, no_choices=0.3)) as server:
        first = run(endpoint_of(server, attempts=1), 40, db)
        assert set(first.failed) == {"server_error", "broken_answer"} and first.failed.total() + first.answered == 40
        second = run(endpoint_of(server), 40, db)
        assert (second.stored, second.answered) == (first.answered, first.failed.total())
    assert texts(db) == expected(40)


def test_cancelling_keeps_every_answer_that_arrived(db: Path) -> None:
    async def until_some_are_there(endpoint: Endpoint, store: AnswerStore) -> None:
        enough = asyncio.Event()

        def watch(summary: Summary, request: ChatRequest, answer: ChatAnswer | None) -> None:
            if summary.answered >= 10:
                enough.set()

        task = asyncio.create_task(answer_all(endpoint, requests_of(10_000), store, progress=watch))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FaultServer(latency_s=0.02) as server, AnswerStore(db) as store:
        asyncio.run(until_some_are_there(endpoint_of(server, max_concurrency=4), store))
        stored, sent = len(store), len(server.received)
    assert 10 <= stored <= sent <= stored + 4


def test_sampling_reaches_the_server_whatever_it_is(db: Path) -> None:
    sampling = {"temperature": 0.5, "stop": ["\n"], "top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}
    with FaultServer() as server, AnswerStore(db) as store:
        request = ChatRequest("k", ({"role": "user", "content": "ça va? 你好"},), sampling)
        answer_all_sync(endpoint_of(server), [request], store)
        assert store.get("k").text == "Answer to: ça va? 你好"
    body = server.received[0].body
    assert {name: body[name] for name in sampling} == sampling and body["messages"] == list(request.messages)


def test_a_refusal_field_and_an_absent_text_are_told_apart(db: Path) -> None:
    from gad_verl.tools.api.replies import answer_of

    endpoint = Endpoint("http://localhost/v1", "m")
    request = ChatRequest("k", (), {})

    def answer(**message: Any) -> ChatAnswer:
        body = {"choices": [{"message": message, "finish_reason": "stop"}]}
        return answer_of(endpoint, request, json.dumps(body).encode(), "application/json")

    assert answer(content=None).text == ""
    refused = answer(content=None, refusal="I cannot")
    assert (refused.text, refused.finish_reason) == ("I cannot", "refusal")


class TestCheck:
    """``check_endpoint``: one line each."""

    def test_a_good_endpoint_passes_without_asking_anything(self) -> None:
        with FaultServer() as server:
            check_endpoint(endpoint_of(server))
            assert not server.received

    def test_without_a_list_of_models_one_token_is_asked(self) -> None:
        with FaultServer(models_listed=False) as server:
            check_endpoint(endpoint_of(server))
            assert [received.body["max_tokens"] for received in server.received] == [1]

    def test_unreachable(self) -> None:
        with FaultServer() as server:
            endpoint = endpoint_of(server)
        self.refused(endpoint, "cannot be reached")

    def test_unauthorised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        with FaultServer(key="another") as server:
            self.refused(endpoint_of(server), r"refuses the key in OPENAI_API_KEY \(401\)")

    def test_unknown_model(self) -> None:
        with FaultServer() as server:
            self.refused(endpoint_of(server, model="gpt-99"), "has no model 'gpt-99'; it has loopback")
        with FaultServer(models_listed=False) as server:
            self.refused(endpoint_of(server, model="gpt-99"), "knows no model 'gpt-99'")

    def test_no_api(self) -> None:
        with FaultServer(models_listed=False, faults=Faults(content_type=1.0)) as server:
            self.refused(endpoint_of(server), "is no OpenAI-compatible API: .*text/html")
        with FaultServer() as server:
            self.refused(endpoint_of(server, base_url=server.base_url.removesuffix("/v1")), "404")

    @staticmethod
    def refused(endpoint: Endpoint, message: str) -> None:
        with pytest.raises(GadEndpointError, match=message) as error:
            check_endpoint(endpoint)
        assert "\n" not in str(error.value) and SECRET not in str(error.value)


class TestSecrets:
    """The key is read from the environment when it is needed, and comes out nowhere."""

    def test_no_key_in_errors_logs_and_files(
        self, db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        with FaultServer(key=SECRET) as server, caplog.at_level(logging.DEBUG):
            endpoint = endpoint_of(server, api_key_env="MY_KEY")
            assert run(endpoint, 3, db).answered == 3
            assert SECRET not in repr(endpoint) and "MY_KEY" in repr(endpoint)
            server.key = "another"
            with pytest.raises(GadEndpointError) as error:
                run(endpoint, 5, db)
            assert "***" in str(error.value) and SECRET not in str(error.value)
        assert SECRET not in caplog.text
        assert SECRET.encode() not in db.read_bytes()

    def test_a_rejection_that_repeats_the_key_is_stored_without_it(
        self, db: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gad_verl.tools.api.faults import detail_of

        monkeypatch.setenv("OPENAI_API_KEY", SECRET)

        body = {"error": {"message": f"bad\nkey {SECRET} {'x' * 999}"}}
        detail = detail_of(Endpoint("http://localhost/v1", "m"), body)
        assert detail.startswith("bad key *** xxx") and len(detail) == 300

    def test_a_missing_key_names_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(GadConfigError, match="set the environment variable MY_KEY"):
            Endpoint("https://example.invalid/v1", "m", api_key_env="MY_KEY").api_key()
        for host in ("localhost", "127.0.0.1", "[::1]"):
            assert Endpoint(f"http://{host}:1/v1", "m", api_key_env="MY_KEY").api_key() == "none"

    @pytest.mark.parametrize(
        "bad",
        [
            {"api_key_env": SECRET},
            {"base_url": f"https://user:{SECRET}@host/v1"},
            {"base_url": f"https://host/v1?key={SECRET}"},
            {"base_url": "host/v1"},
            {"base_url": "http://host:port/v1"},
            {"model": ""},
            {"timeout_s": 0},
            {"max_concurrency": 0},
            {"max_concurrency": 1.5},
            {"attempts": True},
            {"requests_per_minute": -1},
            {"tokens_per_minute": float("nan")},
        ],
    )
    def test_values_that_cannot_work_are_refused_without_repeating_secrets(self, bad: dict[str, Any]) -> None:
        with pytest.raises(GadConfigError) as error:
            Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **bad})
        assert SECRET not in str(error.value) and "\n" not in str(error.value)

    def test_a_key_that_no_header_may_hold_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}é")
        with pytest.raises(GadConfigError) as error:
            Endpoint("https://example.invalid/v1", "m").api_key()
        assert SECRET not in str(error.value)


def test_the_server_ends_with_its_block() -> None:
    before = threading.active_count()
    with FaultServer(faults=Faults(timeout=1.0)) as server:
        json.dumps(server.base_url)
    gc.collect()
    assert threading.active_count() == before
