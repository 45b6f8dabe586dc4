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
"""Runs the real discriminator worker on Megatron (or FSDP) with gloo ranks and saves what it computed. A script.

Usage: ``python megatron_probe.py FOLDER RANKS``. ``FOLDER`` holds the models of test_megatron_on_cpu.py; results go to
``FOLDER/RANKS.pt``. The reference, FSDP on one rank, is ``run_case`` (run by tools/probe_cases.py): processes with
Megatron's stand-ins compute nothing else.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("tools", "discriminator", "student")]

# By the number of ranks: tensor and pipeline parallelism; the rest of the ranks is data-parallel.
LAYOUTS = {1: {"one": (1, 1)}, 2: {"tensor": (2, 1), "pipeline": (1, 2), "data": (1, 1)}}

# Tensor parallelism of 2 divides heads and vocabulary.
SIZES = {"num_key_value_heads": 2, "vocab_size": 264}

SCENARIOS = {
    "padded": {},
    "static": {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1, "infer_micro_batch_size_per_gpu": 1},
    "packed": {"use_remove_padding": True, "tokens": "group"},
    "two_passes": {"use_remove_padding": True, "tokens": "row"},
    "split": {"tokens": "group"},
}
# Two ranks leave out what differs in the driver alone.
SCENARIOS_OF = {0: tuple(SCENARIOS), 1: tuple(SCENARIOS), 2: ("static", "packed", "two_passes")}
SGD = {"lr": 1.0, "optimizer": "sgd"}
# A large epsilon: else Adam makes whole steps of the rounding of gradients that are 0.
ADAM = {"lr": 1e-2, "optimizer": "adam", "eps": 1e-4}


def token_options(groups: list[Any], tokens: str | None) -> dict[str, int]:
    """Micro-batches that hold everything, one group, or one row."""
    lengths = [[len(row) for row in group.rows()] for group in groups]
    most = {
        None: 100_000,
        "group": max(sum(rows) for rows in lengths),
        "row": max(max(rows) for rows in lengths),
    }[tokens]
    return {"max_token_len_per_gpu": most, "infer_max_token_len_per_gpu": most}


def build_megatron_worker(model_folder: Path, layout: tuple[int, int], **options: Any) -> Any:
    """The worker as the trainer configures it."""
    from megatron.core import parallel_state
    from megatron_cpu import TRANSFORMER_CONFIG
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig, TrainingWorkerConfig

    from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions
    from gad_verl.discriminator.worker import DiscriminatorWorker

    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    optimizer = dict(options.pop("optimizer", SGD))
    if "eps" in optimizer:
        optimizer["override_optimizer_config"] = {"adam_eps": optimizer.pop("eps")}
    seed, layers = options.pop("seed", 3), options.pop("num_layers", None)
    remove_padding = options.pop("use_remove_padding", False)
    defaults = {
        "use_dynamic_bsz": True,
        "max_token_len_per_gpu": 100_000,
        "infer_max_token_len_per_gpu": 100_000,
        "tensor_model_parallel_size": layout[0],
        "pipeline_model_parallel_size": layout[1],
        "use_distributed_optimizer": optimizer["optimizer"] == "adam",
        "dtype": "float32",
        "override_transformer_config": dict(TRANSFORMER_CONFIG),
    }
    config = TrainingWorkerConfig(
        model_type=MODEL_TYPE,
        model_config=HFModelConfig(
            path=str(model_folder),
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=remove_padding,
        ),
        engine_config=McoreEngineConfig(**(defaults | options)),
        optimizer_config=McoreOptimizerConfig(
            weight_decay=0.0, clip_grad=1e9, total_training_steps=10, lr_decay_style="constant", **optimizer
        ),
        checkpoint_config=CheckpointConfig(),
    )
    worker = DiscriminatorWorker(config, DiscriminatorOptions(seed is not None, layers, seed or 0))
    worker.reset()
    return worker


def build_fsdp_worker(model_folder: Path, layout: tuple[int, int], **options: Any) -> Any:
    """The same on FSDP."""
    from worker_probe import build_worker

    names = {"sgd": "SGD", "adam": "AdamW"}
    optimizer = dict(options.pop("optimizer", SGD))
    optimizer["optimizer"] = names[optimizer["optimizer"]]
    if "eps" in optimizer:
        optimizer["override_optimizer_config"] = {"eps": optimizer.pop("eps")}
    return build_worker(str(model_folder), "fsdp", optimizer=optimizer, **options)


class Driver:
    """Feeds a worker its part of a batch of groups, as the worker group does."""

    def __init__(self, worker: Any, groups: list[Any]) -> None:
        from worker_probe import NUM_STUDENTS

        self.worker, self.groups, self.students = worker, groups, NUM_STUDENTS
        self.rank = worker.engine.get_data_parallel_rank()
        self.size = worker.engine.get_data_parallel_size()

    def _gathered(self, output: Any) -> torch.Tensor:
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (self.rank, None if output is None else output["scores"]))
        return torch.cat([scores for _, scores in sorted(parts, key=lambda part: part[0]) if scores is not None])

    def _first(self, output: Any, name: str) -> float:
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, None if output is None else output[name][0].item())
        return next(part for part in parts if part is not None)

    def _mine(self, batch: Any) -> Any:
        from verl.utils import tensordict_utils as tu

        return tu.chunk_tensordict(batch, self.size)[self.rank]

    def score(self) -> torch.Tensor:
        """Scores of all rows."""
        from gad_verl.discriminator.groups import PLACEHOLDER, build_row_batch
        from gad_verl.discriminator.plan import plan_batch

        rows = [row for group in self.groups for row in group.rows()]
        plan = plan_batch([[len(row)] for row in rows], self.size)
        return plan.restored(
            self._gathered(self.worker.score(self._mine(build_row_batch(plan.padded(rows, PLACEHOLDER)))))
        )

    def update(self, form: str = "one") -> dict[str, Any]:
        """An update in one pass, in one pass with the step apart ("split"), or in "two_passes"."""
        from gad_verl.core import bradley_terry_loss
        from gad_verl.discriminator.groups import (
            PLACEHOLDER,
            GroupLayout,
            build_group_batch,
            build_row_batch,
            padding_group,
        )
        from gad_verl.discriminator.loss import LossOptions, group_score_gradients
        from gad_verl.discriminator.plan import plan_batch

        if form == "two_passes":
            scores = self.score()
            by_group = scores.view(-1, self.students + 1)
            weights = torch.tensor([group.pair_weights() for group in self.groups])
            row_weight = torch.cat([torch.ones(len(weights), 1), weights], dim=1).flatten()
            layout = GroupLayout(1, self.students)
            gradients = group_score_gradients(scores, row_weight, layout, 0.0, LossOptions())
            rows = [row for group in self.groups for row in group.rows()]
            plan = plan_batch([[len(row)] for row in rows], self.size)
            gradients = torch.stack(plan.padded(list(gradients), torch.zeros(())))
            output = self.worker.update(self._mine(build_row_batch(plan.padded(rows, PLACEHOLDER), gradients)))
            loss = bradley_terry_loss(by_group[:, 0], by_group[:, 1:], weights).item()
            scores = plan.restored(self._gathered(output))
            return {"loss": loss, "scores": scores, "grad_norm": self._first(output, "grad_norm")}
        plan = plan_batch([[len(row) for row in group.rows()] for group in self.groups], self.size)
        batch = self._mine(build_group_batch(plan.padded(self.groups, padding_group(self.students)), self.students))
        if form == "split":
            output = self.worker.accumulate(batch)
            grad_norm = self.worker.apply()["grad_norm"]
        else:
            output = self.worker.update(batch)
            grad_norm = self._first(output, "grad_norm")
        scores = plan.restored(self._gathered(output).view(-1, self.students + 1)).flatten()
        return {"loss": self._first(output, "loss"), "scores": scores, "grad_norm": grad_norm}


def weights(worker: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights under the names of transformers, gathered from the ranks."""
    engine = worker.engine
    # verl's own call does not do without the distributed optimizer's buffers.
    bridge = getattr(engine, "bridge", None)
    parameters = bridge.export_hf_weights(engine.module) if bridge else engine.get_per_tensor_param()[0]
    return {name: tensor.detach().clone() for name, tensor in parameters}


def run_scenario(worker: Any, groups: list[Any], form: str) -> dict[str, Any]:
    """Score and update; the gradient is what plain gradient descent subtracted."""
    driver = Driver(worker, groups)
    before, evaluated = weights(worker), driver.score()
    found = driver.update(form)
    after = weights(worker)
    return found | {"evaluated": evaluated, "gradient": {name: before[name] - after[name] for name in before}}


def run_training(build: Any, folder: Path, groups: list[Any]) -> dict[str, Any]:
    """Adam: train, save, train on; load into a new worker and train on from there."""
    found: dict[str, Any] = {}
    worker = build(optimizer=ADAM)
    driver = Driver(worker, groups)
    for _ in range(2):
        driver.update()
    worker.save_checkpoint(str(folder), None, 2, None)
    found["saved"] = driver.score()
    worker.begin_stage(3e-3, 10)
    later = driver.update()
    found["later"], found["later_norm"] = driver.score(), later["grad_norm"]
    other = build(optimizer=ADAM, seed=99)
    driver = Driver(other, groups)
    found["other"] = driver.score()
    other.load_checkpoint(str(folder), None, False)
    found["loaded"] = driver.score()
    other.begin_stage(3e-3, 10)
    driver.update()
    found["resumed"] = driver.score()
    return found


def build_student(
    model_folder: Path, megatron: bool, forward_only: bool = False, packed: bool = False, kind: Any = None
) -> Any:
    """The student's training worker (verl's, or another kind of it), or with ``forward_only`` the reference's."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import (
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
        McoreEngineConfig,
        McoreOptimizerConfig,
        TrainingWorkerConfig,
    )
    from verl.workers.engine_workers import TrainingWorker

    tokens = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 100, "infer_max_token_len_per_gpu": 100}
    common = {"weight_decay": 0.0, "clip_grad": 1e9, "total_training_steps": 10, "lr": 1e-2}
    if megatron:
        from megatron_cpu import TRANSFORMER_CONFIG

        transformer = dict(TRANSFORMER_CONFIG)
        engine = McoreEngineConfig(
            dtype="float32", forward_only=forward_only, override_transformer_config=transformer, **tokens
        )
        optimizer = McoreOptimizerConfig(
            lr_decay_style="constant", override_optimizer_config={"adam_eps": ADAM["eps"]}, **common
        )
    else:
        engine = FSDPEngineConfig(
            use_torch_compile=False,
            forward_only=forward_only,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            **tokens,
        )
        optimizer = FSDPOptimizerConfig(override_optimizer_config={"eps": ADAM["eps"]}, **common)
    model = HFModelConfig(
        path=str(model_folder),
        override_config={"attn_implementation": "sdpa"},
        use_remove_padding=packed,
        enable_gradient_checkpointing=False,
    )
    worker = (kind or TrainingWorker)(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=model,
            engine_config=engine,
            optimizer_config=optimizer,
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    return worker


def run_student(folder: Path, megatron: bool, packed: bool) -> dict[str, Any]:
    """Cross-entropy on the rows of the probe, and the reference that takes the weights after two steps."""
    from functools import partial
    from types import SimpleNamespace

    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import sft_loss
    from worker_probe import make_groups

    from gad_verl.discriminator.groups import build_row_batch
    from gad_verl.discriminator.row_tensors import complete_rows
    from gad_verl.workers.stage import begin_stage, reset_moments
    from gad_verl.workers.student import StudentWorker

    if megatron:
        from megatron.core import parallel_state

        if parallel_state.is_initialized():
            parallel_state.destroy_model_parallel()
    rows = [row for group in make_groups() for row in group.rows() if len(row) > 1]
    settings = {"use_remove_padding": packed, "use_dynamic_bsz": True, "max_token_len_per_gpu": 100}

    def batch() -> Any:
        data = complete_rows(build_row_batch(rows))
        # As in training: what a row begins with is no target (verl's loss rolls the masks of all rows together).
        data["loss_mask"] = torch.nested.as_nested_tensor(
            [torch.tensor([0] + [1] * (len(row) - 1)) for row in rows], layout=torch.jagged
        )
        tu.assign_non_tensor(data, use_fused_kernels=False, calculate_entropy=False, **settings)
        return data

    def log_probs(worker: Any) -> torch.Tensor:
        with worker.engine.eval_mode():
            output = worker.engine.infer_batch(batch(), loss_function=None)
        found = output["model_output"]["log_probs"]
        # The last token of a row has no next one.
        return torch.cat([row[:-1] for row in found.unbind()]).float()

    def update(worker: Any) -> tuple[float, float]:
        with worker.engine.train_mode():
            worker.engine.optimizer_zero_grad()
            output = worker.engine.forward_backward_batch(batch(), partial(sft_loss, config=None), forward_only=False)
            norm = float(worker.engine.optimizer_step())
            worker.engine.lr_scheduler_step()
        return sum(output["loss"]), norm

    student = build_student(folder / "model", megatron, packed=packed)
    found: dict[str, Any] = {"start": log_probs(student), "updates": [update(student)]}
    begin_stage(student.engine, 3e-3, 5, restart_schedule=True)
    reset_moments(student.engine)
    found["updates"].append(update(student))
    found["end"] = log_probs(student)
    path = folder / f"reference_{'megatron' if megatron else 'fsdp'}"
    whole = SimpleNamespace(actor=student, role="actor_ref", save_checkpoint=student.save_checkpoint)
    StudentWorker.save_student_weights(whole, str(path))
    whole.ref = build_student(folder / "model", megatron, forward_only=True, packed=packed)
    found["reference_before"] = log_probs(whole.ref)
    StudentWorker.load_reference_weights(whole, str(path))
    found["reference"] = log_probs(whole.ref)
    return found


def run_joint(folder: Path, megatron: bool, packed: bool) -> dict[str, Any]:
    """Rollouts and texts in one update of two mini-batches (student/joint_probe.py has the formula)."""
    import joint_probe
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    from gad_verl.core import loss_weights
    from gad_verl.trainer.supervised import SupervisedRow, build_text_rows
    from gad_verl.workers.joint_update import StudentTraining, TextRows

    if megatron:
        from megatron.core import parallel_state

        if parallel_state.is_initialized():
            parallel_state.destroy_model_parallel()
    layout, weights = joint_probe.Layout(num_mini_batches=2), loss_weights(0.37, 0.1)
    rollouts, texts = joint_probe.rows(seed=5)
    for row in rollouts:
        row["old"] = row["reference"] = torch.zeros(len(row["response"]))
    student = build_student(folder / "model", megatron, packed=packed, kind=StudentTraining)
    student.set_loss_fn(joint_probe.policy_loss(layout))
    held = build_text_rows([SupervisedRow(*text) for text in texts], 1, 2, 1, weights, 0)
    student.hold(TextRows(held, 2, weights))
    batch = joint_probe.policy_batch(rollouts, layout, len(rollouts) // 2)
    # As the trainer does: transformers' own modules are patched beside Megatron's stand-ins.
    asked = batch.copy()
    tu.assign_non_tensor_data(asked, "compute_loss", False)
    output = student.infer_batch(asked)
    batch["old_log_probs"] = response_from_nested(output["log_probs"], batch["response_mask"]).float()
    batch["ref_log_prob"] = batch["old_log_probs"] - 0.1
    metrics = tu.get(student.train_mini_batch(batch), "metrics")
    return {name: [float(value) for value in metrics[name]] for name in ("loss", "text_loss", "grad_norm", "kl_loss")}


def run_restart(folder: Path, groups: list[Any]) -> dict[str, Any]:
    """A stage that begins with a new optimizer and schedule, and one that is resumed."""
    from gad_verl.workers.stage import begin_stage, reset_moments, resume_stage

    worker = build_megatron_worker(folder / "model", (1, 1), optimizer=ADAM)
    engine, driver = worker.engine, Driver(worker, groups)
    for _ in range(2):
        driver.update()
    found: dict[str, Any] = {"position": engine.lr_scheduler.num_steps}
    begin_stage(engine, 2e-3, 5, restart_schedule=True)
    reset_moments(engine)
    found["restarted"] = (engine.lr_scheduler.num_steps, engine.lr_scheduler.lr_decay_steps)
    before = weights(worker)
    driver.update()
    after = weights(worker)
    found["step"] = max((after[name] - before[name]).abs().max().item() for name in before)
    resume_stage(engine, 9)
    found["resumed"] = (engine.lr_scheduler.num_steps, engine.lr_scheduler.lr_decay_steps)
    found["rates"] = [group["lr"] for group in engine.optimizer.param_groups]
    found["schedule"] = engine.checkpoint_mananager.lr_scheduler is engine.lr_scheduler
    return found


def run_special(folder: Path, groups: list[Any]) -> dict[str, Any]:
    """What one rank of Megatron shows alone."""
    found: dict[str, Any] = {}

    def scores(model: str, **options: Any) -> torch.Tensor:
        return Driver(build_megatron_worker(folder / model, (1, 1), **options), groups).score()

    found["restart"] = run_restart(folder, groups)
    found["tied"] = scores("tied")
    found["classifier"] = scores("discriminator", seed=None)
    found["one_layer"] = scores("model", num_layers=1)
    found["bf16"] = scores("model", dtype="bfloat16")
    found["bf16_training"] = run_training(
        lambda **options: build_megatron_worker(folder / "model", (1, 1), dtype="bfloat16", **options),
        folder / "saved_bf16",
        groups,
    )
    try:
        scores("model", seed=None)
    except Exception as error:
        found["headless"] = f"{type(error).__name__}: {error}"
    worker = build_megatron_worker(folder / "discriminator", (1, 1), seed=None, optimizer=ADAM)
    worker.save_checkpoint(str(folder / "global_step_0" / "discriminator"), None, 0, None)
    driver = Driver(worker, groups)
    before = driver.score()
    broken = worker.engine.prepare_model_outputs
    worker.engine.prepare_model_outputs = lambda *args: {"values": broken(*args)["values"] * float("nan")}
    found["skipped"] = driver.update()["grad_norm"]
    worker.engine.prepare_model_outputs = broken
    found["unharmed"] = torch.equal(driver.score(), before)
    return found


def run_layouts(root: Path, ranks: int) -> dict[str, Any]:
    """Everything in every layout of so many ranks of Megatron, or (0) on FSDP."""
    from worker_probe import make_groups

    groups, results = make_groups(), {}
    build = build_megatron_worker if ranks else build_fsdp_worker
    for name, layout in LAYOUTS.get(ranks, {"fsdp": (1, 1)}).items():
        found: dict[str, Any] = {}
        for scenario in SCENARIOS_OF[ranks]:
            options = dict(SCENARIOS[scenario])
            worker = build(root / "model", layout, **(token_options(groups, options.pop("tokens", None)) | options))
            found[scenario] = run_scenario(worker, groups, scenario)
        found["training"] = run_training(
            lambda layout=layout, **options: build(root / "model", layout, **options), root / f"saved_{name}", groups
        )
        results[name] = found
    if ranks < 2:
        for packed in (False, True):
            name = f"{'packed' if packed else 'padded'}_student_{'megatron' if ranks else 'fsdp'}"
            results[name] = run_student(root, megatron=ranks == 1, packed=packed)
            results[name]["joint"] = run_joint(root, megatron=ranks == 1, packed=packed)
    if ranks == 1:
        results["special"] = run_special(root, groups)
    return results


def run_case(rank: int, world_size: int, strategy: str, model_folder: str, folder: Path) -> dict[str, Any]:
    """The reference on FSDP. Its model is not the other probes' one."""
    from tiny_model import build_model

    build_model(folder / "model", **SIZES)
    return run_layouts(folder, 0)


def main_rank(rank: int, folder: str, ranks: int) -> None:
    """Everything on one rank of Megatron."""
    import megatron_cpu

    megatron_cpu.install()
    results = run_layouts(Path(folder), ranks)
    if rank == 0:
        torch.save(results, Path(folder) / f"{ranks}.pt")


def main() -> None:
    """Start the ranks."""
    from gloo_ranks import run_ranks

    folder, ranks = sys.argv[1], int(sys.argv[2])
    run_ranks(main_rank, ranks, folder, ranks)


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    main()
