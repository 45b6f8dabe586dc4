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

# What verl's configuration has where nobody names a model (trainer/config/model/hf_model.yaml).
NOT_SET = "~/models/deepseek-llm-7b-chat"


def may_be_of_the_hub(path: str) -> bool:
    """Whether a model's path may be a name of the Hub (``ORGANISATION/NAME``), and not only a folder."""
    return not path.startswith(("/", ".", "~")) and path.count("/") <= 1


def why_not(path: str, error: BaseException) -> str:
    """Why a tokenizer was not loaded: what is wrong with the folder, else the error's own words.

    Args:
        path: A folder, or a name of the Hub.
        error: Of transformers, which takes a folder that is not there for a name.
    """
    local = Path(path).expanduser()
    if path == NOT_SET and not local.exists():
        return "this is verl's default, for no model was named: set the key to a model's folder, or its name on the Hub"
    if local.is_file():
        return "this is a file; the folder of a model is needed"
    if local.is_dir() and not any(local.glob("*token*")):
        return "the folder has no tokenizer.json and no tokenizer_config.json: is it the folder of a model?"
    said = " ".join(str(error).split())[:300]
    if local.exists():
        return said
    return (
        "there is no such folder"
        if not may_be_of_the_hub(path)
        else f"there is no such folder, and as a name of the Hub: {said}"
    )


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
        raise GadConfigError(f"{key}.path={path}: no tokenizer can be loaded: {why_not(str(path), error)}") from None
    if model.get("custom_chat_template", None) is not None:
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer
