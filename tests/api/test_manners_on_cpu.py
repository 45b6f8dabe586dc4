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
"""APIs as they are: o-series, Gemini, Azure, Mistral, gateways, streams. One row of a table for each manner."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Reply, completion
from hypothesis import given
from hypothesis import strategies as st

from gad_verl.errors import GadEndpointError
from gad_verl.tools.api import (
    AnswerStore,
    ChatAnswer,
    ChatRequest,
    Endpoint,
    answer_all,
    answer_all_sync,
    check_endpoint,
)
from gad_verl.tools.api.client import Stop
from gad_verl.tools.api.faults import PassingError, RejectedError, detail_of, meaning_of
from gad_verl.tools.api.replies import answer_of, finish_reason

Body = dict[str, Any]
SENT = {"max_tokens": 8, "temperature": 0.0, "seed": 1}


def endpoint_of(server: FaultServer, **more: Any) -> Endpoint:
    settings = {"timeout_s": 5.0, "backoff_s": 0.01, "max_backoff_s": 0.05, "attempts": 3, "max_concurrency": 2}
    return Endpoint(**{"base_url": server.base_url, "model": server.model, **settings, **more})


def asked(server: FaultServer, path: Path, count: int = 3, **more: Any) -> tuple[list[ChatAnswer | None], Any]:
    """Answers to some questions, and the summary."""
    optional = more.pop("optional", ())
    requests = [ChatRequest(str(i), ({"role": "user", "content": f"q{i}"},), SENT, optional) for i in range(count)]
    with AnswerStore(path / "answers.sqlite") as store:
        summary = answer_all_sync(endpoint_of(server, **more), requests, store)
        return [store.get(request.key) for request in requests], summary


def whole(body: Body, text: Any = "fine", reason: Any = "stop", **message: Any) -> Body:
    answer = completion("m", body, "fine", "stop")
    answer["choices"][0] = {"index": 0, "message": {"content": text, **message}, "finish_reason": reason}
    return answer


def openai_error(message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Reply:
    return Reply({"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}, status)


def stream(*events: Any, done: bool = True) -> Reply:
    lines = [event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events]
    return Reply("\n\n".join([*lines, "data: [DONE]"] if done else lines) + "\n\n", content_type="text/event-stream")


def pieces(text: str, **last: Any) -> list[Body]:
    deltas = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in text]
    return [*deltas, {"choices": [{"index": 0, "delta": {}, **last}]}]


USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}


def o_series(body: Body) -> Any:
    if "max_tokens" in body:
        return openai_error(
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            "unsupported_parameter",
            "max_tokens",
        )
    if body.get("temperature", 1) != 1:
        return openai_error(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
            "supported.",
            "unsupported_value",
            "temperature",
        )
    return Reply(whole(body))


def stream_only(body: Body) -> Any:
    if not body.get("stream"):
        return openai_error(
            "This model only support stream mode, please enable the stream parameter to access the model. ",
            "invalid_parameter_error",
        )
    return stream(*pieces("fine", finish_reason="stop"), USAGE)


def no_stream_options(body: Body) -> Any:
    if "stream_options" in body:
        detail = [
            {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
        ]
        return Reply({"detail": detail}, 422)
    return stream_only(body)


def strict(body: Body) -> Any:
    if "seed" in body:
        return Reply({"object": "error", "message": "Extra inputs are not permitted: seed"}, 422)
    return Reply(whole(body))


class TestManners:
    """What differs between APIs and means the same is learned from the first refusal, once for all requests."""

    @pytest.mark.parametrize(
        ("answer", "more", "extra"),
        [
            (o_series, {"optional": ("temperature", "seed")}, 2),
            (stream_only, {}, 1),
            (no_stream_options, {}, 2),
            (no_stream_options, {"stream": True}, 1),
            (strict, {"optional": ("seed",)}, 1),
        ],
        ids=["o-series", "stream only", "no stream_options", "stream asked for", "no seed"],
    )
    def test_an_answer_comes_whatever_the_manner(
        self, answer: Callable[[Body], Any], more: dict[str, Any], extra: int, tmp_path: Path
    ) -> None:
        with FaultServer(answer) as server:
            answers, summary = asked(server, tmp_path, max_concurrency=1, **more)
        assert [(one.text, one.finish_reason) for one in answers] == [("fine", "stop")] * 3
        assert not summary.failed and len(server.received) == 3 + extra

    def test_many_at_once_learn_together(self, tmp_path: Path) -> None:
        with FaultServer(no_stream_options, latency_s=0.02) as server:
            answers, summary = asked(server, tmp_path, 40, max_concurrency=8)
        assert all(one.text == "fine" for one in answers) and not summary.failed
        assert len(server.received) <= 40 + 2 * 8

    def test_what_the_user_asked_for_is_never_left_out(self, tmp_path: Path) -> None:
        with FaultServer(o_series) as server:
            answers, summary = asked(server, tmp_path)
        assert answers == [None] * 3 and summary.failed == {"rejected": 3}
        assert "'temperature' does not support 0" in summary.last_faults["rejected"]

    def test_what_is_left_out_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with FaultServer(strict) as server, caplog.at_level(logging.WARNING):
            asked(server, tmp_path, optional=("seed",))
        assert [record.getMessage() for record in caplog.records] == ["the API does not take seed=1: it is left out"]

    def test_a_limit_that_is_too_high_is_no_other_name(self, tmp_path: Path) -> None:
        def too_high(body: Body) -> Any:
            return openai_error("max_tokens is too large: 8. This model supports at most 4.", None, "max_tokens")

        with FaultServer(too_high) as server:
            _, summary = asked(server, tmp_path)
        assert summary.failed == {"rejected": 3} and len(server.received) == 3


ANSWERS: dict[str, tuple[Callable[[Body], Any], str, str]] = {
    "parts": (
        lambda body: Reply(whole(body, [{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}])),
        "fine",
        "stop",
    ),
    "Mistral's thoughts in parts": (
        lambda body: Reply(
            whole(
                body,
                [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "fine"}],
            )
        ),
        "fine",
        "stop",
    ),
    "no reason": (lambda body: Reply(whole(body, reason=None)), "fine", "unknown"),
    "an empty reason": (lambda body: Reply(whole(body, reason="")), "fine", "unknown"),
    "another word for stop": (lambda body: Reply(whole(body, reason="end_turn")), "fine", "stop"),
    "another word for length": (lambda body: Reply(whole(body, reason="MAX_TOKENS")), "fine", "length"),
    "another word for a filter": (lambda body: Reply(whole(body, reason="SAFETY")), "fine", "content_filter"),
    "JSON called text": (lambda body: Reply(whole(body), content_type="text/plain"), "fine", "stop"),
    "a refusal": (lambda body: Reply(whole(body, None, refusal="No.")), "No.", "refusal"),
    "thoughts alone": (lambda body: Reply(whole(body, "", reasoning_content="hm")), "", "stop"),
    "no content at all": (lambda body: Reply({"choices": [{"message": {}, "finish_reason": "length"}]}), "", "length"),
    "tool calls": (lambda body: Reply(whole(body, None, "tool_calls", tool_calls=[{}])), "", "tool_calls"),
    "a stream nobody asked for": (lambda body: stream(*pieces("fine", finish_reason="stop")), "fine", "stop"),
    "a stream with comments and empty reasons": (
        lambda body: stream(
            ": OPENROUTER PROCESSING",
            {"choices": []},
            {"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "hm"}, "finish_reason": ""}]},
            *pieces("fine", finish_reason="stop"),
            done=False,
        ),
        "fine",
        "stop",
    ),
    "a stream without a reason": (lambda body: stream(*pieces("fine", finish_reason=None)), "fine", "unknown"),
    "a stream that cuts a character": (
        lambda body: stream(*pieces("fine \ud83d")[:-1], *pieces("\ude00!", finish_reason="stop")),
        "fine \U0001f600!",
        "stop",
    ),
    "half a character": (lambda body: Reply(whole(body, "fine \ud83d")), "fine ?", "stop"),
    # As MiniMax ends a stream.
    "a stream that says all of it again at its end": (
        lambda body: stream(
            *pieces("fine")[:-1], {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
        ),
        "fine",
        "stop",
    ),
    "a stream that ends with an empty message": (
        lambda body: stream(*pieces("fine")[:-1], {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}),
        "fine",
        "stop",
    ),
    "a stream of whole messages": (
        lambda body: stream(
            {"choices": [{"message": {"content": "fi"}}]},
            {"choices": [{"message": {"content": "ne"}, "finish_reason": "stop"}]},
        ),
        "fine",
        "stop",
    ),
    "a stream of parts": (
        lambda body: stream(
            {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": []}]}}]},
            {"choices": [{"delta": {"content": [{"type": "text", "text": "fine"}]}, "finish_reason": "stop"}]},
        ),
        "fine",
        "stop",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_form_of_an_answer_is_read(name: str, tmp_path: Path) -> None:
    answer, text, reason = ANSWERS[name]
    with FaultServer(answer) as server:
        answers, summary = asked(server, tmp_path)
    assert [(one.text, one.finish_reason) for one in answers] == [(text, reason)] * 3
    assert not summary.faults and len(server.received) == 3
    assert summary.thoughts_alone == (3 if name == "thoughts alone" else 0)


NO_ANSWERS: dict[str, tuple[Callable[[Body], Any], str, str]] = {
    "a stream that breaks off": (
        lambda body: stream(*pieces("fi")[:-1], done=False),
        "cut_stream",
        "before the answer",
    ),
    "a stream that breaks off with an empty object": (
        lambda body: stream(*pieces("fi")[:-1], {}, done=False),
        "cut_stream",
        "before the answer",
    ),
    "JSON without a bottom": (lambda body: Reply("[" * 100_000), "broken_answer", "no JSON"),
    "JSON that closes far below": (
        lambda body: Reply('{"choices": ' * 900 + "1" + "}" * 900),
        "broken_answer",
        "no JSON",
    ),
    "a stream without a bottom": (
        lambda body: Reply("data: " + '{"a":' * 100_000 + "\n\n", content_type="text/event-stream"),
        "broken_answer",
        "broken JSON",
    ),
    "an error without a bottom": (
        lambda body: Reply('{"error": ' * 900 + '"lost"' + "}" * 900, 500),
        "server_error",
        "nested",
    ),
    "an error in a stream": (
        lambda body: stream(*pieces("fi")[:-1], {"error": {"message": "Provider disconnected", "code": 502}}),
        "broken_answer",
        "Provider disconnected",
    ),
    "an error with status 200": (
        lambda body: Reply(
            {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "too hot"}}}
        ),
        "broken_answer",
        "Provider returned error: too hot",
    ),
    "an error in a choice": (
        lambda body: Reply({"choices": [{"message": {"content": "fi"}, "error": {"message": "lost"}}]}),
        "broken_answer",
        "lost",
    ),
    "an API that broke off": (
        lambda body: Reply(whole(body, reason="insufficient_system_resource")),
        "broken_answer",
        "broke off",
    ),
    "a refusal with status 200": (
        lambda body: Reply({"error": {"message": "Model x/y is not available", "code": 400}}),
        "rejected",
        "status 400: Model x/y is not available",
    ),
    "moderation": (
        lambda body: Reply(
            {
                "error": {
                    "code": 403,
                    "message": "openai/o requires a check of the input",
                    "metadata": {"reasons": ["violence"], "flagged_input": "quest..."},
                }
            },
            403,
        ),
        "rejected",
        "status 403: openai/o requires",
    ),
    "moderation in words": (
        lambda body: Reply({"error": {"message": "Your input was flagged for violence."}}, 403),
        "rejected",
        "status 403: Your input",
    ),
    "moderation with status 200": (
        lambda body: Reply({"error": {"code": 403, "message": "x", "metadata": {"reasons": ["hate"]}}}),
        "rejected",
        "status 403: x",
    ),
    "a picture": (lambda body: Reply(whole(body, [{"type": "image_url"}])), "broken_answer", "image_url"),
    "a page": (lambda body: Reply("<html>login</html>", content_type="text/html"), "content_type", "text/html"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_said_in_the_apis_words(name: str, tmp_path: Path) -> None:
    answer, reason, words = NO_ANSWERS[name]
    with FaultServer(answer) as server:
        answers, summary = asked(server, tmp_path, 2)
    assert answers == [None, None] and summary.failed == {reason: 2} and words in summary.last_faults[reason]


class TestWords:
    """Whatever an error's body is, its sentence is shown, short, in one line and without the key."""

    ENDPOINT = Endpoint("http://localhost/v1", "m")

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"error": {"message": "Too long."}}, "Too long."),
            ({"error": "Too long."}, "Too long."),
            ({"message": "Too long.", "code": 3}, "Too long."),
            ([{"error": {"code": 400, "message": "Too long.", "status": "INVALID_ARGUMENT"}}], "Too long."),
            ({"detail": "Too long."}, "Too long."),
            ({"detail": [{"loc": ["body", "n"], "msg": "Extra inputs are not permitted"}]}, "body.n: Extra inputs"),
            ({"errors": [{"detail": "One."}, {"detail": "Two."}]}, "One.; Two."),
            ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "Overloaded"),
            ({"fault": {"x": 1}}, '{"fault": {"x": 1}}'),
            ("upstream connect error", "upstream connect error"),
            (
                "<html><head><style>a{}</style><title>502</title></head><body>Bad\n gateway</body></html>",
                "502 Bad gateway",
            ),
            (None, ""),
            ({}, "{}"),
        ],
    )
    def test_of_every_form(self, body: Any, words: str) -> None:
        assert detail_of(self.ENDPOINT, body).startswith(words)

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.text()),
            lambda one: (
                st.lists(one) | st.dictionaries(st.sampled_from(["error", "message", "detail", "loc", "x"]), one)
            ),
        ),
        st.integers(300, 599),
    )
    def test_no_body_is_too_odd(self, body: Any, status: int) -> None:
        meaning = meaning_of(self.ENDPOINT, status, body)
        assert isinstance(meaning, PassingError | RejectedError | GadEndpointError) and "\n" not in str(meaning)

    @given(st.binary(max_size=200), st.sampled_from(["application/json", "text/event-stream", "text/html", ""]))
    def test_no_response_is_too_odd(self, content: bytes, content_type: str) -> None:
        with pytest.raises((PassingError, RejectedError)):
            answer_of(self.ENDPOINT, ChatRequest("k", ()), content, content_type)

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=5)),
            lambda one: (
                st.lists(one, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["choices", "message", "delta", "content", "text", "type", "finish_reason", "usage"]
                    ),
                    one,
                )
            ),
        ),
        st.booleans(),
    )
    def test_no_json_is_too_odd(self, body: Any, as_stream: bool) -> None:
        content = f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n" if as_stream else json.dumps(body)
        try:
            answer = answer_of(self.ENDPOINT, ChatRequest("k", ()), content.encode(), "application/json")
        except (PassingError, RejectedError):
            return
        assert isinstance(answer.text, str) and isinstance(answer.finish_reason, str)

    @given(st.text(max_size=20) | st.none() | st.integers())
    def test_every_reason_has_a_name(self, value: Any) -> None:
        found = finish_reason(value)
        assert found and finish_reason(found) == found


GEMINI_KEY = Reply(
    [
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
            }
        }
    ],
    400,
)


class TestCheck:
    """Before the first prompt: the key, the model, the manner. The API's own words stand in each line."""

    def refused(self, server: FaultServer, message: str, **more: Any) -> None:
        with pytest.raises(GadEndpointError, match=message) as error:
            check_endpoint(endpoint_of(server, **more))
        assert "\n" not in str(error.value)

    def test_a_key_that_is_refused_with_400(self) -> None:
        with FaultServer(models_reply=GEMINI_KEY) as server:
            self.refused(server, r"refuses the key in OPENAI_API_KEY \(400\): API key not valid")
        with FaultServer(lambda body: GEMINI_KEY, models_listed=False) as server:
            self.refused(server, r"refuses the key in OPENAI_API_KEY \(400\)")

    def test_a_list_that_cannot_be_had_is_no_fault(self) -> None:
        for reply in (Reply({"detail": "Not Found"}, 404), Reply("upstream", 503, "text/plain"), Reply({"data": 3})):
            with FaultServer(models_reply=reply) as server:
                check_endpoint(endpoint_of(server))
                assert len(server.received) == 1

    def test_a_model_that_only_streams_and_is_not_listed(self) -> None:
        listed = Reply({"data": [{"id": "qwen-max"}]})
        with FaultServer(stream_only, models_reply=listed) as server:
            check_endpoint(endpoint_of(server))

    def test_a_model_of_the_o_series_that_is_not_listed(self) -> None:
        with FaultServer(o_series, models_listed=False) as server:
            check_endpoint(endpoint_of(server), {"max_tokens": 512, "temperature": 0.0}, ("temperature",))
            assert server.received[-1].body["max_completion_tokens"] == 1

    @pytest.mark.parametrize(
        "reply",
        [
            openai_error("The requested model 'm' does not exist.", "model_not_found"),
            openai_error("m is not a valid model ID"),
            openai_error("Bad value.", None, "model"),
            openai_error("Unknown model: m"),
        ],
    )
    def test_an_unknown_model_by_what_the_api_says_of_it(self, reply: Reply) -> None:
        with FaultServer(lambda body: reply, models_reply=Reply({"data": [{"id": "other"}]})) as server:
            self.refused(server, f"has no model 'loopback'; it has other: status 400: {reply.body['error']['message']}")

    def test_another_refusal_that_names_a_model_is_left_to_the_first_prompts(self) -> None:
        reply = openai_error("'temperature' is not supported with this model.", "unsupported_parameter", "temperature")
        with FaultServer(lambda body: reply, models_reply=Reply({"data": [{"id": "other"}]})) as server:
            check_endpoint(endpoint_of(server))


class TestPaidAnswers:
    """What was sent before the end may arrive: it is paid for."""

    @staticmethod
    def dying(status: int, after: int, reply: Any = None) -> Callable[[Body], Any]:
        seen = []

        def answer(body: Body) -> Any:
            seen.append(body)
            return (reply or status) if len(seen) == after else ("fine", "stop")

        return answer

    @pytest.mark.parametrize(
        ("status", "reply"),
        [(401, None), (402, None), (429, openai_error("no more", "insufficient_quota", status=429))],
        ids=["key", "credit", "quota"],
    )
    def test_in_flight_at_the_end(self, tmp_path: Path, status: int, reply: Any) -> None:
        with FaultServer(self.dying(status, 20, reply), latency_s=0.1) as server:
            with AnswerStore(tmp_path / "a.sqlite") as store, pytest.raises(GadEndpointError):
                requests = (ChatRequest(str(i), ({"role": "user", "content": f"q{i}"},), SENT) for i in range(500))
                answer_all_sync(endpoint_of(server, max_concurrency=16), requests, store)
            with AnswerStore(tmp_path / "a.sqlite") as store:
                stored = len(store)
        assert stored == len(server.received) - 1 and 19 <= stored <= 40

    def test_those_of_other_teachers_too(self, tmp_path: Path) -> None:
        async def together(first: FaultServer, second: FaultServer, store: AnswerStore) -> list[Any]:
            stop = Stop()

            def requests(name: str) -> Any:
                for i in range(500):
                    yield ChatRequest(f"{name}{i}", ({"role": "user", "content": f"q{i}"},), SENT)

            calls = [
                answer_all(endpoint_of(server, max_concurrency=4), requests(name), store, stop=stop)
                for name, server in (("a", first), ("b", second))
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

        with FaultServer(self.dying(401, 10), latency_s=0.05) as first, FaultServer(latency_s=0.2) as second:
            with AnswerStore(tmp_path / "a.sqlite") as store:
                outcomes = asyncio.run(together(first, second, store))
                stored = len(store)
            assert [type(outcome) for outcome in outcomes] == [GadEndpointError] * 2
            assert stored == len(first.received) - 1 + len(second.received) and len(second.received) < 50

    def test_nobody_waits_for_a_pause_that_is_over(self, tmp_path: Path) -> None:
        def answer(body: Body) -> Any:
            if body["messages"][-1]["content"] == "q0":
                return Reply({"error": {"message": "slow down"}}, 429, headers={"Retry-After": "30"})
            return 401

        with FaultServer(answer) as server, AnswerStore(tmp_path / "a.sqlite") as store:
            requests = [ChatRequest(str(i), ({"role": "user", "content": f"q{i}"},), SENT) for i in (0, 1)]
            with pytest.raises(GadEndpointError, match="refuses the key"):
                answer_all_sync(endpoint_of(server, timeout_s=5), requests, store)


def test_faults_are_named_by_their_own_reason(tmp_path: Path) -> None:
    def answer(body: Body) -> Any:
        number = int(body["messages"][-1]["content"][1:])
        return [openai_error("too long"), Reply("busy", 503, "text/plain"), ("fine", "stop")][number % 3]

    with FaultServer(answer) as server:
        _, summary = asked(server, tmp_path, 6)
    assert summary.failed == {"rejected": 2, "server_error": 2}
    assert summary.last_faults == {"rejected": "status 400: too long", "server_error": "server_error: status 503: busy"}


class TestOneOddRequest:
    """What is odd with one request is that one's, and the others are answered."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"retry-after": "Wed, 21 Oct 99999 07:28:00 -9999"},
            {"retry-after": "Wed, 99 Oct 99999999999 07:28:00 GMT"},
            {"retry-after": "9" * 5000},
        ],
    )
    def test_a_time_that_no_clock_shows(self, tmp_path: Path, headers: dict[str, str]) -> None:
        asked_before = set()

        def once(body: Body) -> Any:
            content = body["messages"][-1]["content"]
            is_first = content not in asked_before
            asked_before.add(content)
            return Reply({"error": "slow"}, 429, headers=headers) if is_first else ("fine", "stop")

        with FaultServer(once) as server:
            answers, summary = asked(server, tmp_path)
        assert [one.text for one in answers] == ["fine"] * 3 and summary.faults == {"rate_limited": 3}

    def test_half_of_a_character_in_a_prompt(self, tmp_path: Path) -> None:
        requests = [
            ChatRequest(str(number), ({"role": "user", "content": text},), {"max_tokens": 8})
            for number, text in enumerate(["one", "half \ud83d of one", "three"])
        ]
        with FaultServer() as server, AnswerStore(tmp_path / "a.sqlite") as store:
            summary = answer_all_sync(endpoint_of(server), requests, store)
            assert "half of a character" in store.rejection("1")
        assert (summary.answered, summary.failed) == (2, {"rejected": 1})

    def test_a_moderated_prompt_costs_no_other(self, tmp_path: Path) -> None:
        def moderated(body: Body) -> Any:
            if not body["messages"][-1]["content"].endswith("1"):
                return "fine", "stop"
            metadata = {"reasons": ["violence"], "flagged_input": "..."}
            return Reply({"error": {"code": 403, "message": "no", "metadata": metadata}}, 403)

        with FaultServer(moderated) as server:
            answers, summary = asked(server, tmp_path, 10)
        assert summary.failed == {"rejected": 1} and sum(one is not None for one in answers) == 9

    @pytest.mark.parametrize("message", ["Your account was flagged; ask the support.", "Country not supported", ""])
    def test_what_holds_for_the_key_ends_the_run(self, tmp_path: Path, message: str) -> None:
        with FaultServer(lambda body: Reply({"error": {"message": message}}, 403)) as server:
            with pytest.raises(GadEndpointError, match="does not allow this key"):
                asked(server, tmp_path)


class TestSecretsInReplies:
    """A server may write the key into any field; none of them is said or stored with it."""

    KEY = "sk-test-5ecret0123456789"

    @pytest.mark.parametrize(
        "reply",
        [
            Reply("<html>", content_type=f"text/{KEY}"),
            Reply("<html>", content_type="text/" + "x" * 60 + KEY),
            Reply({"model": KEY, "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}),
            Reply({"choices": [{"message": {"content": "fine"}, "finish_reason": KEY}]}),
            Reply({"choices": [{"message": {"content": [{"type": KEY}]}}]}),
        ],
    )
    def test_none_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reply: Reply
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", self.KEY)
        with FaultServer(lambda body: reply) as server:
            answers, summary = asked(server, tmp_path, 1)
        said = f"{answers} {summary} {caplog.text}"
        assert "sk-test" not in said and "***" in said

    def test_names_of_models_are_said_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", self.KEY)
        with FaultServer(lambda body: 404) as server:
            server.model = f"of {self.KEY}"
            with pytest.raises(GadEndpointError) as error:
                check_endpoint(Endpoint(server.base_url, "another"))
        assert "it has of ***" in str(error.value)
