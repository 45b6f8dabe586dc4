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
"""Rows of a real teacher that fit into the run of call 3, split into training and held-out prompts."""

import random
from pathlib import Path

PROMPT_TOKENS, ANSWER_TOKENS, HELD_OUT = 150, 120, 128


def write_rows(tokenizer_folder: Path, rows: Path, output: Path) -> None:
    """Write ``train.parquet`` and ``val.parquet``.

    Raises:
        ValueError: If too few rows fit.
    """
    import pandas as pd
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    read = pd.read_parquet(rows) if rows.suffix == ".parquet" else pd.read_json(rows, lines=rows.suffix == ".jsonl")
    kept, seen = [], set()
    for row in read.to_dict("records"):
        messages = [dict(message) for message in row["prompt"]]
        answer, key = str(row["teacher_response"]).strip(), str(messages)
        length = len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        if not answer or key in seen or length > PROMPT_TOKENS or len(tokenizer(answer).input_ids) > ANSWER_TOKENS:
            continue
        seen.add(key)
        kept.append({**row, "prompt": messages, "teacher_response": answer})
    if len(kept) < 2 * HELD_OUT:
        raise ValueError(f"{rows}: {len(kept)} of {len(read)} rows fit, {2 * HELD_OUT} are the least")
    random.Random(0).shuffle(kept)
    output.mkdir(parents=True)
    pd.DataFrame(kept[HELD_OUT:]).to_parquet(output / "train.parquet")
    pd.DataFrame(kept[:HELD_OUT]).to_parquet(output / "val.parquet")
