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
"""One real step of a run, in a process of its own, with few rows and nothing saved."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.config import load_gad_config
from gad_verl.preflight.composing import quoted
from gad_verl.tools.doctor.finding import Finding, error, ok

_SECONDS_TO_END = 20.0
_SECONDS_BETWEEN = 1.0
_TAIL_LINES = 30
_MOST_LINE = 400
# verl's console logger begins a step's line with this.
_STEP_MARK = "step:1"
# What an output may say, and what to do then.
_HINTS = (
    ("timed out during startup", "Ray did not start in time: the machine is busy; end other work and try again"),
    ("out of memory", "Lower the tokens of a micro-batch, or offload what rests: gad-verl estimate names the settings"),
    ("OutOfMemoryError", "The host or the GPU is out of memory: gad-verl estimate names the settings"),
    ("No space left on device", "Free the temporary folder or /dev/shm, or set TMPDIR to another disk"),
    (
        "larger than the available KV cache",
        "Raise actor_rollout_ref.rollout.gpu_memory_utilization, or lower the lengths",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        returncode: Exit code; None if the time was up.
        seconds: From start to end.
        output: Standard output and error together.
    """

    returncode: int | None
    seconds: float
    output: str

    @property
    def passed(self) -> bool:
        """Whether the step was made."""
        return self.returncode == 0 and _STEP_MARK in self.output


def small_overrides(config: Any, folder: Path) -> list[str]:
    """What is set over the run's own configuration.

    The batch is as small as the ranks allow; lengths, models, engines and offloading stay, so that what does not start
    shows. The step is adversarial unless the stage is another one.

    Args:
        config: The run's configuration.
        folder: An empty folder for what is written.
    """
    gad = config.gad
    ranks = int(config.trainer.nnodes) * int(config.trainer.n_gpus_per_node)
    prompts = max(2, ranks)
    overrides = [
        "trainer.total_training_steps=1",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "gad.save_minutes=null",
        "trainer.resume_mode=disable",
        "trainer.logger=[console]",
        f"trainer.default_local_dir={quoted(folder / 'checkpoints')}",
        f"hydra.run.dir={quoted(folder / 'hydra')}",
        f"data.train_batch_size={prompts}",
        f"data.train_max_samples={4 * prompts}",
        "data.val_max_samples=2",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
    ]
    if gad.stage == "auto":
        overrides += ["gad.warmup_steps=0"]
    if gad.stage == "soda":
        # One of each kind, on the same prompts: without a snapshot of them nobody would learn.
        overrides += [
            "trainer.total_training_steps=2",
            "trainer.total_epochs=2",
            f"data.train_max_samples={prompts}",
            "gad.soda.snapshot_steps=1",
            "gad.warmup_steps=0",
        ]
    if gad.stage == "warmup":
        overrides += ["gad.discriminator_only_steps=0"]
    if gad.trust.held_out_fraction > 0:
        # Of so few rows none can be spared.
        overrides.append("gad.trust.held_out_fraction=0.0")
    if load_gad_config(config).turns_to_texts:
        # Scores and texts in one update, as in a step whose discriminator knows a part.
        overrides += ["gad.trust.otherwise=hold", f"gad.supervised_weight={max(0.5, gad.supervised_weight)}"]
    return overrides


def command(name: str, config_path: str | None, overrides: Sequence[str], small: Sequence[str]) -> list[str]:
    """The command line; what makes the step small stands last and wins."""
    line = [sys.executable, "-m", "verl.trainer.main_ppo"]
    if config_path is not None:
        line += ["--config-path", str(Path(config_path).expanduser().resolve())]
    return [*line, "--config-name", name, *overrides, *small]


def _end(process: subprocess.Popen) -> None:
    """Ask the process to end, so that Ray's children go with it; then end the group.

    The first signal asks for the end of the step, which may never come; the second one ends it at once.
    """
    process.send_signal(signal.SIGINT)
    time.sleep(_SECONDS_BETWEEN)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(line: Sequence[str], folder: Path, timeout_s: float) -> Outcome:
    """Run a command with a time limit.

    Args:
        line: The command.
        folder: For its output.
        timeout_s: It is ended after this.
    """
    log = folder / "output.log"
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        code: int | None = None
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                _end(process)
    text = log.read_text(encoding="utf-8", errors="replace")
    return Outcome(code, time.monotonic() - begin, text)


def tail(text: str) -> str:
    """The last lines, long ones cut."""
    lines = [line[:_MOST_LINE] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def judge(done: Outcome, timeout_s: float) -> Finding:
    """What came of the step, as a finding."""
    name = "one step"
    if done.passed:
        return ok(name, f"one step of verl.trainer.main_ppo in {done.seconds:.0f} s, start-up included")
    known = next((remedy for text, remedy in _HINTS if text in done.output), None)
    if done.returncode is None:
        reason = f"no step within {timeout_s:.0f} s"
        remedy = "Look at the last lines; a large model may need a higher --timeout"
    elif done.returncode == 0:
        reason, remedy = "it ended without a step", "Look at the last lines"
    else:
        reason = f"exit code {done.returncode} after {done.seconds:.0f} s"
        remedy = "Look at the last lines, and at docs/troubleshooting.md"
    return error(name, f"{reason}; the end of its output:\n{tail(done.output)}", known or remedy)


def check_one_step(
    config: Any, name: str, config_path: str | None, overrides: Sequence[str], timeout_s: float
) -> list[Finding]:
    """Make one step and report."""
    with tempfile.TemporaryDirectory(prefix="gad_verl_doctor_") as folder:
        line = command(name, config_path, overrides, small_overrides(config, Path(folder)))
        return [judge(run(line, Path(folder), timeout_s), timeout_s)]
