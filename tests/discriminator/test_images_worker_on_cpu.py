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
"""The real discriminator worker on prompts with images: plain transformers' scores and gradients, down to the eyes."""

import pytest
import torch
from image_probe import NUM_STUDENTS
from probe_cases import Case, Probes, Results

LAYOUTS = [(1, "qwen2_5_vl"), (1, "qwen3_vl"), (1, "qwen3_5"), (2, "qwen2_5_vl")]
PROBE_CASES = [Case(world_size, "image_probe", family) for world_size, family in LAYOUTS]
TOLERANCE = 1e-5

every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")
every_family = pytest.mark.parametrize("family", [family for ranks, family in LAYOUTS if ranks == 1])


@pytest.fixture(scope="module")
def probe(probes: Probes) -> Results:
    """What the worker computed of each family."""
    return probes.of("image_probe")


def read() -> torch.Tensor:
    """Which rows of the four groups are read."""
    found = torch.ones(4, NUM_STUDENTS + 1, dtype=torch.bool)
    found[3, 2] = False
    return found


@every_layout
@pytest.mark.parametrize("form", ["rows", "groups"])
def test_scores_are_those_of_plain_transformers(probe: Results, layout: tuple[int, str], form: str) -> None:
    result = probe[layout]
    plain = result["plain"]["scores"]
    torch.testing.assert_close(result[form]["scores"][read()], plain[read()], atol=TOLERANCE, rtol=0)
    assert plain[read()].std() > 100 * TOLERANCE


@every_layout
def test_a_batch_of_text_is_scored_as_among_images(probe: Results, layout: tuple[int, str]) -> None:
    result = probe[layout]
    for row in result["text"]["scores"]:
        torch.testing.assert_close(row, result["plain"]["scores"][1], atol=TOLERANCE, rtol=0)


@every_layout
def test_loss_and_gradient_are_those_of_plain_transformers(probe: Results, layout: tuple[int, str]) -> None:
    result = probe[layout]
    plain, gradient = result["plain"], result["gradient"]
    assert result["groups"]["loss"] == pytest.approx(plain["loss"], abs=TOLERANCE)
    for name, value in plain["eyes"].items():
        ours = next(found for key, found in gradient.items() if key.endswith(f"visual.{name}"))
        expected = torch.zeros_like(ours) if value is None else value
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0, msg=lambda text, name=name: name + text)
    moved = max(value.abs().max().item() for value in plain["eyes"].values() if value is not None)
    assert moved > 10 * TOLERANCE


@every_layout
def test_other_pictures_give_other_scores(probe: Results, layout: tuple[int, str]) -> None:
    result = probe[layout]
    moved = (result["rows"]["scores"] - result["other_pictures"]["scores"]).abs()
    has_picture = read()
    has_picture[1] = False
    assert moved[has_picture].min() > TOLERANCE
    assert moved[1].max() <= TOLERANCE


@every_family
def test_the_eyes_look_at_the_images_of_a_group_once(probe: Results, family: str) -> None:
    """Four rows of each group; the test above says that each has its share of the gradient."""
    result = probe[1, family]
    assert result["looked"] == result["patches"] > 0


@every_layout
def test_the_loss_falls(probe: Results, layout: tuple[int, str]) -> None:
    losses = probe[layout]["losses"]
    assert losses[-1] < 0.7 * losses[0]


@every_family
def test_the_discriminator_learns_to_look(probe: Results, family: str) -> None:
    """Every text is as often the teacher's as any other: who does not look is right in half of the pairs, whatever is
    shown. One who looks is right less often where pictures of another colour are shown: their text is among the others.
    """
    result = probe[1, family]
    assert result["right", 0] > 0.75 and result["right", 1] < result["right", 0] - 0.2


# ------------------------------ the student's supervised steps ------------------------------


@every_family
def test_cross_entropy_is_that_of_plain_transformers(probe: Results, family: str) -> None:
    result = probe[1, family]
    *found, padding = result["student"]["losses"]
    assert found == pytest.approx(result["plain_losses"], abs=1e-4) and padding == 0
    # Of a batch of text alone.
    assert result["student"]["text"] == pytest.approx([result["plain_losses"][1], 0], abs=1e-4)


@every_family
def test_a_text_to_another_picture_is_less_or_more_likely(probe: Results, family: str) -> None:
    student = probe[1, family]["student"]
    moved = [abs(a - b) for a, b in zip(student["losses"], student["other_pictures"], strict=True)]
    assert min(moved[0], moved[2], moved[3]) > 1e-4 and moved[1] == pytest.approx(0, abs=1e-5)


@every_family
def test_the_student_learns(probe: Results, family: str) -> None:
    steps = probe[1, family]["student"]["steps"]
    assert steps[-1] < 0.8 * steps[0]
