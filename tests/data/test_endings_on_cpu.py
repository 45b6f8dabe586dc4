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
"""A text that was cut is known as cut, by whatever name its row says it."""

import random
from typing import Any

import numpy as np
import pytest

from gad_verl.data.endings import MARKS, cut_marks, cut_texts, finish_reason, marks_of
from gad_verl.errors import GadDataError

CUT = ["length", "MAX_TOKENS", "max_output_tokens", "content_filter", "SAFETY", "network_error"]
CUT += ["abort", "model_context_window_exceeded", "FINISH_REASON_MAX_TOKENS", "incomplete", "ERROR_TOXIC", "timeout"]
ENDED = ["stop", "end_turn", "EOS", "tool_calls", "refusal"]
SILENT = ["", "unknown", None, float("nan"), 3]


@pytest.mark.parametrize(("reasons", "expected"), [(CUT, True), (ENDED, False), (SILENT, None)])
def test_reasons_of_all_apis(reasons: list[Any], expected: bool | None) -> None:
    for reason in reasons:
        assert cut_marks({"finish_reason": reason}, 2, "row") == [expected] * 2
        assert cut_texts({"extra_info": {"finish_reason": reason}}, 1, "row") == [bool(expected)]
        assert finish_reason(finish_reason(reason)) == finish_reason(reason)


def test_flags() -> None:
    for value in (True, False):
        assert cut_texts({"extra_info": {"stopped_by_length": value}}, 1, "row") == [value]
        assert cut_texts({"finished": value}, 1, "row") == [not value]


@pytest.mark.parametrize(
    ("mark", "cut", "whole"), [("stopped_by_length", "true 1 True", "false 0"), ("finished", "false 0", "true 1 1.0")]
)
def test_flags_of_a_csv_are_texts_and_numbers(mark: str, cut: str, whole: str) -> None:
    for text, expected in [*((one, True) for one in cut.split()), *((one, False) for one in whole.split())]:
        assert cut_marks({mark: text}, 1, "row") == [expected]
        if text.isdigit():
            assert cut_marks({mark: int(text)}, 1, "row") == cut_marks({mark: np.int64(text)}, 1, "row") == [expected]
    assert cut_marks({mark: "length"}, 1, "row") == [True] and cut_marks({mark: ""}, 1, "row") == [None]
    with pytest.raises(GadDataError, match=f"row 3: {mark}='perhaps'"):
        cut_marks({mark: "perhaps"}, 1, "row 3")


def test_rows_that_say_nothing() -> None:
    for row in ({}, {"extra_info": None}, {"extra_info": "length"}, {"extra_info": {"index": 3}}):
        assert cut_marks(row, 3, "row") == [None] * 3 and marks_of(row) == {}


def test_lists_say_it_of_each_text_and_one_mark_is_enough() -> None:
    """As ``teacher collect --samples`` writes them; pandas and TransferQueue make arrays of lists."""
    rng = random.Random(0)
    for _ in range(50):
        reasons = [rng.choice([*CUT, *ENDED, None]) for _ in range(4)]
        stopped = [rng.choice([True, False, None]) for _ in range(4)]
        expected = [reason in CUT or flag is True for reason, flag in zip(reasons, stopped, strict=True)]
        extra = {"finish_reason": reasons, "stopped_by_length": np.array(stopped, dtype=object)}
        assert cut_texts({"extra_info": extra}, 4, "row") == expected
        # A column goes before extra_info of the same name.
        assert cut_texts({"extra_info": extra, "finish_reason": "stop"}, 4, "row") == [one is True for one in stopped]


@pytest.mark.parametrize("mark", MARKS)
def test_a_list_of_another_length_is_named(mark: str) -> None:
    with pytest.raises(GadDataError, match=f"some file, row 3: 2 entries of '{mark}' for 3 texts; give one"):
        cut_texts({"extra_info": {mark: [True, False]}}, 3, "some file, row 3")
