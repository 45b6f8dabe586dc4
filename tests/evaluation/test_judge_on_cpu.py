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
"""The judge against scripted ones on the loopback interface."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_server import Faults, FaultServer, Reply
from scripted_judge import always_first, by_length, mumbling, rating_of, scripted
from tiny_model import build_tokenizer

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadConfigError, GadDataError, GadEndpointError
from gad_verl.tools.api import AnswerStore, Endpoint
from gad_verl.tools.evaluation import preferences
from gad_verl.tools.evaluation.judge import Judge, JudgeSettings
from gad_verl.tools.evaluation.judging import Opponent, find_opponent, judge_checkpoint, parsed
from gad_verl.tools.evaluation.responses import Response, ResponseFile
from gad_verl.tools.evaluation.rows import Row

ROWS = [Row(({"role": "user", "content": f"Question {n}?"},), "abcdefg"[: 1 + n % 7]) for n in range(12)]


def responses(texts: list[str]) -> list[Response]:
    return [
        Response(number, 0, ROWS[number].prompt_id, text, "stop", 3, len(text) + 1) for number, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def builder() -> SequenceBuilder:
    return SequenceBuilder(build_tokenizer(), 64, 64)


def open_judge(server: FaultServer, store: AnswerStore, **settings: Any) -> Judge:
    endpoint = Endpoint(server.base_url, server.model, max_concurrency=4, timeout_s=5, backoff_s=0.01)
    return Judge(endpoint, store, JudgeSettings(**settings))


def test_marks_belong_to_texts_and_not_to_places(tmp_path: Path) -> None:
    pairs = [("Why?", "abcd", "ab"), ("How?", "a", "abcdefgh"), ("Who?", "abc", "abc")]
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        marks = open_judge(server, store).rate(pairs)
    assert marks.tolist() == [[4, 2, 4, 2], [1, 8, 1, 8], [3, 3, 3, 3]]
    shown = {rating_of(request.body) for request in server.received}
    assert shown == {*pairs, *((question, second, first) for question, first, second in pairs)}


def test_a_judge_of_places_gives_ties(tmp_path: Path, builder: SequenceBuilder) -> None:
    with FaultServer(scripted(always_first)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store)
        texts = responses(["x" * (n + 1) for n in range(12)])
        result = judge_checkpoint(judge, ROWS, texts, [find_opponent("teacher", ROWS)], True).summary
    rates = result["win_rates"]["teacher"]
    assert result["score"]["value"] == result["teacher_score"]["value"] == 50
    assert rates["win_rate"]["value"] == 50
    # Ours are far longer: at equal length nothing was seen, so there is no figure, and a reason.
    assert rates["length_controlled"]["value"] is None and "longer" in rates["length_controlled"]["refused"]
    # Two texts are the same as the teacher's: their two orders are one request, and still a tie.
    assert (rates["wins"], rates["ties"], rates["losses"]) == (0, 12, 0)
    assert rates["position_bias"] == 4 and result["score"]["inconsistent"] == 1


def test_figures_of_a_judge_of_lengths(tmp_path: Path, builder: SequenceBuilder) -> None:
    texts = ["abcdefgh"] * 6 + ["a"] * 6
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judgement = judge_checkpoint(
            open_judge(server, store), ROWS, responses(texts), [find_opponent("teacher", ROWS)]
        )
    rates = judgement.summary["win_rates"]["teacher"]
    outcomes = [
        (len(text) > len(row.teacher)) - (len(text) < len(row.teacher)) for text, row in zip(texts, ROWS, strict=True)
    ]
    assert rates["wins"] == outcomes.count(1) and rates["losses"] == outcomes.count(-1)
    # References are longer than ten characters: 10 points.
    assert judgement.summary["score"]["value"] == pytest.approx(100 * (6 * 8 + 6) / (6 * 8 + 6 + 120))
    assert judgement.summary["score"]["student_mean"] == pytest.approx(4.5)
    assert judgement.summary["counts"]["unparsed"] == judgement.summary["counts"]["asked_again"] == 0


def test_needed_requests_are_counted_right(tmp_path: Path, builder: SequenceBuilder) -> None:
    texts = [f"{'y' * 20} {number}" for number in range(12)]
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store)
        judge_checkpoint(judge, ROWS, responses(texts), [find_opponent("teacher", ROWS)], True)
    assert len(server.received) == judge.counts.sent == 12 * (1 + 2 * (1 + 1 + 1))


def test_unreadable_replies_are_asked_again_and_then_counted(tmp_path: Path) -> None:
    with FaultServer(scripted(mumbling)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store, attempts=3)
        marks = judge.rate([("Why?", "a", "b"), ("How?", "c", "d")])
    assert np.isnan(marks).all() and not parsed(marks).any()
    assert (judge.counts.ratings, judge.counts.asked_again, judge.counts.unparsed) == (4, 4, 4)
    assert len(server.received) == 12
    assert sorted({(r.body["temperature"], r.body["seed"]) for r in server.received}) == [(0, 0), (0.7, 1), (0.7, 2)]


def test_a_second_asking_may_be_read(tmp_path: Path) -> None:
    def hesitant(question: str, first: str, second: str, body: dict[str, Any]) -> str:
        return "8 6" if body["seed"] == 1 else "Hard to say."

    with FaultServer(scripted(hesitant)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store)
        marks = judge.rate([("Why?", "a", "b")])
    assert marks.tolist() == [[8, 6, 6, 8]]
    assert (judge.counts.asked_again, judge.counts.unparsed) == (2, 0)


def test_a_prompt_with_one_readable_order_is_left_out(tmp_path: Path, builder: SequenceBuilder) -> None:
    def one_sided(question: str, first: str, second: str, body: dict[str, Any]) -> str:
        return "9 3" if "reference" in second or "Question 3" not in question else "?"

    with FaultServer(scripted(one_sided)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store, attempts=2)
        judgement = judge_checkpoint(judge, ROWS, responses(["text"] * 12))
    assert judgement.summary["score"]["prompts"] == 11
    assert judgement.summary["score"]["unreadable_prompts"] == judge.counts.unparsed == 1
    assert judgement.summary["score"]["value"] == 50


def test_faults_on_the_way_change_nothing(tmp_path: Path, builder: SequenceBuilder) -> None:
    summaries = []
    for share in (0.0, 0.3):
        faults = Faults.evenly(share, silence_s=0.1)
        with FaultServer(scripted(by_length), faults) as server, AnswerStore(tmp_path / f"{share}.sqlite") as store:
            judge = open_judge(server, store)
            summary = judge_checkpoint(judge, ROWS, responses(["abcd"] * 12)).summary
        summaries.append({name: summary[name] for name in ("score", "references")})
    assert summaries[0] == summaries[1]


def test_a_second_run_asks_nothing(tmp_path: Path, builder: SequenceBuilder) -> None:
    with FaultServer(scripted(by_length)) as server:
        for _ in range(2):
            with AnswerStore(tmp_path / "store.sqlite") as store:
                judge = open_judge(server, store)
                summary = judge_checkpoint(judge, ROWS, responses(["abcd"] * 12)).summary
        # Another checkpoint on the same store: the references are there, and so are texts that both wrote.
        asked = len(server.received)
        with AnswerStore(tmp_path / "store.sqlite") as store:
            other = judge_checkpoint(open_judge(server, store), ROWS, responses(["abcd"] * 11 + ["x"])).summary
    assert asked == 36 and summary["counts"]["sent"] == 0
    assert len(server.received) == asked + 2
    assert other["references"] == summary["references"]


def test_replies_of_another_server_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store keeps replies by the name of the model: another server may have another model of that name."""
    pairs = [("Why?", "abcd", "ab")]

    def warned(server: FaultServer, model: str = "") -> bool:
        caplog.clear()
        with AnswerStore(tmp_path / "store.sqlite") as store:
            endpoint = Endpoint(server.base_url, model or server.model, timeout_s=5)
            Judge(endpoint, store).rate(pairs)
        return "--judge-store" in caplog.text and first.base_url in caplog.text and server.base_url in caplog.text

    with FaultServer(scripted(by_length)) as first, FaultServer(scripted(always_first)) as second:
        assert not warned(first) and not warned(first)
        assert warned(second) and warned(second) and not warned(first)
        second.model = "another"
        assert not warned(second, "another")
    assert len(second.received) == 2
    with AnswerStore(tmp_path / "store.sqlite") as store:
        assert len(store) == 4


def test_a_store_of_before_the_note_stays_valid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer(scripted(by_length)) as server:
        with AnswerStore(tmp_path / "store.sqlite") as store:
            open_judge(server, store).rate([("Why?", "abcd", "ab")])
            store._write(("UPDATE settings SET content = '{}'", ()))
        for _ in range(2):
            with AnswerStore(tmp_path / "store.sqlite") as store:
                open_judge(server, store).rate([("Why?", "abcd", "ab")])
        assert len(server.received) == 2 and "--judge-store" not in caplog.text


_CHILD = """
from pathlib import Path
from gad_verl.tools.api import AnswerStore, Endpoint
from gad_verl.tools.evaluation.judge import Judge
with AnswerStore(Path({store!r})) as store:
    judge = Judge(Endpoint({url!r}, "loopback", max_concurrency=2), store)
    judge.rate([(str(n), "abc" * n, "ab" * n) for n in range(1, 41)])
"""


def test_lengths_are_those_of_what_the_judge_sees(tmp_path: Path) -> None:
    """White space around a text is not shown to the judge."""
    rng = np.random.default_rng(0)
    texts = [f"answer {'x' * rng.integers(1, 9)}" for _ in ROWS]
    padded = [" " * rng.integers(0, 9) + text + "\n" * rng.integers(0, 200) for text in texts]
    theirs = [row.teacher for row in ROWS]
    found = []
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "judge.sqlite") as store:
        for mine, opponent in ((texts, theirs), (padded, [f"\n{text} \n" for text in theirs])):
            judge = open_judge(server, store)
            found.append(judge_checkpoint(judge, ROWS, responses(mine), [Opponent("other", opponent)]))
    plain, with_space = found
    assert np.array_equal(plain.characters["other"], [[len(a), len(b)] for a, b in zip(texts, theirs, strict=True)])
    assert np.array_equal(with_space.characters["other"], plain.characters["other"])
    assert with_space.summary["win_rates"] == plain.summary["win_rates"]


def test_of_fewer_prompts_the_references_stay_the_same(tmp_path: Path) -> None:
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "judge.sqlite") as store:
        texts = [row.teacher for row in ROWS]
        every = judge_checkpoint(open_judge(server, store), ROWS, responses(texts), with_teacher=True)
        few = judge_checkpoint(open_judge(server, store), ROWS[:5], responses(texts)[:5])
    assert every.references[:5] == few.references and len(set(every.references)) > 1
    # The student wrote the teacher's texts.
    assert np.array_equal(every.teacher, every.marks) and few.teacher is None


def test_a_killed_run_asks_nothing_twice(tmp_path: Path) -> None:
    with FaultServer(scripted(by_length), latency_s=0.05) as server:
        code = _CHILD.format(store=str(tmp_path / "store.sqlite"), url=server.base_url)
        child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(server.received) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        with AnswerStore(tmp_path / "store.sqlite") as store:
            kept = set(store.keys())
            before = len(server.received)
            judge = open_judge(server, store)
            marks = judge.rate([(str(n), "abc" * n, "ab" * n) for n in range(1, 41)])
    assert 10 <= len(kept) < 80
    assert len(server.received) - before == judge.counts.sent == 80 - len(kept)
    assert not np.isnan(marks).any()


def test_options_reach_the_request(tmp_path: Path) -> None:
    options = {"max_tokens": None, "max_completion_tokens": 99, "temperature": None}
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        open_judge(server, store, options=options).rate([("Why?", "a", "b")])
    body = server.received[0].body
    assert body["max_completion_tokens"] == 99 and "max_tokens" not in body and "temperature" not in body


def test_one_limit_is_sent_and_it_is_the_users(tmp_path: Path) -> None:
    """Under its name in the o-series too, to an API that takes either name and to one that refuses the other."""

    def of_the_o_series(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return Reply({"error": {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens"}}, 400)
        return scripted(by_length)(body)

    for number, options in enumerate(({"max_completion_tokens": 8000}, {"max_tokens": 8000})):
        with FaultServer(of_the_o_series) as server, AnswerStore(tmp_path / f"{number}.sqlite") as store:
            open_judge(server, store, options=options).rate([("Why?", "a", "b")])
        last = server.received[-1].body
        assert last["max_completion_tokens"] == 8000 and "max_tokens" not in last
        assert all(len(one.body.keys() & {"max_tokens", "max_completion_tokens"}) == 1 for one in server.received)


def test_a_judge_that_cannot_be_asked(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "store.sqlite") as store:
        gone = Judge(Endpoint("http://127.0.0.1:9/v1", "m", timeout_s=2), store)
        with pytest.raises(GadEndpointError):
            gone.rate([("Why?", "a", "b")])
        with FaultServer(scripted(by_length), key="right") as server, pytest.raises(GadEndpointError):
            open_judge(server, store).rate([("Why?", "a", "b")])
    with pytest.raises(GadConfigError, match="judge-attempts"):
        JudgeSettings(attempts=0)


def test_opponents_are_found_by_prompt(tmp_path: Path) -> None:
    assert find_opponent("teacher", ROWS).texts == [row.teacher for row in ROWS]
    folder = tmp_path / "other"
    folder.mkdir()
    with ResponseFile(folder) as file:
        for response in reversed(responses([f"answer {number}" for number in range(12)])):
            file.append(response)
    for name in (str(folder), str(folder / "responses.jsonl"), f"other={folder}"):
        opponent = find_opponent(name, ROWS)
        assert opponent.name == "other" and opponent.texts == [f"answer {number}" for number in range(12)]
    with pytest.raises(GadDataError, match="lacks 1 of the 13 prompts .first: row 12"):
        find_opponent(str(folder), [*ROWS, Row(({"role": "user", "content": "new"},), "text")])
    with pytest.raises(GadDataError, match="is missing; name 'teacher'"):
        find_opponent(str(tmp_path / "nowhere"), ROWS)
    # Hydra's folders have such names.
    folder.rename(tmp_path / "lr=1e-5")
    assert find_opponent(str(tmp_path / "lr=1e-5"), ROWS).name == "lr=1e-5"
    assert find_opponent(f"low={tmp_path / 'lr=1e-5'}", ROWS).name == "low"
    (tmp_path / "lr=1e-5").rename(tmp_path / "teacher")
    for name in (str(tmp_path / "teacher"), f"teacher={tmp_path / 'teacher'}"):
        with pytest.raises(GadDataError, match="is the teacher of --data"):
            find_opponent(name, ROWS)


def test_scores_of_both_sides_add_up_to_100(tmp_path: Path) -> None:
    pairs = [(str(n), "a" * (1 + n % 7), "b" * (1 + n % 5)) for n in range(15)]
    with FaultServer(scripted(by_length)) as server, AnswerStore(tmp_path / "store.sqlite") as store:
        judge = open_judge(server, store)
        one = preferences.relative_score(judge.rate(pairs))
        other = preferences.relative_score(judge.rate([(q, second, first) for q, first, second in pairs]))
    assert one.value + other.value == pytest.approx(100)
    assert len(server.received) == 30  # the same requests, in the other order


class TestJudgeThatThinks:
    """Its thoughts are neither an answer nor a mark."""

    @pytest.mark.parametrize("thoughts", ["<think>\n3 4?\n</think>\n\n", "I lean to 3 4, but no.\n</think>\n\n"])
    def test_thoughts_stay_out_of_references_and_marks(
        self, tmp_path: Path, builder: SequenceBuilder, thoughts: str
    ) -> None:
        def thinking(body: dict[str, Any]) -> tuple[str, str]:
            text, reason = scripted(by_length)(body)
            return thoughts + text, reason

        with FaultServer(thinking) as server, AnswerStore(tmp_path / "store.sqlite") as store:
            judge = open_judge(server, store)
            result = judge_checkpoint(judge, ROWS, responses(["xx"] * 12))
        shown = [rating for request in server.received if (rating := rating_of(request.body))]
        assert shown and not any("think" in text or "3 4" in text for rating in shown for text in rating)
        assert result.summary["score"]["prompts"] == 12 and judge.counts.unparsed == 0

    def test_thoughts_that_take_the_limit_are_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with FaultServer(lambda body: ("<think>\nHm", "length")) as server, AnswerStore(tmp_path / "s.sqlite") as store:
            judge = open_judge(server, store, attempts=2)
            assert judge.references(ROWS[:2]) == [None, None]
            assert np.isnan(judge.rate([("Why?", "a", "b")])).all()
        assert judge.counts.empty_references == 2 and judge.counts.cut_replies == 2 + 4
        assert "needs a larger --judge-rating-tokens (512) and --judge-reference-tokens (1536)" in caplog.text

    def test_a_tag_inside_of_an_explanation_is_none(self) -> None:
        from gad_verl.tools.evaluation.judge_replies import parse_scores

        assert parse_scores("8 7\nAssistant 1 leaves a </think> tag in its answer.") == (8, 7)


class TestJudgeThatRefuses:
    """A judge of the o-series is asked as it wants; one that refuses everything is an error with its own words."""

    def test_our_own_fields_are_left_out(self, tmp_path: Path) -> None:
        def o_series(body: dict[str, Any]) -> Any:
            for name in ("max_tokens", "temperature", "seed"):
                if name in body:
                    instead = "Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                    message = f"Unsupported parameter: '{name}' is not supported with this model. {instead}"
                    error = {"message": message, "param": name, "code": "unsupported_parameter"}
                    return Reply({"error": error}, 400)
            return scripted(by_length)(body)

        with FaultServer(o_series) as server, AnswerStore(tmp_path / "store.sqlite") as store:
            marks = open_judge(server, store).rate([("Why?", "abcd", "ab")])
        assert marks.tolist() == [[4, 2, 4, 2]]

    def test_nothing_answered_is_an_error(self, tmp_path: Path, builder: SequenceBuilder) -> None:
        message = "Unsupported value: 'top_p' does not support 0.5 with this model."
        with FaultServer(lambda body: Reply({"error": {"message": message}}, 400)) as server:
            with AnswerStore(tmp_path / "store.sqlite") as store:
                judge = open_judge(server, store, options={"top_p": 0.5})
                with pytest.raises(GadEndpointError, match=r"answered none of 4 requests.*'top_p' does not.*NAME=null"):
                    judge_checkpoint(judge, ROWS[:4], responses(["x"] * 4))

    def test_a_few_refusals_are_said_with_their_words(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        def some(body: dict[str, Any]) -> Any:
            is_long = "Question 1?" in body["messages"][-1]["content"]
            return Reply({"error": {"message": "Too long."}}, 400) if is_long else scripted(by_length)(body)

        with FaultServer(some) as server, AnswerStore(tmp_path / "store.sqlite") as store:
            references = open_judge(server, store).references(ROWS[:3])
        assert [text is None for text in references] == [False, True, False]
        assert "1 requests to the judge got no answer: status 400: Too long." in caplog.text

    def test_a_run_with_many_refusals_is_the_same_when_it_is_repeated(self, tmp_path: Path) -> None:
        """Then only what is refused is asked, more in a row than an API that is down would be given."""

        def filtering(body: dict[str, Any]) -> Any:
            question = rating_of(body)[0]
            return Reply({"error": {"message": "flagged"}}, 400) if int(question) % 2 else scripted(by_length)(body)

        pairs = [(str(number), "abc", "a") for number in range(20)]
        tables = []
        with FaultServer(filtering) as server:
            for _ in range(2):
                with AnswerStore(tmp_path / "store.sqlite") as store:
                    judge = open_judge(server, store)
                    tables.append(judge.rate(pairs).tolist())
                assert judge.counts.unanswered == 20 and judge.counts.unparsed == 0
        assert str(tables[0]) == str(tables[1]) and parsed(np.array(tables[0])).tolist() == [True, False] * 10

    @pytest.mark.parametrize("unreadable", [1, 20])
    def test_second_askings_that_are_refused_are_counted(self, tmp_path: Path, unreadable: int) -> None:
        def answer(body: dict[str, Any]) -> Any:
            if int(rating_of(body)[0]) >= unreadable:
                return scripted(by_length)(body)
            return Reply({"error": {"message": "flagged"}}, 400) if body["seed"] else ("Hard to say.", "stop")

        with FaultServer(answer) as server, AnswerStore(tmp_path / "store.sqlite") as store:
            judge = open_judge(server, store)
            marks = judge.rate([(str(number), "abc", "a") for number in range(21)])
        assert parsed(marks).tolist() == [number >= unreadable for number in range(21)]
        assert judge.counts.asked_again == judge.counts.unanswered == 2 * unreadable

    def test_one_opponent_whose_ratings_are_all_refused_does_not_end_the_run(self, tmp_path: Path) -> None:
        def answer(body: dict[str, Any]) -> Any:
            refused = rating_of(body) is not None and "taboo" in rating_of(body)[1:]
            return Reply({"error": {"message": "flagged"}}, 400) if refused else scripted(by_length)(body)

        opponents = [Opponent("shy", ["taboo"] * 12), find_opponent("teacher", ROWS)]
        with FaultServer(answer) as server:
            for _ in range(2):
                with AnswerStore(tmp_path / "store.sqlite") as store:
                    judge = open_judge(server, store)
                    rates = judge_checkpoint(judge, ROWS, responses(["x"] * 12), opponents).summary["win_rates"]
                assert (rates["shy"]["prompts"], rates["teacher"]["prompts"]) == (0, 12)
                assert judge.counts.unanswered == 24

    def test_a_server_that_goes_away_before_a_table_ends_the_run(self, tmp_path: Path) -> None:
        def answer(body: dict[str, Any]) -> Any:
            return scripted(by_length)(body) if rating_of(body) is None else 503

        with FaultServer(answer) as server, AnswerStore(tmp_path / "store.sqlite") as store:
            endpoint = Endpoint(server.base_url, server.model, attempts=1)
            with pytest.raises(GadEndpointError, match="answered none of 4 requests"):
                judge_checkpoint(Judge(endpoint, store), ROWS[:2], responses(["x"] * 2))
