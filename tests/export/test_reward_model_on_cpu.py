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
"""An exported discriminator as a plain reward model: the trainer's scores, whatever the tokenizer pads with."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_blocks import blocks
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from reward_scores import classifier_scores
from run_folders import build_discriminator, last_values, save_part, write_run
from tiny_model import CHAT_TEMPLATE, build_model, build_tokenizer
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer
from vllm_classify import classify

from gad_verl.core.trust import HeldOut
from gad_verl.data.thinking import without_thoughts
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.reward_model import (
    find_padding,
    read_scoring,
    scored_ids,
    scoring_builder,
    sequence_classifier,
)
from gad_verl.tools.export.weights import export_part
from gad_verl.trainer.checkpoints import read_state

TOLERANCE = 1e-4
CHATS = [
    [{"role": "user", "content": "red green"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat sleeps " * 9}],
]
ANSWERS = ["blue", "", "the old house and the small dog", "näive 🙂 <|im_end|> text"]


def exported_with(tmp_path: Path, config: DictConfig, **tokens: Any) -> tuple[Path, Any]:
    """An exported discriminator whose tokenizer was changed before the training, and the model that was trained."""
    source = build_model(tmp_path / "source", hidden=64)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = CHAT_TEMPLATE + "{% if tone is defined %}({{ tone }}){% endif %}"
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(source)
    model = build_discriminator(source)
    model.config.pad_token_id = tokenizer.pad_token_id
    config.data.max_prompt_length, config.data.max_response_length = 64, 12
    config.data.apply_chat_template_kwargs = {"tone": "kind"}
    checkpoint = write_run(tmp_path / "run", config, 7)
    save_part(checkpoint / "discriminator", model, source)
    return export_part(checkpoint, "discriminator", tmp_path / "exported", card=CardRequest()), model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _tiny_base: DictConfig) -> tuple[Path, Any]:
    """The tiny discriminator, padded by its end-of-text token, as verl sets it where a tokenizer has no padding."""
    return exported_with(tmp_path_factory.mktemp("reward"), _tiny_base.copy(), pad_token="<|im_end|>")


def trainer_rows(folder: Path) -> list[list[int]]:
    """What the trainer scores: its builder with the limits and the template of the run."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    builder = SequenceBuilder(tokenizer, 64, 12, chat_template_kwargs={"tone": "kind"})
    return [
        builder.prompt(chat) + builder.response(answer, finished).token_ids
        for chat in CHATS
        for answer in ANSWERS
        for finished in (True, False)
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_give_the_trainers_scores(made: tuple[Path, Any], side: str) -> None:
    folder, model = made
    rows = trainer_rows(folder)
    expected = last_values(model, rows)
    assert expected.std() > 0.1
    torch.testing.assert_close(classifier_scores(folder, rows, side), expected, atol=TOLERANCE, rtol=0)
    # The other form of the same folder, bias included.
    trained = AutoModelForTokenClassification.from_pretrained(folder).eval()
    torch.testing.assert_close(last_values(trained, rows), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("asks", "reads"),
    [
        ("<think>\n", ""),
        ("{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}", "<think></think>"),
    ],
)
def test_a_discriminator_of_answers_is_asked_without_thoughts(
    tmp_path: Path, _tiny_base: DictConfig, monkeypatch: pytest.MonkeyPatch, asks: str, reads: str
) -> None:
    config = _tiny_base.copy()
    config.gad.thinking.mode, config.gad.max_answer_length = "hidden", 7
    folder, _ = exported_with(tmp_path, config, chat_template=CHAT_TEMPLATE + asks)
    trained = SequenceBuilder(AutoTokenizer.from_pretrained(folder), 64, 7, chat_template_kwargs={"tone": "kind"})
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(python_of(folder)[0], names)
    for chat in CHATS:
        expected = [*without_thoughts(trained).prompt(chat), *trained.response("the old house").token_ids]
        assert trained.decode(expected).count("<think>") == reads.count("<think>")
        assert scored_ids(scoring_builder(folder), chat, "the old house") == expected
        assert names["scored_ids"](chat, "the old house") == expected


def test_padding_by_the_end_of_text_would_have_been_wrong(made: tuple[Path, Any], tmp_path: Path) -> None:
    """What the export mends: the token before the end-of-text would be scored."""
    folder, model = made
    rows = trainer_rows(folder)
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    assert config["pad_token_id"] not in (None, config["eos_token_id"])
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": config["eos_token_id"]}))
    assert (classifier_scores(tmp_path, rows) - last_values(model, rows)).abs().max() > 0.1


def test_what_the_folder_says(made: tuple[Path, Any]) -> None:
    folder, _ = made
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["Qwen2ForSequenceClassification"] and config.num_labels == 1
    # vLLM puts a sigmoid on one label of anything else.
    assert config.problem_type == "regression"
    assert AutoTokenizer.from_pretrained(folder).pad_token_id == config.pad_token_id
    scoring = read_scoring(folder)
    assert (scoring.max_prompt_length, scoring.max_response_length, scoring.score_bias) == (64, 12, 0.25)
    assert scoring.chat_template_kwargs == {"tone": "kind"}


def test_what_never_trained_it_goes_with_it(tmp_path: Path, made: tuple[Path, Any]) -> None:
    """A run that is begun with it must not ask it about what it has seen."""
    checkpoint = made[0].parent / "run" / "global_step_7"
    before, held_out = read_state(checkpoint), HeldOut(0.25, 3)
    assert read_scoring(made[0]).held_out is None
    replace(before, held_out=held_out).write(checkpoint)
    try:
        assert read_scoring(export_part(checkpoint, "discriminator", tmp_path / "d")).held_out == vars(held_out)
    finally:
        before.write(checkpoint)


def python_of(folder: Path) -> list[str]:
    return blocks(folder / "README.md", "python")


def test_the_blocks_of_the_card_run_as_they_stand(
    made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = made
    tokens, transformers_block, _ = python_of(folder)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(tokens + transformers_block, names)
    expected = last_values(model, names["rows"])
    torch.testing.assert_close(torch.tensor(names["scores"]), expected, atol=TOLERANCE, rtol=0)
    assert json.loads(capsys.readouterr().out) == names["scores"]


def test_the_card_and_the_package_make_the_trainers_tokens(
    made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(python_of(folder)[0], names)
    builder = scoring_builder(folder)
    expected = iter(trainer_rows(folder))
    for chat in CHATS:
        for answer in ANSWERS:
            for finished in (True, False):
                row = next(expected)
                assert names["scored_ids"](chat, answer, finished) == row
                assert scored_ids(builder, chat, answer, finished) == row

    @settings(max_examples=40)
    @given(st.text(max_size=30), st.text(max_size=30), st.booleans())
    def same(question: str, answer: str, finished: bool) -> None:
        chat = [{"role": "user", "content": question}]
        assert names["scored_ids"](chat, answer, finished) == scored_ids(builder, chat, answer, finished)

    same()


@pytest.mark.e2e
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_gives_the_trainers_scores(made: tuple[Path, Any], tmp_path: Path) -> None:
    """Real vLLM on this CPU, by the block of the card."""
    folder, model = made
    tokens, _, vllm_block = python_of(folder)
    rows = trainer_rows(folder)
    result = classify(folder, [tokens, vllm_block], rows, tmp_path)
    for scores, of in (("scores", result["rows"]), ("more", rows)):
        torch.testing.assert_close(torch.tensor(result[scores]), last_values(model, of), atol=TOLERANCE, rtol=0)


# ------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({}, "<|endoftext|>"),  # the tokenizer's own
        ({"pad_token": "<|im_end|>"}, "<|endoftext|>"),
        ({"pad_token": "<|im_start|>"}, "<|endoftext|>"),  # a rendered prompt holds it
        ({"pad_token": None}, "<|endoftext|>"),
        ({"pad_token": None, "more": ["<|reserved_0|>", "<|right_pad_id|>"]}, "<|right_pad_id|>"),
    ],
)
def test_padding_is_no_token_that_a_sequence_ends_with(tokens: dict[str, Any], expected: str) -> None:
    tokenizer = build_tokenizer()
    more = tokens.pop("more", [])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *more]})
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    found = find_padding(tokenizer, len(tokenizer))
    assert tokenizer.convert_ids_to_tokens(found) == expected
    # What lies beyond the embedding cannot pad.
    assert find_padding(tokenizer, min(257, found)) is None


def test_without_a_token_that_can_pad_one_row_at_a_time(
    tmp_path: Path, tiny_config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = exported_with(tmp_path, tiny_config, pad_token="<|im_end|>", chat_template=_USES_ALL)
    assert AutoConfig.from_pretrained(folder).pad_token_id is None
    tokens, transformers_block, _ = python_of(folder)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(tokens + transformers_block, names)
    expected = last_values(model, names["rows"])
    torch.testing.assert_close(torch.tensor(names["scores"]), expected, atol=TOLERANCE, rtol=0)


_USES_ALL = "<|endoftext|>{{ messages[0]['content'] }}<|im_start|>"


def test_families_whose_classifier_works_otherwise_stay_token_classifiers() -> None:
    from transformers import GPT2Config, LlamaConfig, Qwen3Config

    assert sequence_classifier(LlamaConfig()) == "LlamaForSequenceClassification"
    assert sequence_classifier(Qwen3Config()) == "Qwen3ForSequenceClassification"
    # Its heads have different names.
    assert sequence_classifier(GPT2Config()) is None


def test_a_folder_that_is_no_exported_discriminator(tmp_path: Path) -> None:
    with pytest.raises(GadCheckpointError, match="gad-verl export --part discriminator"):
        scoring_builder(tmp_path)
    (tmp_path / "gad_scoring.json").write_text("{")
    with pytest.raises(GadCheckpointError, match="damaged"):
        read_scoring(tmp_path)
