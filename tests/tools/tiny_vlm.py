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
"""Tiny random models with eyes, and a language whose teacher names the colour of a picture. Nothing is downloaded.

A picture is 56 x 56 (64 x 64) pixels, which a model reads as four tokens.
"""

import io
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from tiny_model import build_tokenizer
from transformers import PreTrainedTokenizerFast

MARKS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Of each family its processor and the edge of a patch.
FAMILIES = {
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", 14),
    "qwen3_vl": ("Qwen3VLProcessor", 16),
    "qwen3_5": ("Qwen3VLProcessor", 16),
}
COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "white": (240, 240, 240)}
QUESTION = "<image>Which colour?"


def build_vlm_tokenizer() -> PreTrainedTokenizerFast:
    """That of :mod:`tiny_model` with the tokens of images, and a template that writes them."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *MARKS]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _config(family: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    start, end, image, video = tokenizer.convert_tokens_to_ids(MARKS)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    eyes = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": FAMILIES[family][1],
        "spatial_merge_size": 2,
    }
    if family == "qwen2_5_vl":
        # A head that is the embedding, as that of the smaller models of the family.
        text |= {"rope_parameters": rope, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
        eyes |= {"fullatt_block_indexes": [1], "window_size": 112}
    else:
        text |= {"rope_parameters": {**rope, "mrope_interleaved": True}, "head_dim": 16}
        eyes |= {"num_position_embeddings": 64}
    if family == "qwen3_vl":
        eyes |= {"deepstack_visual_indexes": [0]}
    if family == "qwen3_5":
        text["rope_parameters"]["partial_rotary_factor"] = 1.0
        text |= {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
        }
    return AutoConfig.for_model(
        family,
        text_config=text,
        vision_config=eyes,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=family == "qwen2_5_vl",
    )


def build_vlm(folder: Path, family: str = "qwen2_5_vl", seed: int = 0, pixels: int | None = None) -> Path:
    """Write a random model of 0.2 million parameters with its tokenizer and its processor.

    Args:
        folder: Is made.
        family: One of ``FAMILIES``.
        seed: Of the weights.
        pixels: Of each picture; None means one of four tokens.
    """
    from transformers import AutoModelForImageTextToText

    processor, patch = FAMILIES[family]
    tokenizer = build_vlm_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(_config(family, tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = 4 * patch
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
        "patch_size": patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": pixels or side * side,
        "max_pixels": pixels or side * side,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def picture(colour: str, seed: int = 0, size: tuple[int, int] = (56, 56)) -> bytes:
    """A PNG of a colour, a little different with each seed."""
    rng = random.Random(f"{colour} {seed}")
    shade = tuple(min(255, max(0, part + rng.randint(-15, 15))) for part in COLOURS[colour])
    buffer = io.BytesIO()
    Image.new("RGB", size, shade).save(buffer, format="PNG")
    return buffer.getvalue()


def colour_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows whose teacher names the colour of the picture."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        colour = rng.choice(sorted(COLOURS))
        rows.append(
            {
                "prompt": [{"role": "user", "content": QUESTION}],
                "images": [{"bytes": picture(colour, 1000 * seed + number), "path": None}],
                "teacher_response": colour,
                "data_source": "colours",
            }
        )
    return rows


def build_colours(folder: Path, family: str = "qwen2_5_vl") -> Path:
    """Model and rows as ``tiny_model.build_all`` writes them."""
    build_vlm(folder / "model", family)
    pd.DataFrame(colour_rows(48, seed=1)).to_parquet(folder / "train.parquet")
    pd.DataFrame(colour_rows(8, seed=2)).to_parquet(folder / "val.parquet")
    return folder
