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
"""What config.json and tokenizer of a model tell: heads, positions, and whether each token has an embedding."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.data.thinking import CHAT
from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.errors import GadConfigError
from gad_verl.preflight.parallel_check import Heads, check_parallel
from gad_verl.preflight.position_check import STUDENT, check_rows

logger = logging.getLogger(__name__)

_DISCRIMINATOR = "discriminator.model"
# Tokens that a model reads beside those of texts.
_SPECIAL = ("pad", "eos", "bos", "unk")


def model_config(model: Any) -> Any | None:
    """transformers' configuration of a model's texts, from this machine alone; None for one that is elsewhere."""
    from transformers import AutoConfig

    local = Path(str(model.path)).expanduser()
    try:
        found = AutoConfig.from_pretrained(
            local if local.is_dir() else str(model.path),
            trust_remote_code=model.get("trust_remote_code", False),
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError):
        # What is wrong with it is said where the model is looked at.
        return None
    return found.get_text_config()


def check_heads(config: DictConfig, gad_config: GadConfig) -> None:
    """Check parallel sizes against the heads of the models that are known here.

    Raises:
        GadConfigError: Names the key, the sizes and the remedy.
    """
    heads = {}
    for key, model in _models(config, gad_config.has_discriminator):
        known = model_config(model)
        heads[key] = None if known is None else _heads(known)
    check_parallel(config, gad_config, heads[STUDENT], heads.get(_DISCRIMINATOR))


def check_models(config: DictConfig, gad_config: GadConfig) -> None:
    """Check positions and vocabularies of the models that are known here.

    Raises:
        GadConfigError: Names the key, the sizes and the remedy.
    """
    for key, hf_config in known_models(config, gad_config.has_discriminator):
        found = check_rows(config, key, hf_config)
        if found.warning:
            logger.warning("%s", found.text)
    check_vocabularies(config, gad_config)


def check_vocabularies(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that the models that are known here have an embedding for each token of their tokenizers.

    Raises:
        GadConfigError: Names the key, the token and the remedy.
    """
    for key, model in _models(config, gad_config.has_discriminator):
        known = model_config(model)
        if known is not None:
            _check_vocabulary(key, model, known)


def known_models(config: DictConfig, has_discriminator: bool) -> Iterator[tuple[str, Any]]:
    """Key and transformers' configuration of the models that are known here."""
    for key, model in _models(config, has_discriminator):
        known = model_config(model)
        if known is not None:
            yield key, known


def _models(config: DictConfig, has_discriminator: bool) -> Iterator[tuple[str, Any]]:
    """Key and model."""
    yield STUDENT, config.actor_rollout_ref.model
    if has_discriminator:
        yield _DISCRIMINATOR, config.discriminator.model


def _heads(hf_config: Any) -> Heads | None:
    queries, keys = (getattr(hf_config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if not isinstance(queries, int):
        return None
    return Heads(queries, keys if isinstance(keys, int) else queries)


def _check_vocabulary(key: str, model: Any, hf_config: Any) -> None:
    """Tokens without an embedding: an index error on a CPU, and on a GPU a fault without a name.

    Some models have such tokens that no text of ours holds (pictures): only those count that a run may read.
    """
    rows = getattr(hf_config, "vocab_size", None)
    if not isinstance(rows, int):
        return
    tokenizer = load_tokenizer(key, model)
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return
    added = set(tokenizer.get_added_vocab())
    read = [token for token in beyond if token not in added]
    read += [str(getattr(tokenizer, f"{name}_token")) for name in _SPECIAL if _is_beyond(tokenizer, name, rows)]
    if not read and getattr(tokenizer, "chat_template", None):
        try:
            rendered = tokenizer.apply_chat_template(list(CHAT), add_generation_prompt=True, tokenize=False)
        except Exception:
            # Whether a template can render the prompts is looked at with the prompts.
            return
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        read = [tokenizer.convert_ids_to_tokens(number) for number in ids if number >= rows]
    if read:
        raise GadConfigError(
            f"{key}: its tokenizer has the token {read[0]!r} beyond the {rows} embeddings of the model (vocab_size in "
            "config.json), which would end the run with an index error: take the model's own tokenizer "
            f"({key}.tokenizer_path), or enlarge its embedding first (resize_token_embeddings)"
        )
    logger.warning(
        "%s: its tokenizer has %d tokens beyond the %d embeddings of the model (%r); a text that holds one would end "
        "the run",
        key,
        len(beyond),
        rows,
        next(iter(beyond)),
    )


def _is_beyond(tokenizer: Any, name: str, rows: int) -> bool:
    number = getattr(tokenizer, f"{name}_token_id", None)
    return number is not None and number >= rows
