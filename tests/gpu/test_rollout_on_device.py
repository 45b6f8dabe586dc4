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
"""The rollout "hf" on a device: it answers there, gives the memory away, and takes the student's new weights."""

from typing import Any

import pytest
import torch

PARTS = ("rollout",)
DTYPES = {"float32": 1e-3, "bfloat16": 0.2}


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_answers_with_the_students_new_weights(parts: Any, dtype: str) -> None:
    result = parts.of("rollout")[dtype]
    assert result["unknown"] == []
    assert result["then"] != result["own"]
    for found, wanted in zip(result["log_probs"], result["wanted"], strict=True):
        torch.testing.assert_close(found, wanted, atol=DTYPES[dtype], rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_computes_on_the_device_and_gives_its_memory_away(parts: Any, device: str, dtype: str) -> None:
    result = parts.of("rollout")[dtype]
    assert result["device"] == device
    awake, asleep = result["held"]
    assert asleep <= 0.1 * awake
