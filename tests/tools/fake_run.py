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
"""A whole run of the trainer in one process, without Ray: verl's own loop and step, gad_verl's trainer, its data,
tokenizers and checkpoints are real; workers, rollout servers and TransferQueue are stand-ins that write down what they
are asked. Takes seconds, so that every decision of a step can be looked at.
"""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_queue import FakeTransferQueue
from omegaconf import DictConfig
from tensordict import TensorDict
from tiny_model import WORDS
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer, Qwen2Config
from verl.single_controller.ray.base import ResourcePoolManager
from verl.trainer.ppo.v1 import trainer_separate_async
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls
from verl.utils import tensordict_utils as tu
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from gad_verl.config import GadConfig
from gad_verl.core import StageSchedule
from gad_verl.data.answers import ENCODED, ENCODED_TEACHER, pack_answer, pack_teacher
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.discriminator.worker_group import DiscriminatorOutput, PendingUpdate, UpdateOptions
from gad_verl.rollout.encoding_agent import encoder_of

# Which text (one or more outputs) a session answers with, or token ids and mask of a trajectory; None is a session that
# fails.
Answer = Callable[[int, int, int], str | list[str] | tuple[list[int], list[int]] | None]
Score = Callable[[list[int]], float]
# First and last version of the weights that wrote the answer to (row, session, step).
Versions = Callable[[int, int, int], tuple[int, int]]


def on_policy(index: int, session: int, step: int) -> tuple[int, int]:
    """The weights of the step before."""
    return step - 1, step - 1


def random_answer(index: int, session: int, step: int) -> str:
    """Two to five words that depend on the prompt, the session and the step."""
    rng = random.Random(f"{index}/{session}/{step}")
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 5)))


def random_score(ids: list[int]) -> float:
    """A number in [-1, 1] that depends on all ids."""
    digest = hashlib.blake2b(repr(ids).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**47 - 1.0


@dataclass
class FakeStudent:
    """The student's worker group: writes down its calls and the learning rate that holds at each."""

    queue: FakeTransferQueue
    calls: list[tuple[str, Any]] = field(default_factory=list)
    workers: list[Any] = field(default_factory=list)
    kept: list[int | None] = field(default_factory=list)
    _dispatch_info: dict[str, list[int]] = field(default_factory=lambda: {"actor": [0], "ref": [0]})

    def note(self, name: str) -> Callable[..., None]:
        """A method that only writes down."""
        return lambda *args, **_: self.calls.append((name, args[0] if len(args) == 1 else args))

    def __getattr__(self, name: str) -> Callable[..., None]:
        copies = ("save_model_to_cpu", "restore_model_from_cpu", "clear_cpu_model")
        stages = ("learn_also_from", "begin_stage", "reset_moments", "resume_stage", "use_loss", "load_checkpoint")
        if name in (*stages, *copies):
            return self.note(name)
        raise AttributeError(name)

    def save_student_weights(self, path: str) -> None:
        self.calls.append(("save_student_weights", path))
        Path(path).mkdir(parents=True)

    def load_reference_weights(self, path: str) -> None:
        self.calls.append(("load_reference_weights", path))

    def save_checkpoint(self, path: str, *_: Any, max_ckpt_to_keep: int | None = None) -> None:
        self.kept.append(max_ckpt_to_keep)
        self.calls.append(("save_checkpoint", path))
        Path(path).mkdir(parents=True, exist_ok=True)

    def compute_log_prob(self, batch: KVBatchMeta | TensorDict) -> KVBatchMeta | dict[str, Any]:
        if not isinstance(batch, KVBatchMeta):
            self.calls.append(("read_texts", batch))
            return {"log_probs": torch.nested.as_nested_tensor([-(ids % 7 + 1.0) / 7 for ids in batch["input_ids"]])}
        self.calls.append(("compute_log_prob", list(batch.keys)))
        return self._log_probs(batch)

    def compute_ref_log_prob(self, batch: KVBatchMeta | TensorDict) -> KVBatchMeta | dict[str, Any]:
        if not isinstance(batch, KVBatchMeta):
            self.calls.append(("read_reference", batch))
            return {"log_probs": torch.nested.as_nested_tensor([-(ids % 5 + 1.0) / 5 for ids in batch["input_ids"]])}
        self.calls.append(("compute_ref_log_prob", list(batch.keys)))
        return self._log_probs(batch)

    def _log_probs(self, batch: KVBatchMeta) -> KVBatchMeta:
        fields = []
        for key in batch.keys:
            ids = self.queue.fields[batch.partition_id][key]["input_ids"]
            fields.append({"log_probs": -(ids % 7 + 1.0) / 7, "entropy": torch.ones(len(ids))})
        return self.queue.kv_batch_put(batch.keys, batch.partition_id, list_of_dict_to_tensordict(fields))

    def update_actor(self, batch: KVBatchMeta | TensorDict) -> dict[str, Any]:
        if isinstance(batch, KVBatchMeta):
            rows = [dict(self.queue.fields[batch.partition_id][key]) for key in batch.keys]
            real = [row for row, tag in zip(rows, batch.tags, strict=True) if not tag.get("is_padding", False)]
            self.calls.append(("policy_update", real))
        else:
            self.calls.append(("supervised_update", batch))
        return {"metrics": {"loss": [0.5], "grad_norm": [1.0], "mfu": [0.1]}}

    def named(self, *names: str) -> list[Any]:
        """What was given to the calls of some names, in order."""
        return [given for name, given in self.calls if name in names]


@dataclass
class FakeDiscriminator:
    """The discriminator's worker group: scores rows by a function of their ids."""

    score_of: Score
    tokenizer: Any
    horizon: int = 0
    calls: list[tuple[str, Any]] = field(default_factory=list)
    workers: list[Any] = field(default_factory=list)
    hf_config: Any = field(default_factory=lambda: Qwen2Config(hidden_size=64, num_hidden_layers=2, vocab_size=259))

    def _output(self, groups: list[SequenceGroup], options: UpdateOptions | None) -> DiscriminatorOutput:
        teachers, students = [], []
        for group in groups:
            rows = group.rows(len(group.teacher_ids))
            scores = [self.score_of(row) for row in rows]
            shares = group.padded_teacher_weights(len(group.teacher_ids))
            teachers.append(sum(a * b for a, b in zip(scores, shares, strict=False)) / sum(shares))
            students.append(scores[len(group.teacher_ids) :])
        values = None
        if options is not None and options.return_values:
            values = [
                [torch.linspace(0, 1, len(row)) for row in group.rows(len(group.teacher_ids))[len(group.teacher_ids) :]]
                for group in groups
            ]
        return DiscriminatorOutput(
            torch.tensor(teachers),
            torch.tensor(students),
            torch.tensor([group.valid_students() for group in groups]),
            {"loss": 0.5, "busy_s": 1.0, "skipped_steps": 0.0, "grad_norm": 2.0},
            values,
        )

    def load_model(self) -> None:
        self.calls.append(("load_model", None))

    def begin_stage(self, lr: float, total_steps: int) -> None:
        self.calls.append(("begin_stage", (lr, total_steps)))

    def update(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions | None = None
    ) -> DiscriminatorOutput:
        self.calls.append(("update", groups))
        return self._output(groups, options)

    def score(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions | None = None
    ) -> DiscriminatorOutput:
        self.calls.append(("score", groups))
        return self._output(groups, options)

    def begin_score(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions | None = None
    ) -> PendingUpdate:
        self.calls.append(("score", groups))
        output = self._output(groups, options)
        return PendingUpdate(lambda: (output, lambda: {"busy_s": 0.0}))

    def begin_update(
        self, groups: list[SequenceGroup], num_students: int, options: UpdateOptions | None = None
    ) -> PendingUpdate:
        self.calls.append(("begin_update", groups))
        output = self._output(groups, options)

        def wait_scores() -> tuple[DiscriminatorOutput, Callable[[], dict[str, float]]]:
            self.calls.append(("scores_awaited", None))
            return output, lambda: self.calls.append(("end_awaited", None)) or {"busy_s": 1.0}

        return PendingUpdate(wait_scores)

    def save(self, folder: Path, step: int) -> None:
        self.calls.append(("save", folder))
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, folder: Path) -> None:
        self.calls.append(("load", folder))

    def named(self, *names: str) -> list[Any]:
        """What was given to the calls of some names, in order."""
        return [given for name, given in self.calls if name in names]


@dataclass
class FakeCritic:
    """The worker group of verl's critic: a value of 0 everywhere; writes down which trajectories it learns from."""

    queue: FakeTransferQueue
    calls: list[tuple[str, list[str]]] = field(default_factory=list)

    def infer_batch(self, batch: KVBatchMeta) -> Any:
        self.calls.append(("values", list(batch.keys)))
        rows = [self.queue.fields[batch.partition_id][key]["input_ids"] for key in batch.keys]
        zeros = list_of_dict_to_tensordict([{"values": torch.zeros(len(ids))} for ids in rows])
        self.queue.kv_batch_put(batch.keys, batch.partition_id, zeros)
        return SimpleNamespace(futures=[])

    def train_mini_batch(self, batch: KVBatchMeta) -> Any:
        self.calls.append(("update", list(batch.keys)))
        return SimpleNamespace(get=lambda: {"metrics": {"vf_loss": [0.25], "mfu": [0.1]}})


def _rows(column: Any) -> list[Any]:
    if isinstance(column, torch.Tensor) and column.is_nested:
        return [one.tolist() for one in column.unbind()]
    return list(column.tolist() if hasattr(column, "tolist") else column)


class FakeActor:
    """An actor that does whatever it is asked, and answers nothing."""

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *_, **__: None)


class FakeServers:
    """verl's manager of rollout servers: none."""

    global_load_balancer = FakeActor()
    server_handles: list[Any] = []
    server_addresses: list[str] = []
    rollout_replicas: list[Any] = []

    @classmethod
    def create(cls, **_: Any) -> "FakeServers":
        """As verl's."""
        return cls()

    def get_replicas(self) -> list[Any]:
        """None."""
        return []


class FakeRollouts:
    """verl's agent loops: writes the answers of all sessions to the queue, in an order of its own."""

    def __init__(self, run: "FakeRun") -> None:
        self._run = run
        self.sessions: list[int] = []
        self.validating = False
        # As our agent loop does; without it the trainer encodes.
        self.encodes = False
        # Rows of the data that were asked for in training, in order.
        self.asked: list[int] = []
        # Of those that nobody has answered yet: a run that is killed leaves them in the queue.
        self.holds: Callable[[int, int], bool] = lambda index, step: False

    def generate_sequences(self, batch: TensorDict) -> None:
        """As verl's AgentLoopWorkerTQ (trainer/ppo/v1/agent_loop_tq.py) leaves the queue once all have answered."""
        run = self._run
        step, validating = int(batch["global_steps"]), "validate" in batch.keys()
        self.validating = validating
        rollout = run.config.actor_rollout_ref.rollout
        count = rollout.val_kwargs.n if validating else tu.get(batch, "__rollout_n__", rollout.n)
        # One for all rows, or a column.
        counts = [int(one) for one in count] if isinstance(count, torch.Tensor) else [int(count)] * len(batch)
        self.sessions += counts if isinstance(count, torch.Tensor) else [int(count)]
        partition = "val" if validating else "train"
        indices = [int(index) for index in batch["index"]]
        self.asked += [] if validating else indices
        held = {row for row, index in enumerate(indices) if not validating and self.holds(index, step)}
        rows = [(row, session) for row in range(len(batch)) for session in range(counts[row]) if row not in held]
        random.Random(step).shuffle(rows)
        columns = {
            name: _rows(batch[name])
            for name in batch.keys()
            if name not in ("global_steps", "validate", "__rollout_n__", "agent_name")
        }
        for row, session in rows:
            sample = {name: column[row] for name, column in columns.items()}
            answer = run.answer(int(sample["index"]), session, step)
            for output, text in enumerate([] if answer is None else answer if isinstance(answer, list) else [answer]):
                self._write(partition, sample, f"{sample['uid']}_{session}_{output}", text, step)
        running, failed, done = ({"status": status} for status in ("running", "failure", "finished"))
        asynchronous = run.config.trainer.v1.trainer_mode != "gad_sync"
        lost = {row for row, session in rows if asynchronous and run.answer(indices[row], session, step) is None}
        tags = [running if row in held else failed if row in lost else done for row in range(len(batch))]
        run.queue.kv_batch_put(columns["uid"], partition, tags=tags)

    def _write(
        self, partition: str, sample: dict[str, Any], key: str, text: str | tuple[list[int], list[int]], step: int
    ) -> None:
        tokenizer = self._run.trainer.tokenizer
        rendered = tokenizer.apply_chat_template(
            list(sample["raw_prompt"]), add_generation_prompt=True, tokenize=False, tools=self._run.tools
        )
        prompt = torch.tensor(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        limit = self._run.config.data.max_response_length
        if isinstance(text, str):
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id][:limit]
            mask = [1] * len(ids)
        else:
            ids, mask = text
        response, session = torch.tensor(ids), int(key.rsplit("_", 2)[1])
        fields = {
            **sample,
            "prompts": prompt,
            "responses": response,
            "response_mask": torch.tensor(mask),
            "loss_mask": torch.tensor(mask),
            "input_ids": torch.cat([prompt, response]),
            "position_ids": torch.arange(len(prompt) + len(response)),
            "rollout_log_probs": -torch.ones(len(response)),
            "num_turns": 2,
            "extra_fields": {},
        }
        if self.encodes:
            encoder = encoder_of(self._run.config, tokenizer)
            fields[ENCODED] = pack_answer(encoder.encode(prompt.tolist(), ids), ids)
            teacher_key = self._run.config.gad.teacher_key
            fields[ENCODED_TEACHER] = pack_teacher(
                encoder.encode_teacher(sample, teacher_key) if session == 0 else None
            )
        first, last = self._run.versions(int(sample["index"]), session, step)
        tag = {
            "status": "success",
            "seq_len": len(fields["input_ids"]),
            "global_steps": step,
            "min_global_steps": first,
            "max_global_steps": last,
        }
        self._run.queue.kv_batch_put([key], partition, list_of_dict_to_tensordict([fields]), [tag])


class FakeRun:
    """One run of ``main_ppo`` from its configuration to its end.

    Args:
        config: Composed configuration; ``trainer.logger`` becomes the file logger.
        monkeypatch: pytest's.
        answer: What the student says: ``(row, session, step)`` to a text, a list of texts (several outputs of one
            session) or None (the session fails).
        score: The discriminator's score of token ids.
        task_reward: verl's reward of a response's text, for ``gad.reward.task_weight``.
        versions: Which weights wrote it.
        tools: That the agent loops show the student.
    """

    def __init__(
        self,
        config: DictConfig,
        monkeypatch: pytest.MonkeyPatch,
        answer: Answer = random_answer,
        score: Score = random_score,
        task_reward: Callable[[str], float] = len,
        versions: Versions = on_policy,
        tools: list[dict[str, Any]] | None = None,
    ) -> None:
        config.trainer.logger = ["file"]
        self.tools = tools
        self.config, self.answer, self.score, self.task_reward = config, answer, score, task_reward
        self.versions = versions
        self.log_file = Path(config.trainer.default_local_dir).parent / "metrics.jsonl"
        monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(self.log_file))
        self.queue = FakeTransferQueue()
        self.queue.install(monkeypatch)
        self.student = FakeStudent(self.queue)
        self.critic = FakeCritic(self.queue)
        self.discriminator: FakeDiscriminator | None = None
        self.replicas: list[str] = []
        # verl waits by it for workers that are not there; it would start a cluster.
        monkeypatch.setattr("ray.get", lambda futures: futures)
        monkeypatch.setattr(PPOTrainer, "_setup", lambda trainer: self._setup(trainer))
        monkeypatch.setattr("gad_verl.trainer.gad_trainer.DiscriminatorGroup", self._new_discriminator)
        monkeypatch.setattr(ResourcePoolManager, "create_resource_pool", lambda manager: None)
        monkeypatch.setattr(ResourcePoolManager, "get_resource_pool", lambda manager, role: None)
        monkeypatch.setattr(trainer_separate_async, "LLMServerManager", FakeServers)
        monkeypatch.setattr(trainer_separate_async, "CheckpointEngineManager", self._replicas_of_its_own)
        self.trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
        self.rollouts = FakeRollouts(self)

    def _new_discriminator(self, _: DictConfig, gad: GadConfig, __: Any, schedule: StageSchedule) -> FakeDiscriminator:
        horizon = gad.discriminator_updates_of(schedule)
        tokenizer, model = self.trainer.tokenizer, self.config.discriminator.model
        if model.path != self.config.actor_rollout_ref.model.path:
            tokenizer = AutoTokenizer.from_pretrained(model.path)
        self.discriminator = FakeDiscriminator(self.score, tokenizer, horizon)
        return self.discriminator

    def _setup(self, trainer: Any) -> None:
        """What verl's ``PPOTrainer._setup`` leaves behind, in its order."""
        trainer._init_tokenizer()
        trainer._init_dataloader()
        trainer._init_dump_executor()
        trainer._init_resource_pool_mgr()
        trainer.resource_pool_manager.create_resource_pool()
        trainer.ref_in_actor = trainer.config.actor_rollout_ref.model.get("lora_rank", 0) > 0
        trainer.actor_rollout_wg = trainer.ref_policy_wg = self.student
        trainer.critic_wg = self.critic
        trainer.reward_loop_manager = SimpleNamespace(
            compute_rm_score=self._compute_rm_score, reward_loop_worker_handles=[]
        )
        trainer.llm_server_manager, trainer.distillation_config = FakeServers(), None
        trainer.checkpoint_manager = self._manager("")
        trainer._load_checkpoint()

    def _manager(self, whose: str) -> Any:
        """verl's manager of a rollout: writes down what it is told."""

        def note(what: str) -> Callable[..., None]:
            return lambda *_, **__: self.replicas.append(whose + what)

        return SimpleNamespace(
            update_weights=note("awake"),
            sleep_replicas=note("asleep"),
            abort_replicas=note("aborted"),
            resume_generation_replicas=note("resumed"),
        )

    def _replicas_of_its_own(self, **_: Any) -> Any:
        return self._manager("own ")

    def _compute_rm_score(self, data: Any) -> Any:
        ids, tokenizer = data.batch["responses"], self.trainer.tokenizer
        scores = torch.zeros(ids.shape)
        for row, one in enumerate(ids):
            scores[row, 0] = self.task_reward(tokenizer.decode(one, skip_special_tokens=True))
        return SimpleNamespace(batch={"rm_scores": scores})

    def fit(self) -> "FakeRun":
        """Set up and train to the end."""
        self.trainer.init()
        self.trainer.fit(self.rollouts)
        return self

    @property
    def metrics(self) -> dict[int, dict[str, float]]:
        """What was logged, by step; several lines of a step together."""
        found: dict[int, dict[str, float]] = {}
        for line in self.log_file.read_text().splitlines():
            entry = json.loads(line)
            found.setdefault(entry["step"], {}).update(entry["data"])
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of the run's record."""
        path = Path(self.config.trainer.default_local_dir) / "record" / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    @property
    def ground_truths(self) -> list[tuple[list[int], str]]:
        """Prompt and shown truth of each row that got one, as the queue holds or has held them."""
        return [
            (row["prompts"].tolist(), row["reward_model"]["ground_truth"])
            for row in self.queue.cleared
            if isinstance(row.get("reward_model"), dict)
        ]

    def policy_rows(self) -> list[list[dict[str, Any]]]:
        """Fields of the trajectories of each policy update."""
        return self.student.named("policy_update")
