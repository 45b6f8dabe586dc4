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
"""A discriminator as a plain reward model: what transformers and vLLM need to give the trainer's scores.

The trainer's discriminator is ``...ForTokenClassification`` with one label; its value at the last token is the score of
a sequence. ``...ForSequenceClassification`` has the same weights under the same names and takes the last token by
itself. Three things stand between the two, and an exported folder settles them:

- transformers finds the last token by looking for padding, so padding must never be what a sequence ends with. Many
  tokenizers pad with the end-of-text token, and the token before the last would be scored.
- The classifier of transformers has no bias. A bias is the same for every text, so no comparison needs it; it is
  written down (``score_bias``) for whoever wants the trainer's number. vLLM reads it from the weights.
- vLLM puts a sigmoid on a single label unless the model is a regression.

Where transformers has no token classifier of a family, the discriminator is the language model with the scalar head in
the place of its LM head, and that is how the folder loads in transformers: the few lines are on its card. For vLLM the
head is in the folder a second time, under the name ``score``.

How prompt and response become tokens is written down too, in ``gad_scoring.json``. Nothing here imports verl.
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gad_verl.data.thinking import Unopened
from gad_verl.data.tokens import Messages, SequenceBuilder
from gad_verl.discriminator.form import CLASSIFIER_HEADS, LM_HEAD, SCORING_FILE, discriminator_form
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.checkpoint import load_model_config, load_tokenizer

logger = logging.getLogger(__name__)

_NO_LIMIT = 1 << 30
# Names of tokens that padding is taken from, the most fitting first.
_PADDING_NAMES = ("pad", "reserved", "endoftext")


@dataclass(frozen=True)
class Scoring:
    """How the trainer made a sequence of a prompt and a response, and what it added to the last value.

    Args:
        max_prompt_length: Longest prompt in tokens; longer ones lose tokens on the left. None if it is not known.
        max_response_length: Longest response in tokens, its end-of-text token included. None if it is not known.
        chat_template_kwargs: ``data.apply_chat_template_kwargs`` of the run.
        score_bias: Bias of the scalar head, which the sequence classifiers of transformers leave out.
        opened: Mark of thoughts that the template opens, and that the trainer took off the end of a prompt; empty
            where there is none.
        held_out: Fraction and seed of the prompts that never trained it (``gad_verl.core.trust.HeldOut``); None if
            they are not known.
    """

    max_prompt_length: int | None = None
    max_response_length: int | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    score_bias: float = 0.0
    opened: str = ""
    held_out: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write ``gad_scoring.json`` into a folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / SCORING_FILE).write_text(text + "\n", encoding="utf-8")


def read_scoring(folder: str | Path) -> Scoring:
    """What an exported discriminator says of itself.

    Raises:
        GadCheckpointError: If there is nothing, or it is damaged.
    """
    path = Path(folder) / SCORING_FILE
    try:
        return Scoring(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise GadCheckpointError(
            f"{folder} has no {SCORING_FILE}: name a folder that gad-verl export --part discriminator wrote"
        ) from None
    except (ValueError, TypeError) as error:
        raise GadCheckpointError(f"{path} is damaged: {error}") from None


def scoring_builder(folder: str | Path) -> SequenceBuilder:
    """The encoder of an exported discriminator, with the limits and the template of its training.

    Raises:
        GadCheckpointError: If the folder is no exported discriminator.
        GadConfigError: If its tokenizer has no end-of-text token or no chat template.
    """
    from transformers import AutoTokenizer

    scoring = read_scoring(folder)
    builder = SequenceBuilder(
        AutoTokenizer.from_pretrained(folder),
        scoring.max_prompt_length or _NO_LIMIT,
        scoring.max_response_length or _NO_LIMIT,
        chat_template_kwargs=scoring.chat_template_kwargs,
    )
    return Unopened(builder, scoring.opened) if scoring.opened else builder


def scored_ids(builder: SequenceBuilder, messages: Messages, response: str, finished: bool = True) -> list[int]:
    """The very tokens that the trainer scores for a response to a prompt.

    Args:
        builder: Of :func:`scoring_builder`.
        messages: The chat that waits for an answer.
        response: The answer's text, without an end-of-text token.
        finished: Whether the author ended it there; False for a response that a limit stopped.

    Raises:
        GadDataError: If the rendered prompt has no token.
    """
    return [*builder.prompt(messages), *builder.response(response, finished).token_ids]


def sequence_classifier(config: Any) -> str | None:
    """Name of the sequence classifier of transformers that has a discriminator's weights under the same names.

    Args:
        config: transformers' configuration of the discriminator.

    Returns:
        None where the family has no such class, or one that works otherwise.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
    from transformers.modeling_layers import GenericForSequenceClassification, GenericForTokenClassification

    if config.get_text_config() is not config:
        return None
    mappings = (AutoModelForSequenceClassification._model_mapping, AutoModelForTokenClassification._model_mapping)
    if any(type(config) not in mapping for mapping in mappings):
        return None
    classifier, trained = (mapping[type(config)] for mapping in mappings)
    if issubclass(classifier, GenericForSequenceClassification) and issubclass(trained, GenericForTokenClassification):
        return classifier.__name__
    return None


def lm_head_class(config: Any) -> str | None:
    """Name of the language model whose LM head the scalar head has replaced; None of a token classifier."""
    form = discriminator_form(config)
    return None if form.is_classifier else form.model_class.__name__


def saved_weights(model: Any) -> dict[str, Tensor]:
    """Weights of a discriminator as they are written: vLLM's classifier looks for the head by the name ``score``."""
    state = dict(model.state_dict())
    if lm_head_class(model.config) is not None:
        state[f"{CLASSIFIER_HEADS[0]}.weight"] = state[f"{LM_HEAD}.weight"].clone()
    return state


def find_padding(tokenizer: Any, vocab_size: int, chat_template_kwargs: dict[str, Any] | None = None) -> int | None:
    """A token that pads and that no scored sequence ends with; the tokenizer's own if it will do.

    A sequence ends with the end-of-text token, with a token of a text (which is never a special one), or with what a
    rendered prompt ends with.

    Returns:
        None where the vocabulary has no such token.
    """
    used = {tokenizer.eos_token_id} | _template_ids(tokenizer, chat_template_kwargs or {})

    def fits(number: int | None) -> bool:
        return number is not None and 0 <= number < vocab_size and number not in used

    if fits(tokenizer.pad_token_id):
        return int(tokenizer.pad_token_id)
    tokens = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}

    def rank(number: int) -> tuple[int, int]:
        names = [place for place, name in enumerate(_PADDING_NAMES) if name in tokens[number].lower()]
        return (names[0] if names else len(_PADDING_NAMES), number)

    return min(filter(fits, tokens), key=rank, default=None)


def _template_ids(tokenizer: Any, chat_template_kwargs: dict[str, Any]) -> set[int]:
    if not getattr(tokenizer, "chat_template", None):
        return set()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, tokenize=False, **chat_template_kwargs
    )
    return set(tokenizer(text, add_special_tokens=False)["input_ids"])


def add_reward_form(folder: Path, scoring: Scoring, trust_remote_code: bool = False) -> str | None:
    """Let a folder of a discriminator load as a sequence classifier too: in transformers and vLLM, or in vLLM alone.

    Args:
        folder: As written by ``save_pretrained``, tokenizer included. Its configuration and tokenizer are changed.
        scoring: Written into the folder.
        trust_remote_code: Run code that the model brings.

    Returns:
        Name of transformers' sequence classifier; None where it has none, and the folder stays what was trained.
    """
    scoring.write(folder)
    config = load_model_config(folder, trust_remote_code)
    name, replaced = sequence_classifier(config), lm_head_class(config)
    if replaced is not None:
        # The name by which vLLM makes a classifier of a language model.
        served = replaced.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")
        _describe(folder, {"architectures": [f"{served}ForSequenceClassification"], "problem_type": "regression"})
        return None
    if name is None:
        logger.warning(
            "transformers has no sequence classifier with the weights of %s: it stays a token classifier, whose value "
            "at the last token is the score",
            config.model_type,
        )
        return None
    padding = None
    if any((folder / file).is_file() for file in ("tokenizer_config.json", "tokenizer.json")):
        tokenizer = load_tokenizer(folder, trust_remote_code)
        padding = find_padding(tokenizer, config.vocab_size, scoring.chat_template_kwargs)
        if padding is not None and padding != tokenizer.pad_token_id:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
            tokenizer.save_pretrained(folder)
    if padding is None:
        logger.warning("the tokenizer has no token that pads and is never scored: score one sequence at a time")
    _describe(folder, {"architectures": [name], "problem_type": "regression", "pad_token_id": padding})
    return name


def _describe(folder: Path, entries: dict[str, Any]) -> None:
    """Change entries of a config.json."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
