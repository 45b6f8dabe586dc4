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
"""Options of the discriminator's loss in the real worker, against plain transformers and autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
from custom_losses import squared_hinge
from probe_cases import Case, Probes, Results
from tools_probe import NOISE_SEED, loss_options, tool_groups
from transformers import AutoConfig
from worker_probe import NUM_STUDENTS

from gad_verl.core import discriminator_pair_loss, pair_weights
from gad_verl.discriminator.embedding_noise import EmbeddingNoise, row_noise
from gad_verl.discriminator.groups import GroupLayout, build_row_batch, noise_seeds
from gad_verl.discriminator.model import load_discriminator, prepare_config

LAYOUTS = [(1, "fsdp"), (2, "fsdp2")]
PROBE_CASES = [Case(world_size, "tools_probe", strategy) for world_size, strategy in LAYOUTS]
NAMES = ["plain", "cross_entropy", "softened", "pinned", "penalty", "everything", "custom"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def probe(probes: Probes) -> Results:
    """What the worker computed in every layout."""
    return probes.of("tools_probe")


def build_reference(model_folder: Path) -> Any:
    config = AutoConfig.from_pretrained(model_folder, attn_implementation="sdpa")
    prepare_config(config, None)
    return load_discriminator(model_folder, config, torch.float32, fresh_head=True, seed=3)


def score(model: Any, ids: list[int], seed: int = 0, distance: float = 0.0) -> torch.Tensor:
    """Score of one sequence, with noise on its embeddings where there is a seed."""
    embeddings = model.get_input_embeddings()(torch.tensor([ids]))
    if seed:
        embeddings = embeddings + row_noise(embeddings[0], seed, distance)
    return model(inputs_embeds=embeddings).logits[0, -1, 0]


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> dict[str, Any]:
    """Loss and gradient written down pair by pair."""
    groups = tool_groups()
    results = {}
    for name, options in loss_options().items():
        model = build_reference(model_folder)
        noisy = options.penalty_coefficient > 0
        layout = GroupLayout.of(groups, NUM_STUDENTS, 1 if noisy else None)
        seeds = noise_seeds(len(groups), layout, NOISE_SEED)
        total, count, penalty, penalised = torch.zeros(()), 0.0, torch.zeros(()), 0
        for number, group in enumerate(groups):
            if not group.trains:
                continue
            students = [ids for ids in group.student_ids if ids is not None]
            weights = pair_weights(torch.tensor([group.teacher_weights]), torch.ones(1, len(students)))
            scores = [score(model, ids) for ids in group.teacher_ids], [score(model, ids) for ids in students]
            if students:
                teacher, student = (torch.stack(side).unsqueeze(0) for side in scores)
                if options.custom is not None:
                    pairs = squared_hinge(teacher.unsqueeze(2), student.unsqueeze(1))
                    total = total + (pairs * weights).sum()
                else:
                    total = total + discriminator_pair_loss(teacher, student, weights, 1.0, options.pairs)
                count += weights.sum().item()
            if noisy:
                rows = [(place, ids) for place, ids in enumerate(group.teacher_ids)]
                if group.student_ids[0] is not None:
                    rows.append((layout.num_teachers, group.student_ids[0]))
                for place, ids in rows:
                    copy = layout.clean_size + layout.noisy_rows.index(place)
                    seed = int(seeds[number, copy])
                    slope = score(model, ids, seed, options.penalty_distance) - score(model, ids)
                    penalty = penalty + 0.5 * (slope / options.penalty_distance) ** 2
                    penalised += 1
        loss = total / count
        if noisy:
            loss = loss + options.penalty_coefficient * penalty / penalised
        loss.backward()
        gradient = {key: parameter.grad for key, parameter in model.named_parameters()}
        results[name] = {"loss": loss.item(), "gradient": gradient}
    return results


@pytest.mark.parametrize("form", ["one", "two"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_every_option_in_every_form_is_what_is_written_down(
    probe: Results, reference: dict, layout: tuple[int, str], name: str, form: str
) -> None:
    found, expected = probe[layout][name, form], reference[name]
    assert found["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    scale = max(gradient.abs().max().item() for gradient in expected["gradient"].values())
    assert scale > 1e-3
    for key, gradient in found["gradient"].items():
        torch.testing.assert_close(
            gradient, expected["gradient"][key], atol=TOLERANCE * max(1.0, scale), rtol=1e-4, msg=lambda m, k=key: k + m
        )


def test_options_differ_from_each_other(reference: dict) -> None:
    losses = [round(reference[name]["loss"], 4) for name in NAMES]
    assert len(set(losses)) == len(NAMES)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
def test_values_at_every_token_end_with_the_score(probe: Results, model_folder: Path, layout: tuple[int, str]) -> None:
    for name in NAMES:
        result = probe[layout][name, "one"]
        for row, value in zip(result["values"], result["scores"], strict=True):
            assert row[-1] == value
    model, group = build_reference(model_folder), tool_groups()[4]
    rows = probe[layout]["plain", "one"]["values"]
    logits = model(input_ids=torch.tensor([group.teacher_ids[0]])).logits[0, :, 0]
    torch.testing.assert_close(rows[4 * 5], logits.detach(), atol=TOLERANCE, rtol=0)


def test_the_penalty_is_the_squared_gradient_at_the_embeddings(model_folder: Path) -> None:
    """Finite differences along z against z . gradient by autograd, for the model itself."""
    model, distance = build_reference(model_folder), 1e-3
    for number, group in enumerate(tool_groups()):
        embeddings = model.get_input_embeddings()(torch.tensor([group.teacher_ids[0]])).detach().requires_grad_()
        value = model(inputs_embeds=embeddings).logits[0, -1, 0]
        (gradient,) = torch.autograd.grad(value, embeddings)
        noise = row_noise(embeddings[0], number + 1, distance)
        slope = (model(inputs_embeds=embeddings + noise).logits[0, -1, 0] - value).item()
        exact = (gradient[0] * noise).sum().item()
        assert slope == pytest.approx(exact, rel=0.05, abs=2e-6)


@pytest.mark.parametrize("rows", [[[1, 2, 3, 4]], [[1, 2, 3], [4, 5, 6]]])
def test_a_share_of_a_sequence_gets_no_noise_of_the_whole(rows: list[list[int]]) -> None:
    batch = build_row_batch(rows, seeds=torch.ones(len(rows), dtype=torch.long))
    tokens = sum(map(len, rows))
    with pytest.raises(ValueError, match=r"discriminator\.fsdp\.ulysses_sequence_parallel_size=1"):
        EmbeddingNoise(0.1).plan(batch, torch.Size([1, tokens // 2]))
    noise = EmbeddingNoise(0.1)
    noise.plan(batch, torch.Size([1, tokens]))
    embeddings = torch.ones(1, tokens, 8)
    assert bool((noise.hook(torch.nn.Identity(), None, embeddings) != embeddings).all())
