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
"""A tiny student whose template knows tools, and rows whose teacher adds two numbers by a call.

The template has the form of Qwen2.5's: tools in the system message, calls between marks, results as a user's turn.
"""

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tiny_model import build_model, build_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.data.tools import ToolLimits, load_tools, schemas_of
from gad_verl.data.trajectories import TrajectoryBuilder
from gad_verl.data.trajectory_messages import normal_messages

TOOLS_FILE = Path(__file__).parent / "adder.py"
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "{% for tool in tools %}{{ tool.function.name }}({{ tool.function.parameters.properties | join(',') }}){% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' and tools and loop.first %}"
    "{% elif message.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user\n{% endif %}"
    "<r>{{ message.content }}</r>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ '\n' if message.content or not loop.first else '' }}"
    '<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tool_tokenizer() -> Any:
    """Bytes, with the template of this module."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TOOL_TEMPLATE
    return tokenizer


def call(name: str, arguments: dict[str, Any], at: str | None = None) -> dict[str, Any]:
    """A call in OpenAI's form: its arguments are JSON text."""
    named = {} if at is None else {"id": at}
    return {**named, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def adding(a: int, b: int) -> list[dict[str, Any]]:
    """The teacher's trajectory for a sum."""
    return [
        {"role": "assistant", "content": None, "tool_calls": [call("add", {"a": a, "b": b}, "x")]},
        {"role": "tool", "content": str(a + b), "tool_call_id": "x"},
        {"role": "assistant", "content": f"it is {a + b}"},
    ]


def build_tool_rows(count: int, seed: int, highest: int = 9) -> list[dict[str, Any]]:
    """Rows with trajectories as JSON text."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = rng.randint(0, highest), rng.randint(0, highest)
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{a}+{b}"}],
                "teacher_messages": json.dumps(adding(a, b)),
                "data_source": "sums",
            }
        )
    return rows


def build_tool_folder(folder: Path, train_rows: int = 48, val_rows: int = 8, **model: Any) -> Path:
    """``model/``, ``train.parquet`` and ``val.parquet`` below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    build_model(folder / "model", **model)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = TOOL_TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    pd.DataFrame(build_tool_rows(train_rows, seed=1)).to_parquet(folder / "train.parquet")
    pd.DataFrame(build_tool_rows(val_rows, seed=2)).to_parquet(folder / "val.parquet")
    return folder


def teach_calls(model_folder: Path, rows: list[dict[str, Any]], steps: int, lr: float = 3e-3, batch: int = 16) -> float:
    """Teach the model of a folder the trajectories of rows by cross-entropy; returns the last loss (nats a token)."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).train()
    schemas = schemas_of(load_tools({"function_tool_path": str(TOOLS_FILE)}))
    builder = TrajectoryBuilder(SequenceBuilder(tokenizer, 200, 400), schemas, ToolLimits(), "qwen2")
    texts = []
    for row in rows:
        found = builder.teacher(row["prompt"], normal_messages(row["teacher_messages"], "a row"))
        prompt = builder.student.prompt(row["prompt"])
        texts.append((torch.tensor([*prompt, *found.token_ids]), torch.tensor([0] * len(prompt) + found.mask)))
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=lr), torch.zeros(())
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 4 * (1 - step / steps))
        chosen = [texts[place] for place in torch.randint(len(texts), (batch,), generator=generator).tolist()]
        ids, mask = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*chosen, strict=True))
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        of_tokens = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")
        loss = (of_tokens * mask[:, 1:]).sum() / mask[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(model_folder)
    return loss.item()
