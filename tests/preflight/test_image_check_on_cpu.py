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
"""Rows with images before a run: what is refused, with the file, the row and the remedy."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_model import build_model
from tiny_vlm import TEMPLATE, build_vlm, colour_rows, picture

from gad_verl.config import load_gad_config
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.preflight.image_check import check_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    build_vlm(folder / "model")
    build_vlm(folder / "other_eyes", pixels=112 * 112)
    build_vlm(folder / "larger", seed=5)
    build_model(folder / "blind")
    return folder


@pytest.fixture(scope="module")
def base(compose_config: Callable[..., DictConfig], folder: Path) -> DictConfig:
    return compose_config("gad_cpu", f"actor_rollout_ref.model.path={folder / 'model'}")


@pytest.fixture
def check(base: DictConfig, tmp_path: Path) -> Callable[..., str]:
    """Checks rows with settings; returns what is refused, or nothing."""

    def checked(rows: list[dict[str, Any]], **values: Any) -> str:
        config, path = copy.deepcopy(base), str(tmp_path / "rows.parquet")
        pd.DataFrame(rows).to_parquet(path)
        values = {"data.train_files": path, "data.val_files": path} | values
        for key, value in values.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        try:
            check_images(config, load_gad_config(config))
        except (GadConfigError, GadDataError) as error:
            assert "\n" not in str(error)
            return str(error).replace(path, "FILE")
        return ""

    return checked


def with_prompt(content: str, **more: Any) -> list[dict[str, Any]]:
    rows = colour_rows(3, seed=1)
    rows[2] |= {"prompt": [{"role": "user", "content": content}], **more}
    return rows


def test_rows_with_images_pass(check: Callable[..., str], tmp_path: Path) -> None:
    assert check(colour_rows(4, seed=1)) == ""
    assert check(with_prompt("no picture", images=[])) == ""
    (tmp_path / "a.png").write_bytes(picture("red"))
    assert check([{**row, "images": [str(tmp_path / "a.png")]} for row in colour_rows(2, seed=1)]) == ""
    named = [{**row, "pictures": row.pop("images")} for row in colour_rows(2, seed=1)]
    assert check(named, data__image_key="pictures") == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (with_prompt("<image><image>"), "FILE, row 2: 1 images for 2 places in the prompt; write <image> once"),
        (with_prompt("none"), "FILE, row 2: 1 images for 0 places"),
        (with_prompt("<image><video>"), "FILE, row 2: the prompt holds <video>"),
        (
            with_prompt("<image>", images=[{"bytes": b"abc", "path": None}]),
            "FILE, row 2, column 'images': 3 bytes that are no image",
        ),
        (
            with_prompt("<image>", images=[{"bytes": picture("red")[:-20], "path": None}]),
            f"FILE, row 2, column 'images': the image of {len(picture('red')) - 20} bytes is damaged or not whole (",
        ),
        (
            with_prompt("<image>", images=[{"bytes": None, "path": "nowhere.png"}]),
            "FILE, row 2, column 'images': the image nowhere.png cannot be read",
        ),
    ],
)
def test_a_row_is_refused(check: Callable[..., str], rows: list[dict[str, Any]], said: str) -> None:
    assert check(rows).startswith(said)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_an_image_of_the_last_row_is_opened(base: DictConfig, tmp_path: Path, suffix: str) -> None:
    texts = [{"prompt": [{"role": "user", "content": "Q?"}], "teacher_response": "A."}] * 120
    rows = pd.DataFrame([*texts, *with_prompt("<image>", images=["nowhere.png"])[2:]])
    path = tmp_path / f"rows.{suffix}"
    lines = [row.dropna().to_json() for _, row in rows.iterrows()]
    path.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    config = copy.deepcopy(base)
    config.data.train_files = config.data.val_files = str(path)
    with pytest.raises(GadDataError, match=r"row 120, column 'images': the image nowhere.png cannot be read"):
        check_images(config, load_gad_config(config))


def test_a_prompt_that_would_have_to_be_cut_is_refused(check: Callable[..., str]) -> None:
    rows = with_prompt("<image>" + "x" * 40)
    said = check(rows, data__max_prompt_length=64)
    assert said.startswith("FILE, row 2: the prompt has ") and "is never cut: raise it" in said
    tokens = int(said.split("has ")[1].split()[0])
    assert check(rows, data__max_prompt_length=tokens) == ""
    assert check(rows, data__max_prompt_length=64, data__filter_overlong_prompts=True) == ""


REFUSED = {
    "gad.stage=soda": {"gad__stage": "soda"},
    "trainer.v1.trainer_mode=gad_colocate_async": {"trainer__v1__trainer_mode": "gad_colocate_async"},
    "gad.thinking.mode=hidden": {"gad__thinking__mode": "hidden"},
    "gad.trajectory.enable=True": {"gad__trajectory__enable": True},
    "actor_rollout_ref.actor.strategy=megatron": {"actor_rollout_ref__actor__strategy": "megatron"},
    "discriminator.strategy=megatron": {"discriminator__strategy": "megatron"},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_covered_is_refused_by_its_key(check: Callable[..., str], key: str) -> None:
    said = check(colour_rows(2, seed=1), **REFUSED[key])
    assert said.startswith("rows with images") and key in said
    text = [{key: value for key, value in row.items() if key != "images"} for row in colour_rows(2, seed=1)]
    assert check(text, **REFUSED[key]) == ""


def test_a_discriminator_must_have_the_students_processor(check: Callable[..., str], folder: Path) -> None:
    rows = colour_rows(2, seed=1)
    assert check(rows, discriminator__model__path=str(folder / "larger")) == ""
    for name in ("other_eyes", "blind"):
        said = check(rows, discriminator__model__path=str(folder / name))
        assert said.endswith("has another processor; take a model of the student's family")


def test_a_student_without_eyes_is_refused(check: Callable[..., str], folder: Path) -> None:
    said = check(colour_rows(2, seed=1), actor_rollout_ref__model__path=str(folder / "blind"))
    assert said.startswith("images are covered for students with one of the processors")


def test_a_template_that_leaves_images_out_is_refused(check: Callable[..., str]) -> None:
    blind = TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "")
    said = check(colour_rows(2, seed=1), actor_rollout_ref__model__custom_chat_template=blind)
    assert said.startswith("FILE, row 0: the chat template writes 0 places for 1 images")


def test_doctor_and_estimate_count_with_the_templates_of_the_run(base: DictConfig, tmp_path: Path) -> None:
    from gad_verl.tools.data.token_stats import count_tokens, run_builder, run_images

    path = tmp_path / "rows.parquet"
    pd.DataFrame(colour_rows(3, seed=1)).to_parquet(path)
    counted = []
    for template in (None, TEMPLATE + "{{ 'twelve bytes' }}"):
        config = copy.deepcopy(base)
        OmegaConf.update(config, "actor_rollout_ref.model.custom_chat_template", template, force_add=True)
        reader = partial(run_images, config)
        found = count_tokens(path, run_builder(config), "prompt", "teacher_response", open_images=reader)
        counted.append(found.prompts)
    assert (counted[1] - counted[0] == 12).all()
