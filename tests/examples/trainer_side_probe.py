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
"""One batch through verl's real workers: what the trainer computes from given weights, texts and rollouts. A script.

Usage: ``python trainer_side_probe.py STUDENT_FOLDER REFERENCE_FOLDER OUTPUT.pt``. Plain gradient descent of rate 1
shows the gradient as the difference of the weights.
"""

import os
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

NUM_STUDENTS = 3
MAX_PROMPT, MAX_RESPONSE = 40, 24
TEMPERATURE = 0.8
KL_COEFFICIENT = 0.05
# What D knows, the anchor.
MIXED = (0.37, 0.1)
HEAD_SEED = 3


def make_texts(eos: int, seed: int = 0) -> list[dict[str, Any]]:
    """Five prompts with a teacher text and sampled ids: a failed rollout, truncated ones, long texts, odd bytes."""
    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return "".join(rng.choice("abc dé£\n") for _ in range(rng.randint(low, high)))

    def ids(length: int) -> list[int]:
        return [rng.randrange(256) for _ in range(length)]

    rows = []
    for number in range(5):
        finished = [[*ids(rng.randint(1, 15)), eos] for _ in range(NUM_STUDENTS - 1)]
        rows.append(
            {
                "messages": [{"role": "user", "content": text(1, 12)}],
                "teacher": text(2, 12) + "." if number != 2 else text(60, 70),
                "sampled": [*finished, ids(MAX_RESPONSE)],
            }
        )
    rows[1]["sampled"][0] = None
    # Alone in its group: GRPO leaves its score as it is.
    rows[3]["sampled"][:2] = [None, None]
    return rows


def build_language_worker(folder: str, trained: bool, kind: Any = None) -> Any:
    """verl's worker of the student as the trainer configures it, or of the reference."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    config = TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=folder,
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=False,
            enable_gradient_checkpointing=False,
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp",
            forward_only=not trained,
            model_dtype="fp32",
            use_dynamic_bsz=True,
            # Several micro-batches: losses and gradients have to add up.
            max_token_len_per_gpu=150,
            infer_max_token_len_per_gpu=150,
            use_torch_compile=False,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        ),
        optimizer_config=FSDPOptimizerConfig(
            lr=1.0, optimizer="SGD", weight_decay=0.0, clip_grad=1e9, total_training_steps=10
        ),
        checkpoint_config=CheckpointConfig(),
    )
    worker = (kind or TrainingWorker)(config)
    worker.reset()
    return worker


def weights(worker: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights."""
    return {name: tensor.detach().clone() for name, tensor in worker.engine.get_per_tensor_param()[0]}


def only(value: Any) -> float:
    """verl lists a metric by mini-batch; here there is one."""
    (number,) = value if isinstance(value, list) else [value]
    return float(number)


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def log_probs(worker: Any, batch: Any) -> torch.Tensor:
    """Of the response tokens, as the trainer computes old and reference log-probabilities."""
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    batch = batch.copy()
    tu.assign_non_tensor(batch, calculate_entropy=True, compute_loss=False, temperature=TEMPERATURE)
    output = worker.infer_batch(batch)
    return response_from_nested(output["log_probs"], batch["response_mask"])


def policy_side(
    folder: str, reference: str, groups: list[Any], scores: torch.Tensor, texts: list[Any]
) -> dict[str, Any]:
    """Advantages by verl's GRPO and the gradient of its ``ppo_loss``."""
    import numpy as np
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
    from verl.utils import tensordict_utils as tu
    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    from gad_verl.core import sequence_rewards_to_token_level
    from gad_verl.trainer.rewards import trajectory_rewards
    from gad_verl.trainer.rollouts import StepRollouts

    sessions = [(g, s) for g, group in enumerate(groups) for s, one in enumerate(group.sessions) if one is not None]
    keys = [f"uid{g}_{s}_0" for g, s in sessions]
    prompts = [torch.tensor(groups[g].prompt_ids) for g, _ in sessions]
    responses = [torch.tensor(groups[g].sessions[s].response_ids) for g, s in sessions]
    masks = [torch.ones_like(ids) for ids in responses]
    weights_of_pairs = torch.tensor([[float(one is not None) for one in group.answers] for group in groups])
    rewards, _ = trajectory_rewards(StepRollouts("train", keys, groups), scores, weights_of_pairs)
    token_level = sequence_rewards_to_token_level(rewards, torch.tensor([len(ids) for ids in responses]))
    advantages, _ = compute_grpo_outcome_advantage(
        torch.nn.utils.rnn.pad_sequence(token_level, batch_first=True),
        torch.nn.utils.rnn.pad_sequence(masks, batch_first=True),
        np.array([f"uid{g}" for g, _ in sessions], dtype=object),
    )
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    batch = tu.get_tensordict(
        {
            "input_ids": nested(sequences),
            "position_ids": nested([torch.arange(len(ids)) for ids in sequences]),
            "prompts": nested(prompts),
            "responses": nested(responses),
            "response_mask": nested(masks),
            "loss_mask": nested(masks),
        },
        {},
    )
    student = build_language_worker(folder, trained=True)
    batch["old_log_probs"] = log_probs(student, batch)
    batch["ref_log_prob"] = log_probs(build_language_worker(reference, trained=False), batch)
    batch["advantages"] = nested([row[: len(ids)] for row, ids in zip(advantages, responses, strict=True)])
    actor = FSDPActorConfig(
        rollout_n=NUM_STUDENTS,
        ppo_mini_batch_size=len(groups),
        use_dynamic_bsz=True,
        use_kl_loss=True,
        kl_loss_coef=KL_COEFFICIENT,
        kl_loss_type="low_var_kl",
        entropy_coeff=0.0,
    )
    student.set_loss_fn(partial(ppo_loss, config=actor))
    tu.assign_non_tensor(
        batch,
        calculate_entropy=False,
        global_batch_size=len(sessions),
        mini_batch_size=len(sessions),
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        temperature=TEMPERATURE,
    )
    before = weights(student)
    metrics = tu.get(student.train_mini_batch(batch.copy()), "metrics")
    after = weights(student)
    table = torch.zeros_like(scores)
    for (g, s), row in zip(sessions, advantages, strict=True):
        table[g, s] = row[0]
    return {
        "advantages": table,
        "loss": only(metrics["loss"]),
        "grad_norm": only(metrics["grad_norm"]),
        "gradient": {name: before[name] - after[name] for name in before},
        "mixed": mixed_side(folder, batch, actor, texts),
    }


def mixed_side(folder: str, batch: Any, actor: Any, texts: list[Any]) -> dict[str, Any]:
    """Gradient of the objective between GAD and SeqKD, on the same rollouts and the teacher's texts."""
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import ppo_loss

    from gad_verl.core import loss_weights
    from gad_verl.trainer.supervised import build_text_rows
    from gad_verl.workers.joint_update import StudentTraining, TextRows

    student = build_language_worker(folder, trained=True, kind=StudentTraining)
    student.set_loss_fn(partial(ppo_loss, config=actor))
    wanted = loss_weights(*MIXED)
    rows = build_text_rows(texts, 1, 1, 1, wanted, pad_token_id=0)
    student.hold(TextRows(rows, 1, wanted))
    before = weights(student)
    metrics = tu.get(student.train_mini_batch(batch), "metrics")
    after = weights(student)
    return {
        "loss": only(metrics["loss"]),
        "text_loss": only(metrics["text_loss"]),
        "gradient": {name: before[name] - after[name] for name in before},
    }


def supervised_side(folder: str, rows: list[Any], eos: int) -> dict[str, Any]:
    """Gradient of verl's ``sft_loss`` on the batch of the warmup."""
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import sft_loss

    from gad_verl.trainer.supervised import build_supervised_batch

    student = build_language_worker(folder, trained=True)
    student.set_loss_fn(partial(sft_loss, config=None))
    batch = build_supervised_batch(rows, multiple_of=2, num_mini_batches=1, pad_token_id=eos)
    before = weights(student)
    metrics = tu.get(student.train_mini_batch(batch), "metrics")
    after = weights(student)
    return {"loss": only(metrics["loss"]), "gradient": {name: before[name] - after[name] for name in before}}


def rollout_groups(builder: Any) -> list[Any]:
    """The texts as rollouts of the trainer; all trajectories in one batch."""
    from gad_verl.core.teacher_mix import WeightedText
    from gad_verl.trainer.rollouts import RolloutGroup, Session

    groups, position = [], 0
    for index, row in enumerate(make_texts(builder.eos_token_id)):
        sessions: list[Session | None] = []
        for ids in row["sampled"]:
            sessions.append(None if ids is None else Session(position, list(ids), list(ids)))
            position += ids is not None
        prompt, teachers = builder.prompt(row["messages"]), (WeightedText(row["teacher"], 1.0),)
        groups.append(RolloutGroup(index, row["messages"], prompt, teachers, row["teacher"], tuple(sessions)))
    return groups


def main(student_folder: str, reference_folder: str, output: str) -> None:
    """All sides on one gloo rank."""
    import socket

    from transformers import AutoTokenizer
    from worker_probe import build_worker, run_scenario

    from gad_verl.data.tokens import SequenceBuilder
    from gad_verl.trainer.encoding import Encoding
    from gad_verl.trainer.rollouts import StepRollouts

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(**rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    builder = SequenceBuilder(AutoTokenizer.from_pretrained(student_folder), MAX_PROMPT, MAX_RESPONSE)
    encoding = Encoding(builder, builder)
    groups = rollout_groups(builder)
    encoded = encoding.encode(groups)
    worker = build_worker(student_folder, "fsdp", seed=HEAD_SEED)
    discriminator = run_scenario(worker, [group.sequences() for group in encoded], world_size=1)
    scores = discriminator["scores"].view(-1, NUM_STUDENTS + 1)
    rows = encoding.supervised_rows(StepRollouts("train", [], groups), encoded)
    torch.save(
        {
            "discriminator": {name: discriminator[name] for name in ("loss", "scores", "grad_norm", "gradient")},
            "policy": policy_side(student_folder, reference_folder, groups, scores[:, 1:], rows),
            "supervised": supervised_side(student_folder, rows, builder.eos_token_id),
        },
        output,
    )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "discriminator"))
    os.environ["VERL_PLATFORM"] = "cpu"
    main(*sys.argv[1:4])
