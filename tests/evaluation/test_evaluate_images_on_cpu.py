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
"""``gad-verl evaluate`` on rows with images: what the student is shown, what the judge is shown, what is refused."""

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fault_server import FaultServer
from PIL import Image
from scripted_judge import by_length, rating_of, scripted
from tiny_vlm import COLOURS, FAMILIES, MARKS, QUESTION, build_vlm, picture

from gad_verl import cli
from gad_verl.data.images import data_url
from gad_verl.tools.evaluation.responses import read_responses
from gad_verl.tools.evaluation.rows import load_rows

LIMIT = 5
TWO = [picture("red", 5), picture("blue", 6)]


def row(content: str, *images: bytes, teacher: str = "red", **more: Any) -> dict[str, Any]:
    shown = [{"bytes": image, "path": None} for image in images]
    return {"prompt": [{"role": "user", "content": content}], "images": shown, "teacher_response": teacher, **more}


def rows() -> list[dict[str, Any]]:
    """One picture each, the same question; two pictures in one prompt; text alone between them."""
    found = [row(QUESTION, picture(name, 3), teacher=name) for name in sorted(COLOURS)]
    found.insert(2, row("No picture?", teacher="none"))
    return [*found, row("<image>Like<image>?", *TWO, teacher="no")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "val.parquet"
    pd.DataFrame(rows()).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_vlm(tmp_path_factory.mktemp("student"))


@pytest.fixture
def run(model: Path, data: Path, tmp_path: Path) -> Callable[..., int]:
    def command(*more: str, model: Path = model, data: Path = data) -> int:
        paths = ["--model", str(model), "--data", str(data), "--output", str(tmp_path / "out")]
        return cli.main(["evaluate", *paths, "--max-response-length", str(LIMIT), "--two-sample-splits", "2", *more])

    return command


def plain_answers(folder: Path) -> list[list[int]]:
    """Greedy answers of plain transformers, a row at a time, the tokens of images left out as in a rollout."""
    from transformers import AutoModelForImageTextToText
    from verl.utils.tokenizer import hf_processor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), hf_processor(str(folder))
    never = processor.tokenizer.convert_tokens_to_ids(MARKS[2:])
    found = []
    for one in rows():
        images = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in one["images"]]
        content = one["prompt"][0]["content"].replace("<image>", "".join([MARKS[0], MARKS[2], MARKS[1]]))
        text = f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
        given = processor(text=[text], images=images or None, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            answer = model.generate(
                **given, do_sample=False, max_new_tokens=LIMIT, suppress_tokens=never if images else None
            )
        found.append(answer[0, given["input_ids"].shape[1] :].tolist())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_plain_transformers(run: Callable[..., int], tmp_path: Path, family: str) -> None:
    folder = build_vlm(tmp_path / "model", family, seed=7)
    assert run("--engine", "hf", "--batch-size", "3", model=folder) == 0
    found = sorted(read_responses(tmp_path / "out" / "responses.jsonl"), key=lambda one: one.key)
    assert [one.token_ids for one in found] == plain_answers(folder)
    # One question to several pictures is as many prompts.
    assert len({one.prompt_id for one in found}) == len(rows())


def test_an_interrupted_evaluation_goes_on(run: Callable[..., int], tmp_path: Path) -> None:
    assert run() == 0
    kept = tmp_path / "out" / "responses.jsonl"
    first = sorted(kept.read_text(encoding="utf-8").splitlines())
    kept.write_text("".join(line + "\n" for line in first[1::2]), encoding="utf-8")
    assert run() == 0
    assert sorted(kept.read_text(encoding="utf-8").splitlines()) == first


def test_the_judge_sees_the_images(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with FaultServer(scripted(by_length)) as server:
        options = ["--judge-base-url", server.base_url, "--judge-model", server.model, "--judge-key-env", "JUDGE_KEY"]
        assert run(*options) == 0
        bodies = [request.body for request in server.received if len(request.body["messages"][-1]["content"]) > 1]
    shown: dict[bool, list[list[bytes]]] = {True: [], False: []}
    for body in bodies:
        content = body["messages"][-1]["content"]
        parts = [] if isinstance(content, str) else content
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        assert all(url.startswith("data:image/png;base64,") for url in urls)
        shown[rating_of(body) is not None].append([base64.b64decode(url.partition(",")[2]) for url in urls])
    pictures = sorted([image["bytes"] for image in one["images"]] for one in rows())
    # A reference each; against reference and teacher in both orders.
    assert sorted(one for one in shown[False] if one) == [one for one in pictures if one]
    assert sorted(one for one in shown[True] if one) == sorted([one for one in pictures if one] * 4)


def test_formats_that_apis_do_not_read_are_sent_as_png() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    buffer = io.BytesIO()
    image.save(buffer, format="BMP")
    kind, _, content = data_url(buffer.getvalue()).partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(content))) as again:
        assert again.format == "PNG" and list(again.getdata()) == list(image.getdata())


def test_images_are_read_in_the_size_of_the_training(run: Callable[..., int], model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(model, folder)
    larger = {"min_pixels": 112 * 112, "max_pixels": 112 * 112}
    (folder / "gad_prompt.json").write_text(json.dumps({"chat_template_kwargs": {}, "mm_processor_kwargs": larger}))
    assert run(model=folder) == 0
    read = {one.prompt: one.prompt_tokens for one in read_responses(tmp_path / "out" / "responses.jsonl")}
    shutil.rmtree(tmp_path / "out")
    assert run("--mm-processor-kwargs", "{}", model=folder) == 0
    small = {one.prompt: one.prompt_tokens for one in read_responses(tmp_path / "out" / "responses.jsonl")}
    # Of each picture 16 tokens in the place of 4.
    assert {n: read[n] - small[n] for n in read} == {n: 12 * len(one["images"]) for n, one in enumerate(rows())}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "vllm"], "--engine vllm"),
        (["--teacher-model", "MODEL"], "--teacher-model"),
        (["--max-prompt-length", "30"], "--max-prompt-length=30"),
    ],
)
def test_what_images_are_not_evaluated_with(
    run: Callable[..., int],
    model: Path,
    tmp_path: Path,
    given: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*(str(model) if one == "MODEL" else one for one in given)) == 2
    error = capsys.readouterr().err
    assert said in error and "image" in error and error.count("\n") == 1
    # Nothing is left that the next try would have to fit.
    assert not (tmp_path / "out").exists()


def test_a_student_without_eyes_is_refused(
    run: Callable[..., int], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "blind"
    shutil.copytree(model, folder)
    (folder / "preprocessor_config.json").unlink()
    assert run(model=folder) == 2
    assert "preprocessor_config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row("two places<image><image>", TWO[0]), "1 images for 2 places"),
        (row("<image>", b"no image"), "no image Pillow knows"),
        (row("film", videos=[b"x"]), "films and sound"),
        (row("sound", audios=[b"x"]), "films and sound"),
    ],
)
def test_rows_that_cannot_be_shown(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    path = tmp_path / "val.parquet"
    pd.DataFrame([row(QUESTION, TWO[0]), bad]).to_parquet(path)
    with pytest.raises(Exception, match="row 1") as caught:
        load_rows(path)
    assert said in str(caught.value)
