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
"""The real worker on real FSDP: one batch, every layout of ranks and micro-batches, one loss and gradient."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from probe_cases import Case, Probes, Results
from reward_scores import classifier_scores
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig
from worker_probe import NUM_STUDENTS, copied_groups, make_groups, turning_groups

from gad_verl.core import bradley_terry_loss
from gad_verl.discriminator.model import load_discriminator, prepare_config
from gad_verl.discriminator.shared_keys import pack_keyed_groups
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.weights import export_part, load_state

LAYOUTS = [(1, "fsdp"), (1, "fsdp2"), (2, "fsdp"), (2, "fsdp2")]
PROBE_CASES = [Case(world_size, "worker_probe", strategy) for world_size, strategy in LAYOUTS]
SPLITS = ["large", "small", "static", "packed", "two_passes", "split"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def probe(probes: Probes) -> Results:
    """What the worker computed in every layout."""
    return probes.of("worker_probe")


def computed(model_folder: Path, groups: list[Any]) -> dict[str, Any]:
    """A batch through plain transformers and autograd, with the worker's head."""
    config = AutoConfig.from_pretrained(model_folder, attn_implementation="sdpa")
    prepare_config(config, None)
    model = load_discriminator(model_folder, config, torch.float32, fresh_head=True, seed=3)
    rows, weights, ends = [], [], []
    for group in groups:
        rows += [*group.teacher_ids, *([0] if ids is None else ids for ids in group.student_ids)]
        ends += group.rows_ends(1)
        weights.append([0.0 if ids is None else 1.0 for ids in group.student_ids])
    ids = [torch.tensor(row) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    logits = model(input_ids=pad_sequence(ids, batch_first=True), attention_mask=mask).logits.squeeze(-1)
    values = [row[places or [len(one) - 1]].mean() for row, one, places in zip(logits, ids, ends, strict=True)]
    scores = torch.stack(values).view(len(groups), NUM_STUDENTS + 1)
    loss = bradley_terry_loss(scores[:, 0], scores[:, 1:], weights=torch.tensor(weights))
    loss.backward()
    return {
        "loss": loss.item(),
        "scores": scores.detach().flatten(),
        "weights": torch.tensor(weights),
        "gradient": {name: parameter.grad for name, parameter in model.named_parameters()},
    }


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> dict[str, Any]:
    """What the worker should compute."""
    return computed(model_folder, make_groups())


@pytest.fixture(scope="module")
def reference_of_turns(model_folder: Path) -> dict[str, Any]:
    """The same of groups whose scores are means over turns."""
    return computed(model_folder, turning_groups())


@pytest.mark.parametrize("path", ["turns", "turns_two_passes", "turns_shared_packed"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_the_score_of_a_trajectory_is_the_mean_over_its_turns(
    probe: Results, reference_of_turns: dict, layout: tuple[int, str], path: str
) -> None:
    result, expected = probe[layout][path], reference_of_turns
    assert result["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    used = torch.cat([torch.ones(len(expected["weights"]), 1), expected["weights"]], dim=1).flatten() > 0
    torch.testing.assert_close(result["scores"][used], expected["scores"][used], atol=TOLERANCE, rtol=0)
    for name, gradient in result["gradient"].items():
        torch.testing.assert_close(gradient, expected["gradient"][name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_loss_scores_and_gradient_do_not_depend_on_the_layout(
    probe: Results, reference: dict, layout: tuple[int, str], split: str
) -> None:
    result = probe[layout][split]
    assert result["loss"] == pytest.approx(reference["loss"], abs=TOLERANCE)
    used = torch.cat([torch.ones(len(make_groups()), 1), reference["weights"]], dim=1).flatten() > 0
    torch.testing.assert_close(result["scores"][used], reference["scores"][used], atol=TOLERANCE, rtol=0)
    assert set(result["gradient"]) == set(reference["gradient"])
    for name, gradient in result["gradient"].items():
        torch.testing.assert_close(
            gradient, reference["gradient"][name], atol=TOLERANCE, rtol=0, msg=lambda m, n=name: n + m
        )
    norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in reference["gradient"].values()))
    assert result["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("shared", ["prompt_shared", "prompt_shared_packed", "prompt_shared_flash"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_a_shared_prompt_changes_neither_scores_nor_gradient(
    probe: Results, layout: tuple[int, str], shared: str
) -> None:
    """``evaluated_scores`` are always of separate rows."""
    apart, result = probe[layout]["prompt_apart"], probe[layout][shared]
    assert probe[layout]["flash_packs_by"] == pack_keyed_groups.__name__, "else flash attention shares nothing"
    assert result["loss"] == pytest.approx(apart["loss"], abs=TOLERANCE)
    torch.testing.assert_close(result["scores"], result["evaluated_scores"], atol=TOLERANCE, rtol=0)
    assert apart["grad_norm"] > 1e-2
    for name, gradient in result["gradient"].items():
        torch.testing.assert_close(gradient, apart["gradient"][name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_update_returns_the_scores_of_before_the_update(probe: Results, layout: tuple[int, str]) -> None:
    for split in SPLITS:
        result = probe[layout][split]
        torch.testing.assert_close(result["scores"], result["evaluated_scores"], atol=TOLERANCE, rtol=0)
        assert result["loss"] == pytest.approx(result["evaluated_loss"], abs=TOLERANCE)
        assert any(gradient.abs().max() > 1e-3 for gradient in result["gradient"].values())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_identical_texts_give_identical_scores_and_ln_2(probe: Results, layout: tuple[int, str]) -> None:
    result = probe[layout]["identical"]
    scores = result["scores"].view(-1, NUM_STUDENTS + 1)
    assert torch.equal(scores, scores[:, :1].expand_as(scores))
    assert result["loss"] == pytest.approx(math.log(2), abs=1e-7)


@pytest.mark.parametrize("path", ["padded", "packed", "shared"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_identical_texts_give_identical_scores_in_bfloat16(probe: Results, layout: tuple[int, str], path: str) -> None:
    scores = probe[layout][f"copied_{path}"]["scores"].view(-1, NUM_STUDENTS + 1).tolist()
    for group, of_rows in zip(copied_groups(), scores, strict=True):
        of_text = {tuple(row): score for row, score in zip(group.rows(), of_rows, strict=True)}
        assert [of_text[tuple(row)] for row in group.rows()] == of_rows


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_a_text_that_is_read_once_has_the_gradient_of_all_its_copies(probe: Results, layout: tuple[int, str]) -> None:
    """In the second form every copy is a row of its own."""
    once, each = probe[layout]["copied"], probe[layout]["copied_as_rows"]
    assert once["loss"] == pytest.approx(each["loss"], abs=TOLERANCE)
    read = torch.tensor([[1, *group.valid_students()] for group in copied_groups()]).flatten() > 0
    torch.testing.assert_close(once["scores"][read], each["scores"][read], atol=TOLERANCE, rtol=0)
    assert once["grad_norm"] > 1e-2
    for name, gradient in once["gradient"].items():
        torch.testing.assert_close(gradient, each["gradient"][name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_the_head_stays_in_float32_under_mixed_precision(
    probe: Results, reference: dict, layout: tuple[int, str]
) -> None:
    """Scores of a bfloat16 body are not rounded to bfloat16, so they do not tie; they stay near the exact ones."""
    scores = probe[layout]["bf16"]["scores"]
    rounded = scores.bfloat16().float()
    assert (scores != rounded).float().mean() > 0.8
    used = torch.cat([torch.ones(len(make_groups()), 1), reference["weights"]], dim=1).flatten() > 0
    torch.testing.assert_close(scores[used], reference["scores"][used], atol=5e-2, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_export_joins_the_shards_of_every_layout(probe: Results, layout: tuple[int, str], tmp_path: Path) -> None:
    folder = probe[layout]["checkpoint"]
    state = load_state(folder)
    assert set(state) == set(probe[layout]["after"])
    for name, tensor in probe[layout]["after"].items():
        assert torch.equal(state[name], tensor), name
    checkpoint = tmp_path / "global_step_1"
    checkpoint.mkdir()
    (checkpoint / "discriminator").symlink_to(folder)
    exported = export_part(checkpoint, "discriminator", tmp_path / "exported")
    config = AutoConfig.from_pretrained(exported, attn_implementation="sdpa")
    prepare_config(config, None)
    loaded = load_discriminator(exported, config, torch.float32, fresh_head=False, seed=0)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    # The folder is a plain reward model with the scores of the worker.
    rows = [row for group in make_groups() for row in group.rows()]
    trained = probe[layout]["saved_scores"]
    assert trained.std() > 0.1
    for side in ("left", "right"):
        torch.testing.assert_close(classifier_scores(exported, rows, side), trained, atol=TOLERANCE, rtol=0)


def test_a_missing_head_is_an_error_unless_a_fresh_one_is_asked_for(model_folder: Path) -> None:
    config = AutoConfig.from_pretrained(model_folder)
    prepare_config(config, None)
    with pytest.raises(GadCheckpointError, match="score.weight.*discriminator_head=fresh"):
        load_discriminator(model_folder, config, torch.float32, fresh_head=False, seed=0)


def test_the_first_layers_alone_make_a_smaller_discriminator(model_folder: Path) -> None:
    whole = load_discriminator(*_config(model_folder, None), torch.float32, fresh_head=True, seed=0)
    small = load_discriminator(*_config(model_folder, 1), torch.float32, fresh_head=True, seed=0)
    assert len(small.model.layers) == 1 and len(whole.model.layers) == 2
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
    with pytest.raises(GadCheckpointError, match="has 2 layers"):
        _config(model_folder, 3)


def _config(folder: Path, layers: int | None) -> tuple[Path, Any]:
    config = AutoConfig.from_pretrained(folder)
    prepare_config(config, layers)
    return folder, config


def test_the_fresh_head_is_the_same_in_every_layout(probe: Results) -> None:
    heads = [probe[layout]["large"]["before"]["score.weight"] for layout in LAYOUTS]
    for head in heads[1:]:
        assert torch.equal(head, heads[0])
