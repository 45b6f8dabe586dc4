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
"""``main_ppo`` with the discriminator, the student, or both on Megatron (stand-ins for its GPU layers)."""

import os
from pathlib import Path

import pytest
import torch
from main_ppo import Run, run_main_ppo
from megatron_cpu import FOLDER, megatron_folder
from tiny_model import build_all
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from gad_verl.tools.export.weights import export_part

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TOOLS = Path(__file__).parents[1] / "tools"


def run_on_megatron(folder: Path, name: str, *overrides: str) -> Run:
    """Patches are installed in the processes of Ray that import an engine, and there alone."""
    megatron = megatron_folder()
    assert megatron is not None, "Megatron's packages are missing: run make install"
    paths = [str(TOOLS.parents[1]), str(TOOLS), str(megatron), os.environ.get("PYTHONPATH", "")]
    return run_main_ppo(
        folder,
        name,
        "+ray_kwargs.ray_init.runtime_env.worker_process_setup_hook=megatron_cpu.install_when_needed",
        "gad.warmup_steps=1",
        "gad.discriminator_only_steps=0",
        "trainer.total_training_steps=2",
        "trainer.save_freq=2",
        "actor_rollout_ref.rollout.n=2",
        *overrides,
        timeout_s=540,
        env={"PYTHONPATH": os.pathsep.join(filter(None, paths)), FOLDER: str(megatron)},
    )


def test_the_discriminator_on_megatron_goes_through_both_stages(tmp_path: Path) -> None:
    folder = build_all(tmp_path / "run")
    run = run_on_megatron(
        folder,
        "discriminator",
        "critic@discriminator=megatron_critic",
        # gad_cpu sets keys of FSDP's engine.
        "~discriminator.fsdp",
        "discriminator.megatron.dtype=float32",
    )
    assert run.returncode == 0, run.output[-4000:]
    first, second = run.metrics[1], run.metrics[2]
    assert (first["gad/stage"], second["gad/stage"]) == (1, 2)
    for metrics in (first, second):
        assert metrics["disc/grad_norm"] > 0 and metrics["disc/skipped_steps"] == 0
    assert second["disc/margin_mean"] != first["disc/margin_mean"]
    assert abs(second["actor/kl_loss"]) < 1e-6, "the reference is the warmed-up student"
    checkpoint = folder / "checkpoints" / "global_step_2"
    exported = export_part(checkpoint, "discriminator", tmp_path / "discriminator")
    model = AutoModelForTokenClassification.from_pretrained(exported)
    assert model.num_labels == 1 and torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


STUDENT_ON_MEGATRON = (
    "model_engine=megatron",
    # gad_cpu sets keys of FSDP's engine.
    "~actor_rollout_ref.actor.fsdp_config",
    "~actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.actor.optim.use_checkpoint_opt_param_scheduler=True",
)


@pytest.mark.parametrize(
    "discriminator",
    [("critic@discriminator=dp_critic",), ("~discriminator.fsdp", "discriminator.megatron.dtype=float32")],
    ids=["on_fsdp", "on_megatron"],
)
def test_the_student_on_megatron_goes_through_both_stages(tmp_path: Path, discriminator: tuple[str, ...]) -> None:
    folder = build_all(tmp_path / "run")
    run = run_on_megatron(folder, "student", *STUDENT_ON_MEGATRON, *discriminator)
    assert run.returncode == 0, run.output[-4000:]
    first, second = run.metrics[1], run.metrics[2]
    assert (first["gad/stage"], second["gad/stage"]) == (1, 2)
    assert first["actor/grad_norm"] > 0 and second["actor/grad_norm"] > 0 and second["disc/grad_norm"] > 0
    # The rollout's weights and the reference are the student that the warmup left.
    assert second["training/rollout_probs_diff_max"] < 1e-2
    assert abs(second["actor/kl_loss"]) < 1e-6
    exported = export_part(folder / "checkpoints" / "global_step_2", "student", tmp_path / "student")
    logits = AutoModelForCausalLM.from_pretrained(exported)(torch.tensor([[1, 2, 3]])).logits
    assert torch.isfinite(logits).all()
