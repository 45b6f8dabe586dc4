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
"""Scores of an exported discriminator by transformers, as somebody without gad_verl computes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gad_verl.tools.export.reward_model import read_scoring


def classifier_scores(folder: Path, rows: Sequence[Sequence[int]], side: str = "right") -> torch.Tensor:
    """Scores of rows of token ids in one batch, padded on ``side``, with the bias that the classifier leaves out."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0] + read_scoring(folder).score_bias
