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
"""What a GPU offers: figures of its makers' data sheets, dense bfloat16 without sparsity."""

import math
from dataclasses import dataclass

from gad_verl.errors import GadConfigError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        name: For texts.
        memory: Bytes that programs can use, a little less than the nominal size.
        flops: Peak floating point operations a second in bfloat16, dense.
        bandwidth: Peak bytes a second of its memory.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "h100-80g": Gpu("h100-80g", 79 * GIB, 989e12, 3.35e12),
    "h200": Gpu("h200", 139 * GIB, 989e12, 4.8e12),
    "b200": Gpu("b200", 178 * GIB, 2250e12, 8.0e12),
    "a100-80g": Gpu("a100-80g", 79 * GIB, 312e12, 2.04e12),
    "a100-40g": Gpu("a100-40g", 39 * GIB, 312e12, 1.56e12),
    "l40s": Gpu("l40s", 44 * GIB, 362e12, 0.86e12),
    "rtx4090": Gpu("rtx4090", 23.5 * GIB, 165e12, 1.01e12),
}


def choose_gpu(text: str) -> Gpu:
    """A GPU of the table, or one of three figures: GB of memory, TFLOPS, GB a second.

    Raises:
        GadConfigError: If it is neither.
    """
    if text in GPUS:
        return GPUS[text]
    try:
        memory, tflops, bandwidth = (float(part) for part in text.split(","))
        if all(figure > 0 and math.isfinite(figure) for figure in (memory, tflops, bandwidth)):
            return Gpu("custom", memory * 1e9, tflops * 1e12, bandwidth * 1e9)
    except ValueError:
        pass
    raise GadConfigError(
        f"--gpu {text}: known are {', '.join(GPUS)}; of another one give memory in GB, TFLOPS and GB/s: 80,989,3350"
    )
