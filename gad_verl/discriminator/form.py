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
"""Which class of transformers a model is: as a language model, and as a discriminator.

A discriminator is the family's token classifier with one label. Where transformers has none, it is the language model
with a scalar head, ``lm_head.weight`` [1, h], in the place of the one over the vocabulary.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gad_verl.errors import GadConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# What an exported discriminator says of itself (tools/export/reward_model.py).
SCORING_FILE = "gad_scoring.json"
LM_HEAD = "lm_head"
CLASSIFIER_HEADS = ("score", "classifier")
HEAD_NAMES = (*CLASSIFIER_HEADS, LM_HEAD)
# What language models multiply the output of their head by: the steps of a score would be as many times smaller.
_OUTPUT_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
# And what they cap it at. Some configurations take no None; no score comes near the number.
_OUTPUT_CAP, _NO_CAP = "final_logit_softcapping", 1e6
_PLAIN = "eager"
_TORCH = "sdpa"


@dataclass(frozen=True)
class DiscriminatorForm:
    """What a family becomes as a discriminator.

    Args:
        model_class: Class of transformers.
        is_classifier: Whether that is a token classifier; else its ``lm_head`` is replaced.
    """

    model_class: "type[PreTrainedModel]"
    is_classifier: bool

    @property
    def loadable_class(self) -> "type[PreTrainedModel]":
        """The class, with a head of one output from the beginning."""
        return self.model_class if self.is_classifier else with_scalar_head(self.model_class)

    def __str__(self) -> str:
        if self.is_classifier:
            return f"{self.model_class.__name__}, a token classifier"
        return f"{self.model_class.__name__} with a scalar head in the place of its LM head"


def _remote_class(config: Any, auto_name: str) -> Any | None:
    """Class of a model that brings its own code; that was trusted when its configuration was loaded by it."""
    reference = (getattr(config, "auto_map", None) or {}).get(auto_name)
    if reference is None or not type(config).__module__.startswith("transformers_modules"):
        return None
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return get_class_from_dynamic_module(reference, config.name_or_path)


def language_model_class(config: Any) -> "type[PreTrainedModel]":
    """The class by which verl loads a student of this configuration (``get_hf_auto_model_class``).

    Raises:
        GadConfigError: If there is none.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        found = _remote_class(config, auto.__name__)
        if found is not None:
            return found
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            return auto._model_mapping[type(config)]
    raise GadConfigError(
        f"{config.name_or_path or 'the model'}: transformers has no causal language model of the family "
        f"{config.model_type!r}; AutoModelForImageTextToText and AutoModelForCausalLM were tried"
    )


def discriminator_form(config: Any) -> DiscriminatorForm:
    """The form of a discriminator of this configuration.

    Raises:
        GadConfigError: If the family has neither a token classifier nor a causal language model.
    """
    from transformers import AutoModelForTokenClassification

    classifier = _remote_class(config, AutoModelForTokenClassification.__name__)
    mapping = AutoModelForTokenClassification._model_mapping
    if classifier is None and type(config) in mapping:
        classifier = mapping[type(config)]
    if classifier is not None:
        return DiscriminatorForm(classifier, is_classifier=True)
    return DiscriminatorForm(language_model_class(config), is_classifier=False)


def with_scalar_head(model_class: "type[PreTrainedModel]") -> "type[PreTrainedModel]":
    """A language model whose head has one output from the beginning, so the head over the vocabulary is never read."""

    class WithScalarHead(model_class):
        # The head is never the embedding.
        _tied_weights_keys = None

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            head = getattr(self, LM_HEAD, None)
            if not isinstance(head, nn.Linear):
                raise GadConfigError(
                    f"{model_class.__name__} has no linear {LM_HEAD}: it cannot become a discriminator"
                )
            setattr(self, LM_HEAD, nn.Linear(head.in_features, 1, bias=False))

    WithScalarHead.__name__, WithScalarHead.__qualname__ = model_class.__name__, model_class.__qualname__
    WithScalarHead.__module__ = model_class.__module__
    return WithScalarHead


def empty_discriminator(config: Any) -> "PreTrainedModel":
    """A discriminator's architecture without weights.

    Args:
        config: Its configuration, after :func:`prepare_form`.
    """
    with torch.device("meta"):
        return discriminator_form(config).loadable_class._from_config(config, attn_implementation=_PLAIN)


def prepare_form(config: Any) -> DiscriminatorForm:
    """Describe a discriminator: one label, and nothing between head and score. Changes ``config``."""
    form = discriminator_form(config)
    config.num_labels = 1
    if form.is_classifier:
        return form
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
        for name in _OUTPUT_SCALES:
            if hasattr(part, name):
                setattr(part, name, 1.0)
        if getattr(part, _OUTPUT_CAP, None) is not None:
            setattr(part, _OUTPUT_CAP, _NO_CAP)
    return form


def attention_for(model_class: "type[PreTrainedModel]", wanted: str | None) -> str | None:
    """The attention implementation that is asked for, or the nearest that the class has.

    Args:
        model_class: Class of transformers.
        wanted: ``attn_implementation``: sdpa, flash_attention_2, eager ...
    """
    from transformers.utils import is_kernels_available

    if wanted is None or wanted == _PLAIN:
        return wanted
    if "flash" in wanted:
        # Some classes work with kernels from a hub alone.
        own = getattr(model_class, "_compatible_flash_implementations", None)
        if model_class._supports_flash_attn and (own is None or wanted in own or is_kernels_available()):
            return wanted
    elif wanted != _TORCH:
        return wanted
    return _TORCH if model_class._supports_sdpa else _PLAIN


def set_attention(config: Any) -> None:
    """Let a discriminator attend by what its class has (gpt-oss has no SDPA). Changes ``config``."""
    wanted = config._attn_implementation
    found = attention_for(discriminator_form(config).model_class, wanted)
    if found != wanted:
        logger.warning(
            "the family %s has no attention %s: the discriminator takes %s", config.model_type, wanted, found
        )
        config._attn_implementation = found
