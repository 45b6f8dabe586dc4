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
"""The joint update of the real worker equals its formula to 1e-5: engines, ranks, mini-batches, losses."""

from typing import Any

import pytest
import torch
from joint_probe import LAYOUTS
from probe_cases import Case, Probes

TOLERANCE = 1e-5
_BOTH = ["plain-mixed", "plain-anchored", "plain-all", "minis-mixed", "minis-all", "fixed-anchored", "fsdp2-mixed"]
_ONE = ["plain-little", "epochs-mixed", "gspo-mixed", "sequences-anchored", "entropy-mixed", "warm-mixed"]
_TWO = ["packed-mixed", "epochs-anchored"]
CASES = [(1, name) for name in _BOTH + _ONE] + [(2, name) for name in _BOTH + _TWO]
PROBE_CASES = [Case(world_size, "joint_probe", name) for world_size, name in CASES]


@pytest.mark.parametrize(("world_size", "name"), CASES)
def test_the_update_equals_its_formula(world_size: int, name: str, probes: Probes) -> None:
    found: dict[str, Any] = probes.of("joint_probe")[world_size, name]
    expected, layout = found["expected"], LAYOUTS[name.split("-")[0]]
    # The formula has no clipping.
    assert 0.8 < expected["ratios"][0] <= expected["ratios"][1] < 1.2
    assert found["weights"].keys() == expected["weights"].keys()
    for key, value in expected["weights"].items():
        torch.testing.assert_close(
            found["weights"][key],
            value,
            rtol=TOLERANCE,
            atol=TOLERANCE * layout.rate,
            msg=lambda text, key=key: f"{key} {text}",
        )
    assert found["loss"] == pytest.approx([loss for loss, _ in expected["losses"]], abs=TOLERANCE)
    assert found["text_loss"] == pytest.approx([text for _, text in expected["losses"]], abs=TOLERANCE)
    assert found["left"] == layout.num_mini_batches * layout.epochs


@pytest.mark.parametrize(("world_size", "name"), CASES)
def test_a_validation_reads_the_loss_of_each_text(world_size: int, name: str, probes: Probes) -> None:
    """At temperature 1, whatever that of the rollouts is; on every rank alike."""
    found: dict[str, Any] = probes.of("joint_probe")[world_size, name]
    assert found["read"] == pytest.approx(found["text_nats"], rel=TOLERANCE)


def test_the_cases_differ(probes: Probes) -> None:
    """Each weight and each term matters by far more than the tolerance."""
    results = probes.of("joint_probe")
    plain = results[1, "plain-mixed"]["weights"]
    for name in ("plain-anchored", "plain-all", "plain-little", "entropy-mixed", "warm-mixed", "minis-mixed"):
        other = results[1, name]["weights"]
        assert (
            max((plain[key] - other[key]).abs().max().item() for key in plain) > 20 * TOLERANCE * LAYOUTS["plain"].rate
        ), name
