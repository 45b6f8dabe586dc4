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
"""``gad-verl teacher collect`` on prompts with images: what the teacher sees, and what the run reads afterwards."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from tiny_vlm import COLOURS, QUESTION, picture

from gad_verl.tools.evaluation.rows import load_rows

Collect, WriteRows, ReadRows = Callable[..., int], Callable[..., Path], Callable[..., list[dict[str, Any]]]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for colour in sorted(COLOURS):
        paths.append(tmp_path / f"{colour}.png")
        paths[-1].write_bytes(picture(colour))
    return paths


def seen_by(server: FaultServer) -> list[tuple[list[str], list[bytes]]]:
    """Texts and images of each request, in their order."""
    found = []
    for request in server.received:
        texts, images = [], []
        for message in request.body["messages"]:
            content = message["content"]
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    images.append(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
        found.append((texts, images))
    return found


def test_the_teacher_sees_the_images_and_the_rows_hold_them(
    server: FaultServer, collect: Collect, prompts_file: WriteRows, rows_of: ReadRows, pictures: list[Path]
) -> None:
    one, two, *_ = pictures
    path = prompts_file(
        [
            {"prompt": QUESTION, "images": [str(one)]},
            {"prompt": QUESTION, "images": [str(two)]},
            {"prompt": "<image>Like<image>?", "images": [str(one), str(two)]},
            {"prompt": "Text alone."},
        ]
    )
    assert collect(path, "--system", "Be short.") == 0
    shown = [image.read_bytes() for image in (one, two)]
    asked = sorted(seen_by(server))
    assert asked == sorted(
        [
            (["Be short.", "Which colour?"], shown[:1]),
            (["Be short.", "Which colour?"], shown[1:]),
            (["Be short.", "Like", "?"], shown),
            (["Be short.", "Text alone."], []),
        ]
    )
    rows = rows_of()
    assert [[image["bytes"] for image in row["images"]] for row in rows] == [shown[:1], shown[1:], shown, []]
    assert [row["prompt"][-1]["content"] for row in rows] == [QUESTION, QUESTION, "<image>Like<image>?", "Text alone."]
    # One question to two pictures is no duplicate.
    assert [row["extra_info"]["duplicate_of"] for row in rows] == [None] * 4


def test_images_that_the_last_rows_alone_have_stay(
    collect: Collect, prompts_file: WriteRows, rows_of: ReadRows, pictures: list[Path]
) -> None:
    texts = [{"prompt": f"Question {number}?"} for number in range(101)]
    assert collect(prompts_file([*texts, {"prompt": QUESTION, "images": [str(pictures[0])]}])) == 0
    shown = [[image["bytes"] for image in row["images"]] for row in rows_of()]
    assert shown == [[]] * 101 + [[pictures[0].read_bytes()]]


def test_what_was_collected_is_what_a_run_reads(
    collect: Collect, prompts_file: WriteRows, pictures: list[Path], tmp_path: Path
) -> None:
    path = prompts_file([{"prompt": QUESTION, "images": [str(one)]} for one in pictures])
    assert collect(path) == 0
    rows = load_rows(tmp_path / "out.parquet")
    assert [row.images for row in rows] == [(one.read_bytes(),) for one in pictures]
    assert all(row.teacher for row in rows) and len({row.prompt_id for row in rows}) == len(pictures)


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(
    server: FaultServer, collect: Collect, prompts_file: WriteRows, pictures: list[Path], tmp_path: Path
) -> None:
    path = prompts_file([{"prompt": QUESTION, "images": [str(one)]} for one in pictures])
    assert collect(path) == 0
    first, asked = (tmp_path / "out.parquet").read_bytes(), len(server.received)
    assert collect(path) == 0
    assert (tmp_path / "out.parquet").read_bytes() == first and len(server.received) == asked
    # The same file with another picture in it is another question.
    pictures[0].write_bytes(picture("green", 9))
    assert collect(path) == 0
    assert len(server.received) == asked + 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"prompt": "no place", "images": ["PICTURE"]}, "1 images for 0 places"),
        ({"prompt": QUESTION, "images": ["gone.png"]}, "gone.png cannot be read"),
        ({"prompt": QUESTION, "images": ["https://example.com/a.png"]}, "download the image"),
        ({"prompt": QUESTION, "images": "PICTURE"}, "expected a list of images"),
    ],
)
def test_rows_that_cannot_be_shown(
    server: FaultServer,
    collect: Collect,
    prompts_file: WriteRows,
    pictures: list[Path],
    bad: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def named(value: Any) -> Any:
        return str(pictures[0]) if value == "PICTURE" else value

    images = bad["images"]
    bad = {**bad, "images": named(images) if isinstance(images, str) else [named(one) for one in images]}
    path = prompts_file([{"prompt": QUESTION, "images": [str(pictures[0])]}, bad])
    assert collect(path) == 2
    error = capsys.readouterr().err
    assert said in error and "row 1" in error and error.count("\n") == 1
    assert not server.received and not (tmp_path / "out.parquet").exists()


def test_images_may_stand_in_a_column_of_another_name(
    server: FaultServer, collect: Collect, prompts_file: WriteRows, pictures: list[Path]
) -> None:
    path = prompts_file([{"prompt": QUESTION, "photo": [str(pictures[0])]}])
    assert collect(path, "--image-key", "photo") == 0
    assert seen_by(server) == [(["Which colour?"], [pictures[0].read_bytes()])]
