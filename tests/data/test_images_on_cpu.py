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
"""Images of rows, and prompts with images: what verl's own agent loop makes of the same row."""

import asyncio
import copy
import io
import random
import string
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tiny_vlm import COLOURS, FAMILIES, build_vlm, picture
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker, DictConfigWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.utils.tokenizer import hf_processor, hf_tokenizer
from verl.workers.rollout.replica import TokenOutput

from gad_verl.data.dataset import GadDataset
from gad_verl.data.image_prompts import ImagePrompts, image_prompts
from gad_verl.data.images import (
    check_image,
    check_marks,
    decoded,
    image_file,
    image_files,
    image_size,
    image_values,
    with_images,
)
from gad_verl.data.prompt_images import PromptImages, positions_of
from gad_verl.data.schema import chat_id
from gad_verl.errors import GadConfigError, GadDataError

WORDS = st.text(string.ascii_letters + " <>/", max_size=12)


def png(seed: int, size: tuple[int, int] = (60, 50), mode: str = "RGB") -> bytes:
    rng = random.Random(seed)
    buffer = io.BytesIO()
    bands = tuple(rng.randrange(256) for _ in mode)
    Image.new(mode, size, bands if len(bands) > 1 else bands[0]).save(buffer, format="PNG")
    return buffer.getvalue()


# ------------------------------ the column ------------------------------


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    content = png(1)
    path = tmp_path / "a picture.png"
    path.write_bytes(content)
    forms = [
        content,
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        str(path),
        path,
        f"file://{path}",
        {"image": str(path)},
        Image.open(io.BytesIO(content)),
    ]
    wanted = decoded(content)
    for form in forms:
        found = decoded(image_file(form, "here"))
        assert found.mode == "RGB" and found.tobytes() == wanted.tobytes()
        assert image_size(image_file(form, "here"), "here") == (50, 60)


@pytest.mark.parametrize("mode", ["L", "RGBA", "1", "CMYK", "YCbCr", "LAB", "F"])
def test_images_of_other_modes_are_read_in_three_colours(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, format="TIFF")
    assert decoded(buffer.getvalue()).mode == "RGB"
    # As the library of data sets hands them out in a run.
    for read in (Image.new(mode, (5, 4)), Image.open(io.BytesIO(buffer.getvalue()))):
        assert decoded(image_file(read, "here")).mode == "RGB"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("https://example.com/a.png", "download the image"),
        ("no such file.png", "cannot be read"),
        ({"path": None, "bytes": None}, "a dict with bytes or path"),
        ({"path": "a.png", "max_pixels": 5}, "data.mm_processor_kwargs"),
        (5, "got int"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, said: str) -> None:
    with pytest.raises(GadDataError, match=said) as refused:
        image_file(value, "file, row 3")
    assert str(refused.value).startswith("file, row 3: ") and "\n" not in str(refused.value)


def test_a_file_that_holds_no_image_is_refused() -> None:
    with pytest.raises(GadDataError, match="row 3: 5 bytes that are no image"):
        image_size(b"hello", "row 3")


@pytest.mark.parametrize("value", ["a.png", b"abc", {"bytes": b"abc"}, 3])
def test_a_column_without_a_list_is_refused(value: Any) -> None:
    with pytest.raises(GadDataError, match="row 3: expected a list of images"):
        image_values(value, "row 3")


@given(texts=st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=3), more=st.integers(-2, 2))
def test_marks_are_counted_and_split(texts: list[list[str]], more: int) -> None:
    messages = [{"role": "user", "content": "<image>".join(parts)} for parts in texts]
    places = sum(len(parts) - 1 for parts in texts)
    count = places + more
    if count != places:
        with pytest.raises(GadDataError, match=f"row 3: {count} images for {places} places"):
            check_marks(messages, count, "row 3")
        return
    check_marks(messages, count, "row 3")
    files = [bytes([number]) for number in range(count)]
    split = with_images(messages, files)
    assert image_files(split) == files and image_files(messages) == []
    for message, parts in zip(split, texts, strict=True):
        joined = "".join("<image>" if part["type"] == "image" else part["text"] for part in message["content"])
        assert joined == "<image>".join(parts) and "" not in [part.get("text") for part in message["content"]]


@pytest.mark.parametrize("mark", ["<video>", "<audio>"])
def test_films_and_sound_are_refused(mark: str) -> None:
    with pytest.raises(GadDataError, match=f"row 3: the prompt holds {mark}"):
        check_marks([{"role": "user", "content": f"<image> {mark}"}], 1, "row 3")


def test_a_question_to_another_picture_is_another_chat() -> None:
    asked = [{"role": "user", "content": "<image>Which colour?"}]
    ids = {chat_id(with_images(asked, [picture(colour)])) for colour in COLOURS}
    assert len(ids | {chat_id(asked)}) == len(COLOURS) + 1
    assert chat_id(with_images(asked, [picture("red")])) == chat_id(with_images(asked, [picture("red")]))


# ------------------------------ rows as a run has them ------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Pictures of different sizes have different numbers of tokens here."""
    folder = build_vlm(tmp_path_factory.mktemp(request.param) / "model", request.param)
    settings = folder / "preprocessor_config.json"
    edge = FAMILIES[request.param][1]
    text = settings.read_text(encoding="utf-8")
    for name, patches in (("min_pixels", 16), ("max_pixels", 128)):
        text = text.replace(f'"{name}": {16 * edge * edge}', f'"{name}": {patches * edge * edge}')
    settings.write_text(text, encoding="utf-8")
    return request.param, folder


@pytest.fixture(scope="module")
def stock(compose_config: Any) -> DictConfig:
    config = compose_config("gad_cpu")
    OmegaConf.set_struct(config, False)
    return config


def dataset_of(folder: Path, config: DictConfig, model: Path, rows: list[dict[str, Any]]) -> GadDataset:
    path = folder / "rows.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return GadDataset(
        data_files=str(path), tokenizer=hf_tokenizer(str(model)), config=config.data, processor=hf_processor(str(model))
    )


ROWS = [
    {"prompt": [{"role": "user", "content": "<image>What is it?"}], "images": [png(1)]},
    {"prompt": [{"role": "user", "content": "no picture, but <image> as a word"}], "images": []},
    {
        "prompt": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "first <image> then<image><image>"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "again: <image>\n?"},
        ],
        "images": [png(2, (200, 80)), png(3), png(4, (64, 64)), png(5, (90, 300))],
    },
]


@pytest.fixture
def rows(
    tmp_path: Path, stock: DictConfig, family: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = [
        {**row, "images": [{"bytes": one, "path": None} for one in row["images"]], "teacher_response": "It is."}
        for row in ROWS
    ]
    dataset = dataset_of(tmp_path, stock, family[1], table)
    return [dataset[number] for number in range(len(dataset))]


def test_a_row_carries_its_images_as_files(rows: list[dict[str, Any]]) -> None:
    for row, table in zip(rows, ROWS, strict=True):
        assert image_files(row["raw_prompt"]) == table["images"] and "images" not in row
    assert rows[1]["raw_prompt"] == ROWS[1]["prompt"]


class Silent:
    """A rollout that answers with fixed ids, and remembers which pictures it was shown."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.shown = ids, []

    async def generate(self, request_id: str, *, image_data: Any = None, **_: Any) -> TokenOutput:
        self.shown.append(image_data)
        return TokenOutput(token_ids=self.ids, log_probs=[-1.0] * len(self.ids), extra_fields={})


def by_verl(config: DictConfig, family: tuple[str, Path], row: dict[str, Any], answer: list[int]) -> dict[str, Any]:
    """What verl's agent loop and its worker make of a row (``agent_loop_tq.py``, ``_agent_loop_postprocess``)."""
    name, folder = family
    tokenizer, processor = hf_tokenizer(str(folder)), hf_processor(str(folder))
    silent = Silent(answer)

    async def run() -> Any:
        loop = SingleTurnAgentLoop(
            DictConfigWrap(config=config),
            silent,
            tokenizer,
            processor,
            GadDataset,
            DictConfigWrap(config=config.data),
            hf_model_type=name,
        )
        return await loop.run({}, raw_prompt=copy.deepcopy(row["raw_prompt"]))

    output = asyncio.run(run())
    worker = AgentLoopWorker.__new__(AgentLoopWorker)
    worker.processor, worker.tokenizer, worker.mm_processor_kwargs = processor, tokenizer, {}
    ids = torch.tensor([*output.prompt_ids, *output.response_ids])
    inputs = worker._compute_multi_modal_inputs(output, ids)
    positions = worker._compute_position_ids(ids.unsqueeze(0), torch.ones_like(ids).unsqueeze(0), inputs).squeeze(0)
    return {"output": output, "inputs": inputs, "positions": positions, "shown": silent.shown[0]}


def prompts_of(config: DictConfig, folder: Path) -> ImagePrompts:
    return image_prompts(config, hf_tokenizer(str(folder)), hf_processor(str(folder)))


@pytest.fixture
def config(stock: DictConfig) -> DictConfig:
    found = copy.deepcopy(stock)
    found.data.max_prompt_length = found.actor_rollout_ref.rollout.prompt_length = 400
    found.actor_rollout_ref.rollout.response_length = found.data.max_response_length = 40
    return found


@pytest.mark.parametrize("number", [0, 2])
def test_tokens_pixels_and_positions_are_those_of_verls_agent_loop(
    config: DictConfig, family: tuple[str, Path], rows: list[dict[str, Any]], number: int
) -> None:
    answer = [5, 6, 7, 8, 9]
    theirs = by_verl(config, family, rows[number], answer)
    assert len(theirs["shown"]) == len(ROWS[number]["images"])
    prompts = prompts_of(config, family[1])
    ids, images = prompts.read(rows[number]["raw_prompt"])
    assert ids == theirs["output"].prompt_ids
    again = prompts.of_files(ids, images.files)
    given = prompts.of_rollout(ids, theirs["inputs"], images.files)
    for ours in (images, again, given):
        assert sorted(ours.inputs) == sorted(theirs["inputs"])
        for name, value in theirs["inputs"].items():
            assert torch.equal(ours.inputs[name], value), name
        assert torch.equal(positions_of(len(ids) + len(answer), ours), theirs["positions"])
    # A fresh count would be another one.
    assert not torch.equal(theirs["positions"][1], theirs["positions"][0])


def test_the_positions_of_a_row_of_text_are_those_of_verl(
    config: DictConfig, family: tuple[str, Path], rows: list[dict[str, Any]]
) -> None:
    theirs = by_verl(config, family, rows[1], [5, 6])["positions"]
    assert torch.equal(positions_of(theirs.shape[1], None), theirs)


@given(prompt=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 1000))
def test_positions_go_on_from_the_largest_of_the_prompt(prompt: int, more: int, seed: int) -> None:
    seen = torch.randint(0, 30, (4, prompt), generator=torch.Generator().manual_seed(seed))
    seen[0] = torch.arange(prompt)
    found = positions_of(prompt + more, PromptImages({}, seen))
    assert torch.equal(found[:, :prompt], seen) and torch.equal(found[0], torch.arange(prompt + more))
    for row in found[1:, prompt:].tolist():
        assert row == list(range(int(seen[1:].max()) + 1, int(seen[1:].max()) + 1 + more))


def test_the_tokens_of_images_are_told_by_their_sizes(
    config: DictConfig, family: tuple[str, Path], rows: list[dict[str, Any]]
) -> None:
    prompts = prompts_of(config, family[1])
    image = hf_processor(str(family[1])).image_token_id
    for number in (0, 2):
        ids, images = prompts.read(rows[number]["raw_prompt"])
        sizes = [image_size(file, "here") for file in images.files]
        assert prompts.added_tokens(sizes) == ids.count(image) - len(sizes)
    assert prompts.added_tokens([(50, 60)]) != prompts.added_tokens([(300, 90)])


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(
    config: DictConfig, family: tuple[str, Path], rows: list[dict[str, Any]]
) -> None:
    length = len(prompts_of(config, family[1]).read(rows[2]["raw_prompt"])[0])
    config.data.max_prompt_length = length
    prompts_of(config, family[1]).read(rows[2]["raw_prompt"])
    config.data.max_prompt_length = length - 1
    with pytest.raises(GadDataError, match=f"has {length} tokens with its 4 images, more than data.max_prompt"):
        prompts_of(config, family[1]).read(rows[2]["raw_prompt"])


def test_other_processors_are_refused(config: DictConfig, tokenizer: Any) -> None:
    with pytest.raises(GadConfigError, match="images are covered for.*none that verl can make"):
        image_prompts(config, tokenizer, None)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]),
    share=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 9),
)
def test_what_the_check_of_an_image_accepts_is_whole(kind: str, share: float, seed: int) -> None:
    pixels = bytes(random.Random(seed).randrange(256) for _ in range(40 * 30 * 3))
    buffer = io.BytesIO()
    Image.frombytes("RGB", (40, 30), pixels).save(buffer, format=kind)
    whole = buffer.getvalue()
    check_image(whole, "row 3")
    cut = whole[: int(share * len(whole))]
    try:
        check_image(cut, "row 3")
    except GadDataError as error:
        assert str(error).startswith("row 3: ") and "\n" not in str(error)
    else:
        # A mark at the end of the file is all that can be missing.
        assert decoded(cut).tobytes() == decoded(whole).tobytes()


def test_a_jpeg_with_other_bytes_behind_it_is_whole() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format="JPEG")
    check_image(buffer.getvalue() + b"\0\0", "row 3")


def test_an_image_that_pillow_takes_for_an_attack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(GadDataError, match="row 3.*no image Pillow knows"):
        image_size(png(1), "row 3")
