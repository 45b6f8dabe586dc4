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
"""Builds a tiny random student with its tokenizer, and rows of GAD, for tests. Nothing is downloaded.

Run as a script: ``python tests/tools/tiny_model.py FOLDER`` writes ``model/``, ``train.parquet`` and ``val.parquet``.
"""

import random
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "red green blue one two three cat dog bird runs sleeps eats the a big small old new house tree".split()


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges: every text round-trips, 256 bytes and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(folder: Path, seed: int = 0, layers: int = 2, hidden: int = 64, **settings: Any) -> Path:
    """Write a random Qwen2 of about 0.1 million parameters with its tokenizer; ``settings`` of Qwen2Config."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    defaults = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        # 32 values a head: the smallest that vLLM on a CPU computes.
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**(defaults | settings)))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_other_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose tokens are mostly whole words, with other special tokens and another chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", additional_special_tokens=["<turn>"]
    )
    fast.chat_template = (
        "{% for message in messages %}<turn>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
    )
    return fast


def build_other_model(folder: Path, seed: int = 5) -> Path:
    """Write a random Llama: another family, size and tokenizer than :func:`build_model`."""
    tokenizer = build_other_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_rows(count: int, seed: int) -> list[dict]:
    """Rows whose teacher answers with two or three words."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        question = " ".join(rng.sample(WORDS, 3))
        answer = " ".join(rng.sample(WORDS, rng.choice([2, 3])))
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{number}: {question}"}],
                "teacher_response": answer,
                "teacher": "tests",
                "data_source": "tiny",
            }
        )
    return rows


def build_all(folder: Path, train_rows: int = 48, val_rows: int = 8) -> Path:
    """Model and data below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    build_model(folder / "model")
    pd.DataFrame(build_rows(train_rows, seed=1)).to_parquet(folder / "train.parquet")
    pd.DataFrame(build_rows(val_rows, seed=2)).to_parquet(folder / "val.parquet")
    return folder


if __name__ == "__main__":
    build_all(Path(sys.argv[1]))
