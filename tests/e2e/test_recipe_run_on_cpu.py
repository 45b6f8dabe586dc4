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
"""A run script of the recipe through ``main_ppo`` on a CPU, sizes overridden; then the sweep over its checkpoints."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fault_server import FaultServer
from main_ppo import Run, read_metrics
from scripted_judge import by_length, scripted
from tiny_model import build_all

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "gad"


def cpu_overrides() -> list[str]:
    """What ``gad_cpu`` sets for a machine without an accelerator, as overrides of another configuration."""
    text = (ROOT / "gad_verl" / "config" / "gad_cpu.yaml").read_text(encoding="utf-8")

    def flat(section: dict, prefix: str = "") -> list[str]:
        found = []
        for key, value in section.items():
            if isinstance(value, dict):
                found += flat(value, f"{prefix}{key}.")
            else:
                found.append(f"++{prefix}{key}={json.dumps(value) if not isinstance(value, str) else value}")
        return found

    return [line for line in flat(yaml.safe_load(text)) if not line.startswith(("++defaults", "++hydra"))]


def run_script(folder: Path, name: str, *arguments: str, **variables: str) -> Run:
    """Start the 7B script on the tiny model; two steps of 8 prompts."""
    sizes = {
        "MODEL_PATH": str(folder / "model"),
        "TRAIN_FILE": str(folder / "train.parquet"),
        "TEST_FILE": str(folder / "val.parquet"),
        "PROMPT_KEY": "prompt",
        "TRAIN_BATCH_SIZE": "8",
        "MAX_PROMPT_LENGTH": "64",
        "MAX_RESPONSE_LENGTH": "16",
        "ROLLOUT_N": "4",
        "NGPUS_PER_NODE": "1",
        "ACTOR_MAX_TOKENS": "4096",
        "SAVE_FREQ": "1",
        "TEST_FREQ": "-1",
        "CHECKPOINT_DIR": str(folder / name),
        "EXPERIMENT_NAME": name,
        "LOGGER": '["console","file"]',
        "PYTHON": sys.executable,
    }
    command = [
        str(RECIPE / "run_qwen2_5_7b_fsdp.sh"),
        *cpu_overrides(),
        # Again, because they are sizes of gad_cpu too.
        "data.max_prompt_length=64",
        "data.max_response_length=16",
        "actor_rollout_ref.rollout.max_model_len=128",
        "trainer.total_training_steps=2",
        "trainer.val_before_train=False",
        *arguments,
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | sizes | variables
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout=900)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    return Run(process.returncode, text, read_metrics(folder / name / "gad_verl" / f"{name}.jsonl"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """One step of the warmup, one of GAD, with the tools of the recommended preset."""
    run = run_script(
        folder,
        "gad",
        "gad.warmup_steps=1",
        "gad.discriminator_only_steps=0",
        "gad.trust.held_out_fraction=0.5",
        PRESET="recommended",
    )
    assert run.returncode == 0, run.output[-4000:]
    return run


def test_script_trains_both_stages(run: Run, folder: Path) -> None:
    assert [run.metrics[step]["gad/stage"] for step in (1, 2)] == [1, 2]
    for step in (1, 2):
        assert run.metrics[step]["disc/grad_norm"] > 0 and run.metrics[step]["disc/skipped_steps"] == 0
    assert run.metrics[1]["disc/num_pairs"] == 8 * 4
    # The preset holds prompts out: until enough of them were seen, the student goes on with the texts, at SeqKD's rate.
    found = run.metrics[2]
    assert (found["gad/trust_factor"], found["gad/policy_weight"], found["gad/texts_weight"]) == (0, 0, 1)
    assert found["actor/lr"] == pytest.approx(5e-6) and found["gad/supervised_tokens"] > 0
    # Paper: the rates are 1e-6, and the reference is the warmed-up student.
    assert run.metrics[1]["disc/lr"] == pytest.approx(1e-6)
    checkpoints = folder / "gad"
    assert (checkpoints / "kl_reference_step_1").is_dir()
    assert (checkpoints / "latest_checkpointed_iteration.txt").read_text() == "2"
    # Metrics and record lie with the checkpoints: gad-verl report reads both from there.
    assert (checkpoints / "record" / "run.json").is_file()


def test_sweep_over_the_checkpoints(run: Run, folder: Path, tmp_path: Path) -> None:
    with FaultServer(answer=scripted(by_length)) as judge:
        variables = {
            "MODELS": f"before={folder / 'model'}",
            "RUNS": f"gad={folder / 'gad'}",
            "TESTS": f"val={folder / 'val.parquet'}",
            "PROMPT_KEY": "prompt",
            "OUTPUT": str(tmp_path / "out"),
            "MAX_PROMPT_LENGTH": "64",
            "MAX_RESPONSE_LENGTH": "16",
            "ENGINE": "hf",
            "EXPORT_DTYPE": "float32",
            "JUDGE_BASE_URL": judge.base_url,
            "JUDGE_MODEL": judge.model,
            "OPENAI_API_KEY": "unused",
            "STEPS": "2",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        }
        done = subprocess.run(
            [str(RECIPE / "evaluate_sweep.sh"), "--two-sample-splits", "2"],
            env=os.environ | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        # 8 references, and both orders against the reference and the teacher; a student that has not moved gives the
        # same answers as before, about which nothing is asked again.
        assert len(judge.received) >= 8 + 8 * 2 * 2
    comparison = json.loads((tmp_path / "out" / "comparison" / "val" / "comparison.json").read_text(encoding="utf-8"))
    assert "gad-step_2" in json.dumps(comparison) and "before" in json.dumps(comparison)
    assert not list((tmp_path / "out" / "exports").iterdir())
