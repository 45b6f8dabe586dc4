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
"""Tests that compute on a GPU: `make test-gpu`. With GAD_TEST_DEVICE=cpu they run without, which shows that they run.

The parts of device_probe.py run side by side, one process each; every test reads what one of them computed.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parent
ASKED = os.environ.get("GAD_TEST_DEVICE", "")
DEVICE = ASKED or "cuda"
PARTS = ("worker_fsdp", "worker_fsdp2", "student_fsdp", "student_fsdp2", "lora", "rollout", "flash")
PART_TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies here, and skips it where there is no GPU; who asks for one (make test-gpu) is told instead."""
    mine = [item for item in items if FOLDER in item.path.parents]
    missing = DEVICE == "cuda" and not torch.cuda.is_available()
    if missing and ASKED and mine:
        raise pytest.UsageError(
            f"GAD_TEST_DEVICE={ASKED}: torch {torch.__version__} sees no GPU here; nothing was tested. "
            "GAD_TEST_DEVICE=cpu shows on a CPU that the tests run"
        )
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        if missing:
            item.add_marker(pytest.mark.skip(reason="needs a GPU, or GAD_TEST_DEVICE=cpu"))


def has_flash_attention() -> bool:
    """Whether flash attention can be computed here; on a CPU by a stand-in in plain torch."""
    return DEVICE == "cpu" or importlib.util.find_spec("flash_attn") is not None


@dataclass
class Parts:
    """Processes of the parts that were asked for, and what they computed."""

    root: Path
    processes: dict[str, subprocess.Popen]

    def of(self, name: str) -> dict[str, Any]:
        """What a part computed; its tests fail with its error, the others go on."""
        if name == "flash" and not has_flash_attention():
            pytest.skip("needs the package flash-attn")
        log = self.root / f"{name}.log"
        try:
            code = self.processes[name].wait(timeout=PART_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name}: not done within {PART_TIMEOUT_S} s\n{log.read_text(encoding='utf-8')[-2500:]}")
        if code != 0:
            pytest.fail(f"{name}: exit code {code}\n{log.read_text(encoding='utf-8')[-2500:]}")
        return torch.load(self.root / f"{name}.pt", weights_only=False)


@pytest.fixture(scope="session")
def device() -> str:
    """Where the parts compute: cuda or cpu."""
    return DEVICE


@pytest.fixture(scope="session")
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The parts that the tests of this session ask for; on a CPU one after the other, its cores are few."""
    from tiny_model import build_model

    wanted = {name for item in request.session.items for name in getattr(item.module, "PARTS", ())}
    made = Parts(tmp_path_factory.mktemp("device"), {})
    for name in PARTS:
        if name not in wanted or (name == "flash" and not has_flash_attention()):
            continue
        # Heads of 64 values: what flash attention likes; a folder of its own, since parts save beside it.
        folder = build_model(made.root / name / "model", hidden=128, num_attention_heads=2)
        command = [sys.executable, str(FOLDER / "device_probe.py"), name, str(folder), str(made.root / f"{name}.pt")]
        with (made.root / f"{name}.log").open("wb") as log:
            made.processes[name] = subprocess.Popen(
                [*command, "--device", DEVICE], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if DEVICE == "cpu":
            made.processes[name].wait(timeout=PART_TIMEOUT_S)
    yield made
    for process in made.processes.values():
        if process.poll() is None:
            process.kill()
            process.wait()
