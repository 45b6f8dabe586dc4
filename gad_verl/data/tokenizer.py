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
"""The tokenizer of a model as a run will have it."""

from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError


def load_tokenizer(key: str, model: Any) -> Any:
    """The tokenizer of a model, with the chat template that it will have.

    Args:
        key: Of the model in the configuration.
        model: That section.

    Raises:
        GadConfigError: Names the model.
    """
    from transformers import AutoTokenizer

    path = model.get("tokenizer_path", None) or model.path
    local = Path(str(path)).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            local if local.exists() else path, trust_remote_code=model.get("trust_remote_code", False)
        )
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise GadConfigError(f"{key}.path={path}: no tokenizer can be loaded: {text}") from None
    if model.get("custom_chat_template", None) is not None:
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer
