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
"""A scalar head in the place of an LM head on one rank and two: plain transformers' scores, saved and exported."""

from pathlib import Path

import pytest
import torch
from family_probe import plain_discriminator, reference
from probe_cases import Case, Probes, Results
from worker_probe import prompted_groups

from gad_verl.tools.export.weights import export_part

LAYOUTS = [(1, "fsdp2"), (2, "fsdp"), (2, "fsdp2")]
PROBE_CASES = [Case(world_size, "lm_head_probe", strategy) for world_size, strategy in LAYOUTS]
TOLERANCE = 1e-5

every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")


@pytest.fixture(scope="module")
def probe(probes: Probes) -> Results:
    """What the worker computed in every layout."""
    return probes.of("lm_head_probe")


@every_layout
def test_scores_and_gradients_are_those_of_plain_transformers(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    groups = [group for group in prompted_groups() if None not in group.student_ids]
    expected = reference(found["source"], groups)
    for scores in ("scores", "evaluated_scores", "packed_scores"):
        torch.testing.assert_close(found[scores], expected["scores"], atol=TOLERANCE, rtol=0)
    assert found["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
    for name, gradient in expected["gradient"].items():
        torch.testing.assert_close(found["gradient"][name], gradient, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found["gradient"]["lm_head.weight"], expected["head"], atol=TOLERANCE, rtol=0)


@every_layout
def test_a_checkpoint_is_loaded_and_exported(probe: Results, layout: tuple[int, str], tmp_path: Path) -> None:
    found = probe[layout]
    assert (found["saved_scores"] - found["scores"]).abs().max() > 1e-3
    torch.testing.assert_close(found["loaded_scores"], found["saved_scores"], atol=TOLERANCE, rtol=0)
    model = plain_discriminator(export_part(found["checkpoint"], "discriminator", tmp_path / "exported"))
    with torch.no_grad():
        scores = [model(input_ids=torch.tensor([row])).logits[0, -1, 0] for row in found["rows"]]
    torch.testing.assert_close(torch.stack(scores), found["saved_scores"], atol=TOLERANCE, rtol=0)
