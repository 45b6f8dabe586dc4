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
"""Mean-pooled hidden states of a language model: features of texts for the two-sample test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.checkpoint import load_tokenizer

_BATCH = 16


def text_features(folder: str | Path, texts: Sequence[str], max_tokens: int, batch_size: int = _BATCH) -> np.ndarray:
    """Mean of a model's last hidden states over the tokens of each text.

    The model reads the text alone, without its prompt. A text without a token gets zeros.

    Args:
        folder: Hugging Face folder of any model with hidden states.
        texts: What to read.
        max_tokens: Longer texts are cut on the right.
        batch_size: Texts at the same time, padded on the right.

    Returns:
        Shape (texts, hidden size), float32.

    Raises:
        GadCheckpointError: If the folder has no model or no tokenizer.
    """
    import torch
    from tqdm import tqdm
    from transformers import AutoModel

    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise GadCheckpointError(
            f"{folder} is no Hugging Face folder (it has no config.json); --features-model needs one"
        )
    tokenizer = load_tokenizer(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    except Exception as error:  # of many kinds; all of them say what is wrong with the folder
        raise GadCheckpointError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens] for text in texts]
    features = np.zeros((len(texts), model.config.get_text_config().hidden_size), dtype=np.float32)
    order = sorted((number for number, ids in enumerate(encoded) if ids), key=lambda number: -len(encoded[number]))
    with tqdm(total=len(order), desc="Features", unit="text") as bar, torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            longest = len(encoded[batch[0]])
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, number in enumerate(batch):
                ids[row, : len(encoded[number])] = torch.tensor(encoded[number])
                mask[row, : len(encoded[number])] = 1
            hidden = model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state.cpu()
            means = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            features[batch] = means.numpy()
            bar.update(len(batch))
    return features
