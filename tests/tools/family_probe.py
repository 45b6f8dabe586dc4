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
"""What a family can do as a student and as a discriminator: real workers of one rank, against plain transformers.

``measure`` gives the columns of ``docs/models.md``. A column is "yes", or why not.
"""

import logging
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 1e-5
HEAD_SEED = 3
REFUSED = "refused"
# Methods of FamilyProbe, each a column of docs/models.md.
COLUMNS = ("student", "discriminator", "layers", "packed", "shared", "shared_flash", "resume", "export", "lora")
logger = logging.getLogger(__name__)


class Different(AssertionError):
    """A number is not that of plain transformers."""


def same(ours: torch.Tensor, theirs: torch.Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Compare.

    Raises:
        Different: Names the largest difference.
    """
    difference = (ours.double() - theirs.double()).abs().max().item()
    if not difference <= tolerance:
        raise Different(f"{what} differ by {difference:.1e}")


def plain_model(folder: Path) -> Any:
    """The language model in plain transformers, without dropout."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    auto = AutoModelForImageTextToText if hasattr(config, "text_config") else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def _body(model: Any) -> tuple[str, Any]:
    """Name of what gives the last hidden state, and it."""
    name = next(name for name in (model.base_model_prefix, "model") if hasattr(model, name))
    return name, getattr(model, name)


def plain_values(model: Any, head: torch.Tensor, rows: list[list[int]]) -> list[torch.Tensor]:
    """Value at each token of each row: the last hidden state times the head, a row at a time."""
    body = _body(model)[1]
    return [body(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0].float() @ head[0] for row in rows]


def reference(folder: Path, groups: list[Any]) -> dict[str, Any]:
    """Scores, loss and gradient of the groups by plain transformers and autograd."""
    from gad_verl.core import bradley_terry_loss
    from gad_verl.discriminator.model import fresh_head_weight

    model = plain_model(folder)
    head_in = model.get_output_embeddings().in_features
    head = fresh_head_weight(model.config, HEAD_SEED, head_in).requires_grad_()
    rows = [row for group in groups for row in group.rows()]
    values = plain_values(model, head, rows)
    size = len(groups[0].rows())
    scores = torch.stack([value[-1] for value in values]).view(-1, size)
    loss = bradley_terry_loss(scores[:, 0], scores[:, 1:], weights=torch.ones_like(scores[:, 1:]))
    loss.backward()
    prefix = f"{_body(model)[0]}."
    gradient = {name: value.grad for name, value in model.named_parameters() if name.startswith(prefix)}
    return {"scores": scores.detach().flatten(), "loss": loss.item(), "gradient": gradient, "head": head.grad}


def all_weights(worker: Any) -> dict[str, torch.Tensor]:
    """Copies under the module's own names (what is sent to a rollout has those of the files: experts one by one)."""
    state = worker.engine.module.state_dict()
    return {name.replace("_fsdp_wrapped_module.", ""): value.detach().clone() for name, value in state.items()}


def build_student(folder: Path, **model: Any) -> Any:
    """verl's training worker of a student, with Adam."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.utils.losses import sft_loss

    from gad_verl.workers.joint_update import StudentTraining

    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    worker = StudentTraining(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=str(folder),
                use_remove_padding=False,
                **({"enable_gradient_checkpointing": False} | model),
            ),
            engine_config=FSDPEngineConfig(
                strategy="fsdp",
                use_dynamic_bsz=True,
                max_token_len_per_gpu=100_000,
                infer_max_token_len_per_gpu=100_000,
                use_torch_compile=False,
                mixed_precision=precision,
            ),
            optimizer_config=FSDPOptimizerConfig(
                lr=1e-2, optimizer="AdamW", weight_decay=0.0, total_training_steps=10, lr_warmup_steps=0
            ),
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(sft_loss, config=None))
    return worker


class FamilyProbe:
    """One family.

    Args:
        folder: Of its tiny model.
        scratch: An empty folder.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        from worker_probe import prompted_groups

        self.folder, self.scratch = folder, scratch
        self.groups = [group for group in prompted_groups(count=4) if None not in group.student_ids]
        self.rows = [row for group in self.groups for row in group.rows()]
        self._expected: dict[str, Any] | None = None

    @property
    def expected(self) -> dict[str, Any]:
        """Of plain transformers."""
        if self._expected is None:
            self._expected = reference(self.folder, self.groups)
        return self._expected

    def worker(self, **options: Any) -> Any:
        """The discriminator's worker."""
        from worker_probe import build_worker

        return build_worker(str(self.folder), "fsdp", seed=options.pop("seed", HEAD_SEED), **options)

    def _compare(self, worker: Any) -> None:
        from worker_probe import run_scenario

        before = all_weights(worker)
        result = run_scenario(worker, self.groups, 1)
        after = all_weights(worker)
        gradient = {name: before[name] - after[name] for name in before}
        same(result["scores"], self.expected["scores"], "scores")
        same(result["evaluated_scores"], self.expected["scores"], "scores of rows")
        for name, theirs in self.expected["gradient"].items():
            ours = gradient.get(name)
            if ours is None:
                # Of a vision tower, and of what a language model alone has.
                if theirs is not None and theirs.abs().max() > 0:
                    raise Different(f"{name} has no gradient")
                continue
            same(ours, torch.zeros_like(ours) if theirs is None else theirs, f"gradients of {name}")
        heads = [value for name, value in gradient.items() if value.shape == self.expected["head"].shape]
        if not any(torch.allclose(head, self.expected["head"], atol=TOLERANCE) for head in heads):
            raise Different("the head has another gradient")

    def student(self) -> str:
        """A student's loss falls on a batch that it is taught."""
        from verl.utils import tensordict_utils as tu

        from gad_verl.preflight.family_check import student_overrides
        from gad_verl.trainer.supervised import SupervisedRow, build_supervised_batch

        worker = build_student(self.folder, override_config=student_overrides(self._config(), "sdpa"))
        losses = []
        for _ in range(4):
            rows = [SupervisedRow(row[:2], row[2:], [1] * len(row[2:])) for row in self.rows[:4]]
            batch = build_supervised_batch(rows, 1, 1, pad_token_id=0)
            output = worker.train_batch(batch)
            losses.append(float(torch.as_tensor(tu.get(output, "metrics")["loss"]).mean()))
        if not losses[-1] < losses[0]:
            raise Different(f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}")
        self.student_weights = all_weights(worker)
        worker.save_checkpoint(str(self.scratch / "global_step_1" / "actor"), None, 1, None)
        return "yes"

    def discriminator(self) -> str:
        """Scores and gradient."""
        self._compare(self.worker())
        return "yes"

    def layers(self) -> str:
        """The first layer alone gives the values that the whole model has after it."""
        from transformers import AutoConfig

        from gad_verl.discriminator.form import set_attention
        from gad_verl.discriminator.model import load_discriminator, prepare_config
        from gad_verl.errors import GadCheckpointError

        config = AutoConfig.from_pretrained(self.folder, attn_implementation="eager")
        try:
            prepare_config(config, 1)
        except GadCheckpointError:
            return REFUSED
        set_attention(config)
        module = load_discriminator(self.folder, config, torch.float32, fresh_head=True, seed=HEAD_SEED).eval()
        whole = sum(value.numel() for value in plain_model(self.folder).parameters())
        if sum(value.numel() for value in module.parameters()) >= whole:
            raise Different("no layer is left out")
        row = torch.tensor([self.rows[0]])
        seen = []
        inside = plain_model(self.folder)
        list_of_layers = max(
            (part for part in inside.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 2),
            key=lambda part: sum(value.numel() for value in part.parameters()),
        )
        list_of_layers[0].register_forward_hook(lambda *call: seen.append(call[2]))
        inside(input_ids=row, use_cache=False)
        ours: list[Any] = []
        own = max(
            (part for part in module.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 1),
            key=lambda part: sum(value.numel() for value in part.parameters()),
        )
        own[0].register_forward_hook(lambda *call: ours.append(call[2]))
        module(input_ids=row, use_cache=False)
        first = [value[0] if isinstance(value, tuple) else value for value in (ours[0], seen[0])]
        same(first[0], first[1], "outputs of the first layer")
        return "yes"

    def packed(self) -> str:
        """Rows one after the other instead of padded (``use_remove_padding``)."""
        from gad_verl.discriminator.family_limits import why_not_packed
        from gad_verl.discriminator.form import attention_for, discriminator_form

        config = self._config()
        reason = why_not_packed(config, attention_for(discriminator_form(config).model_class, "sdpa"))
        if reason is not None:
            return REFUSED
        self._compare(self.worker(use_remove_padding=True))
        return "yes"

    def packed_anyway(self) -> str:
        """What would happen without the refusal."""
        self._compare(self.worker(use_remove_padding=True))
        return "yes"

    def shared(self) -> str:
        """The prompt of a group is encoded once."""
        worker = self.worker(share_prompt="always")
        if worker.engine._sharing is None:
            return REFUSED
        self._compare(worker)
        return "yes"

    def shared_flash(self) -> str:
        """The same under flash attention; its kernel is one in plain torch."""
        from plain_flash import plain_flash

        from gad_verl.discriminator.shared_keys import pack_keyed_groups

        model = {"override_config": {"attn_implementation": "flash_attention_2"}}
        with plain_flash():
            worker = self.worker(share_prompt="always", model=model)
            if worker.engine._sharing is None:
                return REFUSED
            if worker.engine._sharing.pack is not pack_keyed_groups:
                return "by SDPA"
            self._compare(worker)
        return "yes"

    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder)

    def resume(self) -> str:
        """A worker that loads a checkpoint gives the scores of the one that wrote it."""
        from worker_probe import run_scenario, score_rows

        worker = self.worker()
        run_scenario(worker, self.groups, 1)
        folder = self.scratch / "global_step_1" / "discriminator"
        worker.save_checkpoint(str(folder), None, 1, None)
        self.trained = score_rows(worker, self.rows, 1)
        if (self.trained - self.expected["scores"]).abs().max() < 1e-3:
            raise Different("the step changed nothing: this shows nothing")
        other = self.worker(seed=99)
        other.load_checkpoint(str(folder), None, False)
        same(score_rows(other, self.rows, 1), self.trained, "scores")
        return "yes"

    def export(self) -> str:
        """What ``gad-verl export`` writes loads strictly, and in plain transformers; the student, too."""
        from transformers import AutoConfig

        from gad_verl.discriminator.form import set_attention
        from gad_verl.discriminator.model import load_discriminator, prepare_config
        from gad_verl.tools.export.weights import export_part

        target = export_part(self.scratch / "global_step_1", "discriminator", self.scratch / "exported")
        config = AutoConfig.from_pretrained(target, attn_implementation="sdpa")
        prepare_config(config, None)
        set_attention(config)
        loaded = load_discriminator(target, config, torch.float32, fresh_head=False, seed=0).eval()
        for model in (loaded, plain_discriminator(target)):
            scores = torch.stack(
                [model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1, 0] for row in self.rows]
            )
            same(scores, self.trained, "scores")
        student = export_part(self.scratch / "global_step_1", "student", self.scratch / "student")
        found = plain_model(student).state_dict()
        for name, weight in self.student_weights.items():
            same(found[name], weight, f"weights {name} of the exported student")
        return "yes"

    def lora(self) -> str:
        """An adapter and a head are trained, and exported into the base."""
        from gad_verl.discriminator.family_limits import why_no_adapter

        if why_no_adapter(self._config(), "fsdp", "all-linear") is None:
            self._adapt("fsdp", "all-linear")
            return "yes"
        self._adapt("fsdp", ["q_proj", "k_proj", "v_proj", "o_proj"])
        if why_no_adapter(self._config(), "fsdp2", "all-linear") is None:
            self._adapt("fsdp2", "all-linear")
            return "yes; experts: FSDP2"
        return "attention alone"

    def lora_tries(self) -> str:
        """Which ways work, whatever is refused."""
        found = []
        attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
        for strategy, targets in (("fsdp", "all-linear"), ("fsdp2", "all-linear"), ("fsdp", attention)):
            try:
                self._adapt(strategy, targets)
                found.append(f"{strategy} {targets if targets != attention else 'attention'}")
            except Exception as error:
                logger.exception("adapter")
                found.append(f"NOT {strategy} {targets if targets != attention else 'attention'}: {str(error)[:60]}")
        return "; ".join(found)

    def _adapt(self, strategy: str, targets: Any) -> None:
        from worker_probe import build_worker, run_scenario, score_rows

        from gad_verl.tools.export.weights import export_part

        shutil.rmtree(self.scratch / "global_step_2", ignore_errors=True)
        shutil.rmtree(self.scratch / "merged", ignore_errors=True)
        model = {"lora_rank": 4, "lora_alpha": 8, "target_modules": targets}
        optimizer = {"lr": 0.1, "optimizer": "SGD"}
        worker = build_worker(str(self.folder), strategy, seed=HEAD_SEED, model=model, optimizer=optimizer)
        same(score_rows(worker, self.rows, 1), self.expected["scores"], "scores of before")
        for _ in range(2):
            run_scenario(worker, self.groups, 1)
        after = score_rows(worker, self.rows, 1)
        if (after - self.expected["scores"]).abs().max() < 1e-4:
            raise Different("the steps changed nothing")
        step = self.scratch / "global_step_2"
        worker.save_checkpoint(str(step / "discriminator"), None, 2, None)
        merged = plain_discriminator(export_part(step, "discriminator", self.scratch / "merged"))
        scores = torch.stack(
            [merged(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1, 0] for row in self.rows]
        )
        same(scores, after, "scores of the merged model", 1e-4)


def plain_discriminator(folder: Path) -> Any:
    """An exported discriminator in plain transformers, as docs/export.md says."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    config = AutoConfig.from_pretrained(folder)
    if type(config) in AutoModelForTokenClassification._model_mapping:
        return AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    from transformers import AutoModelForCausalLM

    family = AutoModelForCausalLM._model_mapping[type(config)]

    class Discriminator(family):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.lm_head = torch.nn.Linear(self.lm_head.in_features, 1, bias=False)

    return Discriminator.from_pretrained(folder, attn_implementation="eager").eval()


def measure(folder: Path, columns: tuple[str, ...] = COLUMNS, verbose: bool = False) -> dict[str, str]:
    """The columns of a family. An error becomes "fails: ...": the page has no empty cell."""
    from gad_verl.discriminator.family_limits import draws_experts

    found = {}
    scratch = Path(tempfile.mkdtemp(prefix="family_"))
    probe = FamilyProbe(folder, scratch)
    no_discriminator = draws_experts(probe._config())
    for column in columns:
        if no_discriminator and column != "student":
            found[column] = REFUSED
            continue
        act: Callable[[], str] = getattr(probe, column)
        try:
            found[column] = act()
        except Exception as error:
            if verbose:
                traceback.print_exc()
            text = " ".join(str(error).split())
            found[column] = f"fails: {type(error).__name__}: {text[:200]}"
    shutil.rmtree(scratch)
    return found


def prepare_process() -> None:
    """One rank in this process; the caller closes the group."""
    from gloo_ranks import free_port

    os.environ.update(
        VERL_PLATFORM="cpu",
        RANK="0",
        WORLD_SIZE="1",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
    )
    torch.set_num_threads(1)
