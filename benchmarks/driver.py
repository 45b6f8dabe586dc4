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
"""What a step costs the trainer's process: seconds of its processor and bytes of its memory per response token.

    python benchmarks/driver.py                        # writes benchmarks/results/driver.json and prints the table

The parts of a step are the real ones, from the rollouts that are read out of TransferQueue to the rewards that are
written back; each size in a process of its own. Stand-ins answer for TransferQueue (columns are unpickled and copied
as its client does, nothing is sent) and for the discriminator's ranks (rows are split as verl splits them, and every
score is there at once). What verl does in the same process is not counted. The tokenizer is byte-level BPE, trained on
the pages of docs/; one response in ten is not spelled as the tokenizer would spell its text.
"""

import ctypes
import gc
import json
import pickle
import random
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import arguments, machine, table, write
from device import measure_the_cpu

DOCS = Path(__file__).resolve().parents[1] / "docs"
RANKS, PROMPT_WORDS = 8, 40


@dataclass(frozen=True)
class Load:
    """Prompts of a batch, responses to each, tokens of each text."""

    prompts: int
    rollouts: int
    tokens: int


LOADS = (Load(256, 8, 256), Load(256, 8, 1024), Load(1024, 16, 256))
QUICK = (Load(4, 2, 16), Load(8, 2, 16))

COLUMNS = {
    "batch": "prompts x rollouts",
    "tokens": "tokens of a response",
    "million_tokens": "million response tokens",
    "cpu_s": "processor of the trainer, s per million",
    "bytes": "memory, bytes a token",
    "loops_cpu_s": "processor of the agent loops, s per million",
}


def build_tokenizer() -> Any:
    """Byte-level BPE with words of English and of code."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The pattern of Qwen2's tokenizer.
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train([str(path) for path in sorted(DOCS.glob("*.md"))], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    return fast


class Texts:
    """Texts cut out of the pages of docs/."""

    def __init__(self, tokenizer: Any) -> None:
        pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
        self._tokenizer, self._words, self._rng = tokenizer, pages.split(" "), random.Random(0)
        self._ids = tokenizer(pages)["input_ids"]

    def words(self, count: int) -> str:
        """So many words in a row."""
        begin = self._rng.randrange(len(self._words) - count)
        return " ".join(self._words[begin : begin + count])

    def ids(self, count: int) -> list[int]:
        """So many tokens in a row, spelled as the tokenizer spells them."""
        begin = self._rng.randrange(len(self._ids) - count)
        text = self._tokenizer.decode(self._ids[begin : begin + count]).strip("\ufffd")
        return self._tokenizer(text)["input_ids"][:count]

    def misspelled(self, ids: list[int]) -> list[int]:
        """The same text with the longest of its tokens spelled by two."""
        tokenizer = self._tokenizer
        place = max(range(len(ids)), key=lambda at: len(tokenizer.convert_ids_to_tokens(ids[at])))
        token = tokenizer.convert_ids_to_tokens(ids[place])
        parts = tokenizer.convert_tokens_to_ids([token[:1], token[1:]])
        return [*ids[:place], *parts, *ids[place + 1 :]] if None not in parts else ids


class Queue:
    """The client of TransferQueue: what it does to the columns that are asked for."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def get(self, _: str, keys: list[str], names: list[str]) -> Any:
        import torch
        from tensordict import NonTensorData, NonTensorStack, TensorDict

        columns: dict[str, Any] = {}
        for name in names:
            stored = [self.rows[key][name] for key in keys if name in self.rows[key]]
            if not stored:
                continue
            if isinstance(stored[0], bytes):
                columns[name] = NonTensorStack(*(NonTensorData(pickle.loads(value)) for value in stored))
            else:
                copies = [value.clone() for value in stored]
                nested = copies[0].dim() > 0
                columns[name] = (
                    torch.nested.as_nested_tensor(copies, layout=torch.jagged) if nested else torch.stack(copies)
                )
        return TensorDict(columns, batch_size=len(keys))

    def put(self, _: str, keys: list[str], fields: Any) -> None:
        for name in fields.keys():
            values = list(fields[name].unbind())
            if len(values) != len(keys):
                raise RuntimeError(f"{len(values)} rows of {name} for {len(keys)} keys")


class Workers:
    """The discriminator's ranks: a score for each row, from its length."""

    def __init__(self) -> None:
        self._dispatch_info = {"train": list(range(RANKS))}

    def update(self, data: Any) -> Any:
        import torch
        from tensordict import TensorDict
        from verl.utils import tensordict_utils as tu

        scores = []
        for part in tu.chunk_tensordict(data, RANKS):
            scores.append(part["input_ids"].offsets().diff() % 97 / 97.0)
        found = torch.cat(scores).float()
        ones = torch.ones(len(found), dtype=torch.float64)
        names = ("loss", "grad_norm", "lr", "skipped_steps", "memory_peak_gb", "busy_s")
        rows = TensorDict({"scores": found, **{name: ones for name in names}}, batch_size=len(found))
        return type("Future", (), {"get": lambda self: rows})()

    score = update


def build_step(tokenizer: Any, load: Load) -> tuple[Any, Any]:
    """The parts of a step of the adversarial stage of the published method, and what they read from."""
    from gad_verl.config import GadConfig
    from gad_verl.core.teacher_mix import TeacherMix
    from gad_verl.data.tokens import SequenceBuilder
    from gad_verl.discriminator.loss import LossOptions
    from gad_verl.discriminator.worker_group import DiscriminatorGroup
    from gad_verl.guardian import Guardian
    from gad_verl.trainer.discriminator_step import DiscriminatorTraining
    from gad_verl.trainer.encoding import Encoding
    from gad_verl.trainer.held_out_texts import HeldOutTexts
    from gad_verl.trainer.metrics import score_metrics
    from gad_verl.trainer.reward_options import reward_options
    from gad_verl.trainer.rewards import Rewards
    from gad_verl.trainer.rollouts import Rollouts
    from gad_verl.trainer.run_log import RunLog
    from gad_verl.trainer.step import GadStep

    gad = GadConfig()
    queue, rollouts = Queue(), Rollouts("teacher_response", "teacher", TeacherMix())
    rollouts._get, rollouts._put = queue.get, queue.put  # type: ignore[method-assign]
    builder = SequenceBuilder(tokenizer, 1024, load.tokens + 1)
    encoding = Encoding(builder, builder)
    group = DiscriminatorGroup.__new__(DiscriminatorGroup)
    group._workers, group._loss = Workers(), LossOptions(pairs=gad.discriminator_loss.pair_options())
    group._passes, group._max_tokens, group._micro_batch_size = "auto", None, 1
    rewards = Rewards(gad.reward, reward_options(gad.reward, False), rollouts, encoding, lambda _: [])
    log = RunLog(gad.record)
    step = GadStep(
        rollouts,
        encoding,
        DiscriminatorTraining(group, gad),
        None,
        rewards,
        Guardian(gad.guardian),
        [score_metrics, log.observer(encoding)],
        log,
        None,
        HeldOutTexts(),
    )
    return step, queue


def fill(queue: Queue, tokenizer: Any, load: Load) -> tuple[list[str], int, float]:
    """Write the trajectories of a step as our agent loops leave them.

    Returns:
        Their keys in the order in which they were ready, their response tokens, and the seconds of the processor that
        the agent loops spent on what is ours.
    """
    import torch

    from gad_verl.data.answers import ENCODED, ENCODED_TEACHER, AnswerEncoder, pack_answer, pack_teacher
    from gad_verl.data.tokens import SequenceBuilder

    builder = SequenceBuilder(tokenizer, 1024, load.tokens + 1)
    encoder = AnswerEncoder(builder, builder)
    texts, rng = Texts(tokenizer), random.Random(1)
    tokens, seconds = 0, 0.0
    for prompt in range(load.prompts):
        messages = [{"role": "user", "content": texts.words(PROMPT_WORDS)}]
        teacher = tokenizer.decode(texts.ids(load.tokens))
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompt_ids = torch.tensor(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        for session in range(load.rollouts):
            ids = texts.ids(load.tokens)
            if rng.random() < 0.1:
                ids = texts.misspelled(ids)
            response = [*ids, tokenizer.eos_token_id][: load.tokens + 1]
            tokens += len(response)
            begin = time.process_time()
            encoded = pack_answer(encoder.encode(prompt_ids.tolist(), response), response)
            row = {"index": prompt, "text": teacher}
            of_teacher = pack_teacher(encoder.encode_teacher(row, "text") if session == 0 else None)
            seconds += time.process_time() - begin
            queue.rows[f"{prompt}_{session}_0"] = {
                "index": torch.tensor(prompt),
                "raw_prompt": pickle.dumps(messages),
                "teacher_response": pickle.dumps(teacher),
                "extra_info": pickle.dumps({}),
                "prompts": prompt_ids,
                "responses": torch.tensor(response),
                ENCODED: encoded,
                ENCODED_TEACHER: of_teacher,
            }
    keys = list(queue.rows)
    rng.shuffle(keys)
    return keys, tokens, seconds


def peak_bytes() -> int:
    """Highest resident memory of this process since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Give back what is free, and count the peak from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure_here(load: Load, threads: int) -> dict[str, float]:
    """A step in this process, after a small one that loads what is loaded once."""
    import torch
    from transfer_queue import KVBatchMeta

    from gad_verl.core import Phase
    from gad_verl.trainer.scored import StepInfo

    torch.set_num_threads(threads)
    tokenizer = build_tokenizer()
    found: dict[str, float] = {}
    for one in (QUICK[0], load):
        step, queue = build_step(tokenizer, one)
        keys, tokens, loops = fill(queue, tokenizer, one)
        batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in keys])
        forget_peak()
        before, begin = peak_bytes(), time.process_time()
        step.begin(batch, StepInfo(5, Phase.ADVERSARIAL, 0, one.rollouts), {})
        found = {
            "million_tokens": tokens / 1e6,
            "cpu_s": (time.process_time() - begin) / tokens * 1e6,
            "bytes": (peak_bytes() - before) / tokens,
            "loops_cpu_s": loops / tokens * 1e6,
        }
    return found


def measure(load: Load, repeats: int, threads: int) -> dict[str, Any]:
    """One row of the table: medians over processes."""
    command = [sys.executable, __file__, "--one", json.dumps(asdict(load)), str(threads)]
    found = []
    for _ in range(repeats):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    row = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return {"batch": f"{load.prompts} x {load.rollouts}", "tokens": load.tokens, **row}


def main() -> None:
    """Measure every load."""
    measure_the_cpu()
    options = arguments(__doc__.partition("\n")[0], "driver.json").parse_args()
    loads, repeats = (QUICK, 1) if options.quick else (LOADS, options.repeats)
    rows = [measure(load, repeats, options.threads) for load in loads]
    write(options.output, rows, machine(options.threads) | {"repeats": repeats, "quick": options.quick})
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measure_here(Load(**json.loads(sys.argv[2])), int(sys.argv[3]))) + "\n")
    else:
        main()
