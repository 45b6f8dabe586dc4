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
"""The student's joint update on gloo ranks, against autograd of the formula on the plain model.

A case is ``layout-numbers``: an engine and how its batches are cut, and which objective.
"""

import copy
import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

NUM_PROMPTS, NUM_STUDENTS, VOCABULARY = 4, 3, 259
TEMPERATURE, KL_COEFFICIENT = 0.8, 0.05


@dataclass(frozen=True)
class Layout:
    """How a batch goes through an engine."""

    strategy: str = "fsdp"
    num_mini_batches: int = 1
    dynamic: bool = True
    epochs: int = 1
    actor: dict[str, Any] = field(default_factory=dict)
    temperature: float = TEMPERATURE
    remove_padding: bool = False
    rate: float = 0.02


LAYOUTS = {
    "plain": Layout(),
    "minis": Layout(num_mini_batches=2),
    "epochs": Layout(num_mini_batches=2, epochs=2, rate=0.004),
    "fixed": Layout(dynamic=False),
    "fsdp2": Layout("fsdp2", num_mini_batches=2),
    "gspo": Layout(actor={"policy_loss": {"loss_mode": "gspo"}, "loss_agg_mode": "seq-mean-token-mean"}),
    "sequences": Layout(actor={"loss_agg_mode": "seq-mean-token-sum"}, num_mini_batches=2),
    "entropy": Layout(actor={"entropy_coeff": 0.3}),
    "warm": Layout(temperature=1.0),
    "packed": Layout(remove_padding=True),
}
OBJECTIVES = {"mixed": (0.37, 0.0), "anchored": (0.37, 0.1), "all": (1.0, 0.1), "little": (0.05, 0.0)}


def rows(seed: int) -> tuple[list[dict[str, Any]], list[tuple[list[int], list[int]]]]:
    """Rollouts with all that a policy update reads, and a teacher's text for each prompt; uneven lengths."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(VOCABULARY - 3) for _ in range(rng.randint(low, high))]

    rollouts, texts = [], []
    for _ in range(NUM_PROMPTS):
        prompt = ids(2, 9)
        texts.append((prompt, ids(1, 20)))
        for _ in range(NUM_STUDENTS):
            response = ids(1, 14)
            rollouts.append({"prompt": prompt, "response": response, "advantage": rng.uniform(-2, 2)})
    return rollouts, texts


def log_probs(model: Any, prompt: list[int], response: list[int], temperature: float) -> tuple[Any, Any]:
    """Of the response's tokens, and the entropy at each."""
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
    distribution = logits.log_softmax(dim=-1)
    entropy = -(distribution.exp() * distribution).sum(dim=-1)
    return distribution.gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1), entropy


def expected(model: Any, reference: Any, layout: Layout, weights: Any, orders: list[Any]) -> dict[str, Any]:
    """The update by its formula: gradient descent on each mini-batch in turn.

    Args:
        orders: For each mini-batch of an epoch, its rollouts and its texts.
    """
    agg, mode = layout.actor.get("loss_agg_mode", "token-mean"), layout.actor.get("policy_loss", {})
    with torch.no_grad():
        for rollouts, _ in orders:
            for row in rollouts:
                pair = (row["prompt"], row["response"], layout.temperature)
                row["old"] = log_probs(model, *pair)[0]
                row["reference"] = log_probs(reference, *pair)[0]
    losses, ratios = [], []
    for rollouts, texts in orders * layout.epochs:
        tokens = sum(len(row["response"]) for row in rollouts)
        policy = torch.zeros(())
        for row in rollouts:
            now, entropy = log_probs(model, row["prompt"], row["response"], layout.temperature)
            difference = now - row["old"]
            if mode.get("loss_mode") == "gspo":
                difference = difference.mean().detach() + now - now.detach()
            ratio = difference.exp()
            ratios.append(ratio.detach())
            kl = (row["reference"] - now).exp() - (row["reference"] - now) - 1
            each = -row["advantage"] * ratio + KL_COEFFICIENT * kl - layout.actor.get("entropy_coeff", 0.0) * entropy
            if agg == "token-mean":
                policy = policy + each.sum() / tokens
            else:
                policy = policy + (each.mean() if agg.endswith("mean") else each.sum()) / len(rollouts)
        count = sum(len(response) for _, response in texts)
        text = sum(-log_probs(model, prompt, response, 1.0)[0].sum() for prompt, response in texts) / count
        loss = weights.policy * policy + weights.texts * text
        losses.append((loss.item(), text.item()))
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= layout.rate * parameter.grad
                parameter.grad = None
    ratio = torch.cat(ratios)
    return {
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "losses": losses,
        "ratios": (ratio.min().item(), ratio.max().item()),
    }


def policy_loss(layout: Layout) -> Any:
    """verl's loss of the rollouts."""
    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    actor = FSDPActorConfig(
        rollout_n=NUM_STUDENTS,
        ppo_mini_batch_size=NUM_PROMPTS,
        use_dynamic_bsz=True,
        use_kl_loss=True,
        kl_loss_coef=KL_COEFFICIENT,
        kl_loss_type="low_var_kl",
        **{"entropy_coeff": 0.0, **layout.actor},
    )
    return partial(ppo_loss, config=actor)


def build_worker(folder: str, layout: Layout) -> Any:
    """The student's training worker; gradient descent shows the gradient in the weights."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import (
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
        TrainingWorkerConfig,
    )

    from gad_verl.workers.joint_update import StudentTraining

    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    config = TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=folder,
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=layout.remove_padding,
            enable_gradient_checkpointing=False,
        ),
        engine_config=FSDPEngineConfig(
            strategy=layout.strategy,
            model_dtype="fp32",
            use_dynamic_bsz=layout.dynamic,
            # So few that some micro-batches hold texts alone, or rollouts alone.
            max_token_len_per_gpu=40,
            micro_batch_size_per_gpu=1,
            infer_max_token_len_per_gpu=40,
            infer_micro_batch_size_per_gpu=1,
            use_torch_compile=False,
            mixed_precision=precision,
        ),
        optimizer_config=FSDPOptimizerConfig(
            lr=layout.rate, optimizer="SGD", weight_decay=0.0, clip_grad=1e9, total_training_steps=10
        ),
        checkpoint_config=CheckpointConfig(),
    )
    worker = StudentTraining(config)
    worker.reset()
    worker.set_loss_fn(policy_loss(layout))
    return worker


def nested(values: list[Any]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.as_tensor(value) for value in values], layout=torch.jagged)


def policy_batch(rollouts: list[dict[str, Any]], layout: Layout, mini_batch: int) -> Any:
    """A rank's rows as verl sends them."""
    from verl.utils import tensordict_utils as tu

    ones = [torch.ones(len(row["response"]), dtype=torch.long) for row in rollouts]
    sequences = [torch.tensor(row["prompt"] + row["response"]) for row in rollouts]
    fields = {
        "input_ids": nested(sequences),
        "position_ids": nested([torch.arange(len(ids)) for ids in sequences]),
        "prompts": nested([row["prompt"] for row in rollouts]),
        "responses": nested([row["response"] for row in rollouts]),
        "response_mask": nested(ones),
        "loss_mask": nested(ones),
        "old_log_probs": nested([row["old"] for row in rollouts]),
        "ref_log_prob": nested([row["reference"] for row in rollouts]),
        "advantages": nested([torch.full((len(row["response"]),), row["advantage"]) for row in rollouts]),
        # Fields of the queue that no loss reads.
        "rm_scores": nested([torch.zeros(len(row["response"])) for row in rollouts]),
        "multi_modal_inputs": [{}] * len(rollouts),
    }
    return tu.get_tensordict(
        fields,
        {
            "calculate_entropy": layout.actor.get("entropy_coeff", 0.0) != 0.0,
            "global_batch_size": mini_batch,
            "mini_batch_size": mini_batch,
            "epochs": layout.epochs,
            "seed": 1,
            "dataloader_kwargs": {"shuffle": False},
            "temperature": layout.temperature,
        },
    )


def text_losses(worker: Any, rank: int, world_size: int, layout: Layout, texts: list[Any]) -> list[float]:
    """The loss of each text as a validation reads it, through the trainer's own code and this rank's part of it."""
    from omegaconf import OmegaConf
    from verl.utils import tensordict_utils as tu

    from gad_verl.trainer.supervised import SupervisedRow, SupervisedStep

    class Ranks:
        _dispatch_info = {"actor": list(range(world_size))}

        def compute_log_prob(self, data: Any) -> dict[str, Any]:
            mine = tu.get(worker.infer_batch(tu.chunk_tensordict(data, world_size)[rank]), "log_probs").unbind()
            parts: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(parts, [row.clone() for row in mine])
            return {"log_probs": nested([row for part in parts for row in part])}

    actor = {"ppo_mini_batch_size": 1, "use_dynamic_bsz": layout.dynamic, "ppo_micro_batch_size_per_gpu": 1}
    rollout = {"n": 1, "log_prob_micro_batch_size_per_gpu": 1}
    ref = {"log_prob_use_dynamic_bsz": layout.dynamic, "log_prob_micro_batch_size_per_gpu": 1}
    models = {"actor": actor, "rollout": rollout, "ref": ref}
    config = {"actor_rollout_ref": models, "data": {"train_batch_size": 1}}
    return SupervisedStep(Ranks(), OmegaConf.create(config), 0).losses([SupervisedRow(*text) for text in texts])


def run_case(rank: int, world_size: int, variant: str, model_folder: str, folder: Any) -> dict[str, Any]:
    """What the workers' update gives, and what the formula gives."""
    from transformers import AutoModelForCausalLM
    from verl.utils import tensordict_utils as tu

    from gad_verl.core import loss_weights
    from gad_verl.trainer.supervised import SupervisedRow, build_text_rows
    from gad_verl.workers.joint_update import TextRows

    layout, weights = LAYOUTS[variant.split("-")[0]], loss_weights(*OBJECTIVES[variant.split("-")[1]])
    rollouts, texts = rows(seed=5)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    # The trainer's own: how it deals texts is part of what is tested.
    held = build_text_rows(
        [SupervisedRow(*text) for text in texts],
        world_size,
        layout.num_mini_batches,
        1 if layout.dynamic else 2,
        weights,
        0,
    )
    minis, parts = layout.num_mini_batches, world_size * layout.num_mini_batches
    each, size = len(rollouts) // parts, len(held) // parts
    orders: list[Any] = [([], []) for _ in range(minis)]
    for part in range(parts):
        orders[part % minis][0].extend(rollouts[part * each : (part + 1) * each])
        for row in range(part * size, (part + 1) * size):
            if held["response_mask"][row].sum() > 0:
                orders[part % minis][1].append((held["prompts"][row].tolist(), held["responses"][row].tolist()))
    assert sorted(text for _, part in orders for text in part) == sorted(texts)
    with torch.no_grad():
        text_nats = [-log_probs(model, *text, 1.0)[0].sum().item() for text in texts]
    found = expected(model, reference, layout, weights, orders)
    worker = build_worker(model_folder, layout)
    # Three texts on two ranks: the fourth row is one without loss.
    read = text_losses(worker, rank, world_size, layout, texts[:3])
    mine = rollouts[rank * each * minis : (rank + 1) * each * minis]
    batch = policy_batch(mine, layout, each * world_size)
    worker.hold(TextRows(tu.chunk_tensordict(held, world_size)[rank], minis, weights))
    metrics = tu.get(worker.train_mini_batch(batch), "metrics")
    after = {name: value.detach().clone() for name, value in worker.engine.get_per_tensor_param()[0]}
    return {
        "expected": found,
        "weights": after,
        "loss": metrics["loss"],
        "text_loss": metrics["text_loss"],
        "names": sorted(metrics),
        "kl_loss": metrics["kl_loss"],
        "left": worker._mini_batch,
        "read": read,
        "text_nats": text_nats[:3],
    }
