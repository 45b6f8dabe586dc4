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
"""A tiny student with a tool: SeqKD on 300 trajectories, then SeqKD that goes on, or GAD. The tool itself is the judge.

    python examples/studies/tools_language.py       # all runs; interrupt it at any time, run it again to go on

A prompt asks for a sum. The teacher calls ``plus`` with both numbers and says what came out. The student is a random
Qwen2 on bytes, rolled out by verl's tool agent loop; trajectories of both sides are built as in a run
(``gad_verl.data``), the training is ``examples/gad_in_one_file.py``. Measured on held-out sums, greedy: calls that the
tool takes, calls with the right numbers, and right final answers. Seeds below :data:`FIRST_SEED` were seen while the
study was written.
"""

import copy
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from study_common import Column, Row, Rows, Run, arguments, arm_table, paired_difference, run_all, show, table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2ForTokenClassification

from gad_verl import core
from gad_verl.core.trust import is_held_out
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder
from gad_verl.data.tools import ToolLimits, schemas_of
from gad_verl.data.trajectories import Trajectory, TrajectoryBuilder
from gad_verl.data.trajectory_messages import Message, normal_messages
from gad_verl.rollout.batching import SamplingSettings, generate_batch
from gad_verl.tools.evaluation.engines import Job
from gad_verl.tools.evaluation.rows import Row as Asked
from gad_verl.tools.evaluation.tool_turns import ToolOptions, ToolTurns

# Put on the path by study_common.
from gad_in_one_file import Example, Gad, Group, Settings  # noqa: E402  isort:skip
from token_rows import token_log_probs  # noqa: E402  isort:skip

TOOL = Path(__file__).with_name("sum_tool.py")
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }}{% endfor %}<|im_end|>\n"
    "{% endif %}{% for message in messages %}"
    "{% if message.role == 'tool' %}<|im_start|>user\n<r>{{ message.content }}</r><|im_end|>\n"
    "{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}{% for call in message.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAME, FIRST_SEED = "tools_language", 40
SEQKD, GOES_ON, EQUAL_TIME, GAD = "SeqKD", "SeqKD, goes on", "SeqKD, equal time", "GAD"
ARMS = (SEQKD, GOES_ON, EQUAL_TIME, GAD)
LIMIT, HIGHEST, LIMITS = 160, 30, ToolLimits(max_assistant_turns=3)


@dataclass(frozen=True)
class Size:
    """How large the study is; ``equal_time_steps`` of SeqKD take as long as ``more_steps`` of GAD."""

    rows: int = 300
    held_out: int = 64
    seqkd_steps: int = 600
    more_steps: int = 150
    equal_time_steps: int = 2200
    hidden: int = 128
    batch: int = 8
    n: int = 4


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bare,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = TEMPLATE
    return fast


def model(size: Size, vocabulary: int, seed: int, is_judge: bool) -> nn.Module:
    """A random Qwen2, as a language model or with a scalar head."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=2 * size.hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        num_labels=1,
    )
    return Qwen2ForTokenClassification(config) if is_judge else Qwen2ForCausalLM(config)


def prompt(a: int, b: int) -> list[Message]:
    """Asks for a sum."""
    return [{"role": "user", "content": f"{a}+{b}"}]


def teacher(a: int, b: int) -> list[Message]:
    """What the teacher does with it."""
    called = {"function": {"name": "plus", "arguments": {"a": a, "b": b}}}
    return normal_messages(
        [
            {"role": "assistant", "content": "", "tool_calls": [called]},
            {"role": "tool", "content": str(a + b)},
            {"role": "assistant", "content": f"it is {a + b}"},
        ],
        "the teacher",
    )


class Language:
    """Prompts, trajectories and rollouts."""

    def __init__(self, size: Size, seed: int) -> None:
        self.size, self.tokenizer = size, tokenizer()
        student = SequenceBuilder(self.tokenizer, 64, LIMIT)
        self.turns = ToolTurns(ToolOptions(TOOL, limits=LIMITS), student, "qwen2")
        self.builder = TrajectoryBuilder(student, schemas_of(self.turns.tools), LIMITS, "qwen2")
        pairs = [(a, b) for a in range(HIGHEST) for b in range(HIGHEST)]
        random.Random(seed).shuffle(pairs)
        self.held_out, self.known = pairs[: size.held_out], pairs[size.held_out :][: size.rows]
        self.taught = {pair: self.builder.teacher(prompt(*pair), teacher(*pair)) for pair in self.known}
        self.prompts = {pair: self.builder.student.prompt(prompt(*pair)) for pair in pairs}

    def rollouts(
        self, student: nn.Module, pairs: Sequence[tuple[int, int]], temperature: float
    ) -> list[tuple[Trajectory, list[int], list[int], Any]]:
        """Of each pair the trajectory as the discriminator reads it, the sampled ids, their mask, and what it did."""
        settings = SamplingSettings(max_new_tokens=LIMIT, temperature=temperature)
        stop, pad = self.builder.student.stop_ids, self.tokenizer.pad_token_id

        class Engine:
            def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[int]]]:
                answers = generate_batch(student, [job.prompt_ids for job in jobs], settings, stop, pad)
                yield from ((job, answer.token_ids) for job, answer in zip(jobs, answers, strict=True))

        rows = [Asked(tuple(prompt(*pair)), "") for pair in pairs]
        jobs = [Job(number, 0, self.prompts[pair]) for number, pair in enumerate(pairs)]
        found = []
        for job, ids in self.turns.run(Engine(), jobs, rows):
            turns = self.turns.read(job, ids)
            found.append((self.builder.own(ids, turns.mask, turns.finished), ids, turns.mask, turns))
        return found

    def measured(self, student: nn.Module) -> dict[str, float]:
        """The tool's judgement on held-out sums."""
        found = self.rollouts(student, self.held_out, temperature=0.0)
        right = called = answered = 0
        for (a, b), (_, _, _, turns) in zip(self.held_out, found, strict=True):
            called += turns.calls > 0 and turns.invalid_calls == 0
            wanted = self.builder.turn_text(prompt(a, b), teacher(a, b)[0])
            right += turns.text.startswith(wanted)
            answered += turns.finished and turns.text.endswith(f"it is {a + b}")
        count = len(found)
        return {"valid": called / count, "right_call": right / count, "right_answer": answered / count}


class ToolGad(Gad):
    """GAD on trajectories: what tools and template put in is read, and neither learned nor rewarded."""

    def __init__(self, language: Language, *given: Any, **named: Any) -> None:
        self.language = language
        self._masks = {tuple(one.token_ids): one.mask for one in language.taught.values()}
        super().__init__(*given, **named)

    def rollout(self, chosen: Sequence[tuple[Example, EncodedResponse]]) -> list[Group]:
        settings, language = self.settings, self.language
        pairs = [language.known[example.index] for example, _ in chosen for _ in range(settings.n)]
        found = language.rollouts(self.student, pairs, settings.temperature)
        self._masks |= {tuple(ids): mask for _, ids, mask, _ in found}
        groups = []
        for number, (example, text) in enumerate(chosen):
            mine = found[number * settings.n : (number + 1) * settings.n]
            trains = not is_held_out(str(example.prompt_ids), settings.held_out_fraction)
            groups.append(
                Group(example.prompt_ids, text, [ids for _, ids, _, _ in mine], [read for read, *_ in mine], trains)
            )
        return groups

    def _own(self, responses: Sequence[list[int]]) -> torch.Tensor:
        return torch.tensor([own for ids in responses for own in self._masks[tuple(ids)]], dtype=torch.float32)

    def _policy_gradient(
        self, groups: list[Group], advantages: torch.Tensor, weight: float, metrics: dict[str, float]
    ) -> float:
        rows = [
            (group.prompt_ids, ids, advantage)
            for group, row in zip(groups, advantages.tolist(), strict=True)
            for ids, advantage in zip(group.sampled, row, strict=True)
            if ids is not None
        ]
        prompts, responses, values = zip(*rows, strict=True)
        own = self._own(responses)
        log_probs, _, row = token_log_probs(self.student, prompts, responses, self.settings.temperature)
        ratio = (log_probs - log_probs.detach()).exp()
        loss = -(own * torch.tensor(values)[row] * ratio).sum() / own.sum()
        if self.settings.kl_loss_coef and self.reference is not None:
            with torch.no_grad():
                reference, _, _ = token_log_probs(self.reference, prompts, responses, self.settings.temperature)
            loss = (
                loss + self.settings.kl_loss_coef * (own * core.low_variance_kl(log_probs, reference)).sum() / own.sum()
            )
        (weight * loss).backward()
        metrics["actor/pg_loss"] = loss.item()
        return loss.item()

    def _text_gradient(
        self, rows: list[tuple[list[int], list[int]]], weight: float, metrics: dict[str, float]
    ) -> float:
        prompts, responses = zip(*rows, strict=True)
        own = self._own(responses)
        loss = -(own * token_log_probs(self.student, prompts, responses, temperature=1.0)[0]).sum() / own.sum()
        (weight * loss).backward()
        metrics["gad/supervised_tokens"] = own.sum().item()
        return loss.item()


def settings_of(size: Size, arm: str, seed: int) -> Settings:
    """SeqKD as long as all; then as many steps again, by texts alone or by the objective of docs/stability.md."""
    common = Settings(
        stage="seqkd",
        total_steps=size.seqkd_steps,
        batch_size=size.batch,
        n=size.n,
        max_response_length=LIMIT,
        actor_lr=2e-3,
        clip_grad=1.0,
        seed=seed,
    )
    if arm == SEQKD:
        return common
    if arm in (GOES_ON, EQUAL_TIME):
        steps = size.more_steps if arm == GOES_ON else size.equal_time_steps
        return replace(common, total_steps=steps, actor_lr=5e-4)
    return replace(
        common,
        stage="auto",
        total_steps=size.more_steps,
        warmup_steps=max(1, size.more_steps // 5),
        discriminator_only_steps=max(1, size.more_steps // 5),
        actor_lr=1e-4,
        warmup_actor_lr=5e-4,
        discriminator_lr=1e-3,
        norm_adv_by_std=False,
        held_out_fraction=0.25,
        otherwise="supervised",
        supervised_weight=0.1,
    )


def study(size: Size, seeds: Sequence[int]) -> Iterator[Run]:
    """All runs; the continuations of a seed begin with its SeqKD student."""
    begun: dict[int, tuple[Language, nn.Module]] = {}

    def start(seed: int) -> tuple[Language, nn.Module]:
        if seed not in begun:
            begun.clear()
            language = Language(size, seed)
            student = model(size, len(language.tokenizer), seed, is_judge=False)
            trained(language, student, SEQKD, seed)
            begun[seed] = language, student
        return begun[seed]

    def trained(language: Language, student: nn.Module, arm: str, seed: int) -> ToolGad:
        examples = [
            Example(number, language.prompts[pair], [language.taught[pair]])
            for number, pair in enumerate(language.known)
        ]
        judge = model(size, len(language.tokenizer), seed + 1000, is_judge=True)
        stop = language.builder.student.stop_ids
        gad = ToolGad(language, student, judge, examples, settings_of(size, arm, seed), stop)
        gad.run()
        return gad

    def work(arm: str, seed: int) -> dict[str, Any]:
        language, student = start(seed)
        student = copy.deepcopy(student)
        if arm != SEQKD:
            trained(language, student, arm, seed)
        return {"arm": arm, "seed": seed, **language.measured(student)}

    for seed in seeds:
        for arm in ARMS:
            yield Run(f"{arm}/seed={seed}", lambda arm=arm, seed=seed: work(arm, seed))


COLUMNS = [
    Column("valid calls, %", "valid", 1, 100),
    Column("right calls, %", "right_call", 1, 100),
    Column("right answers, %", "right_answer", 1, 100),
    Column("seconds of a core", "cpu_s", 0),
]


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md."""
    lines = [
        [rival, *(show(paired_difference(rows, rival, GAD, column.key), 1, 100) for column in COLUMNS[:3])]
        for rival in ARMS[:-1]
    ]
    heads = ["GAD less", *(column.title.replace(", %", ", points") for column in COLUMNS[:3])]
    return [arm_table(rows, ARMS, COLUMNS), table(heads, lines)]


def main(given: Sequence[str] | None = None) -> int:
    """The command line; 1 where the time is over before the study is complete."""
    parser = arguments(__doc__, NAME, seeds=5)
    parser.add_argument("--small", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args(given)
    rows, size = Rows(options.rows), Size()
    if options.small:
        size = Size(rows=16, held_out=4, seqkd_steps=2, more_steps=5, equal_time_steps=6, hidden=32, batch=4, n=2)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    return 0 if run_all(rows, study(size, seeds), options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
