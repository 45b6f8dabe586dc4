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
DEFAULT_GPU = "h100-80g"


def choose_gpu(
    name: str | None = None,
    memory_gb: float | None = None,
    tflops: float | None = None,
    bandwidth_gbs: float | None = None,
) -> Gpu:
    """A GPU of the table, or one of given figures; given figures replace those of the table.

    Raises:
        GadConfigError: If the name is unknown, or a figure is not positive.
    """
    if name is not None and name not in GPUS:
        raise GadConfigError(
            f"--gpu {name}: known are {', '.join(GPUS)}; for another one give --gpu-memory-gb, --tflops and "
            "--bandwidth-gbs"
        )
    given = {"--gpu-memory-gb": memory_gb, "--tflops": tflops, "--bandwidth-gbs": bandwidth_gbs}
    for flag, value in given.items():
        if value is not None and value <= 0:
            raise GadConfigError(f"{flag} {value:g} must be above 0")
    base = GPUS[name or DEFAULT_GPU]
    if all(value is None for value in given.values()):
        return base
    if name is None and any(value is None for value in given.values()):
        missing = ", ".join(flag for flag, value in given.items() if value is None)
        raise GadConfigError(f"a GPU that is not of the table needs {missing} too, or --gpu to take the rest from")
    return Gpu(
        name or "custom",
        base.memory if memory_gb is None else memory_gb * 1e9,
        base.flops if tflops is None else tflops * 1e12,
        base.bandwidth if bandwidth_gbs is None else bandwidth_gbs * 1e9,
    )
