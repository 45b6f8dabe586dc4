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
"""The shape of a decoder: what a model's config.json says, and how many parameters follow from it.

Exact for the families listed in ``FAMILIES`` (tests compare with transformers' own modules); others are refused: a
wrong count would be believed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral")

_TABLE = "known_models.json"
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
# Of transformers' models with images: those that tie where nothing is said, and those that ask the text's part, too.
_TIE = (
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "got_ocr2",
    "internvl",
    "janus",
    "lighton_ocr",
    "mistral3",
    "ovis2",
    "pp_chart2table",
)
_ASK_TEXT = ("fast_vlm", "llava", "llava_next_video", "llava_onevision", "video_llama_3")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder with gated feed-forward layers.

    Args:
        name: Whose shape it is, for texts.
        hidden: Width of the residual stream.
        layers: Number of layers.
        heads, kv_heads, head_dim: Of attention.
        intermediate: Width of a dense feed-forward layer; 0 in a mixture of experts.
        vocab: Rows of the embedding.
        tied: Whether the head is the embedding.
        qkv_bias, output_bias, mlp_bias: Whether these projections have a bias.
        qk_norm: Whether queries and keys are normed, over head_dim.
        experts: Experts of a layer; 0 in a dense model.
        active_experts: Experts that a token visits.
        expert_intermediate: Width of an expert.
        expert_names: What the family calls an expert's gate, up and down projection.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    expert_names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads."""
        return self.kv_heads * self.head_dim

    @property
    def attention_matrices(self) -> int:
        """Parameters of the projections of one attention layer, without biases."""
        return 2 * self.hidden * (self.query_width + self.kv_width)

    @property
    def expert_matrices(self) -> int:
        """Parameters of all experts of a layer; 0 in a dense model."""
        return self.experts * 3 * self.hidden * self.expert_intermediate

    @property
    def feed_forward_matrices(self) -> int:
        """Parameters of the feed-forward part of one layer, router included, without biases."""
        if self.experts:
            return self.hidden * self.experts + self.expert_matrices
        return 3 * self.hidden * self.intermediate

    @property
    def active_matrices(self) -> int:
        """Matrix parameters of one layer that a token passes."""
        if not self.experts:
            return self.attention_matrices + self.feed_forward_matrices
        visited = self.active_experts * 3 * self.hidden * self.expert_intermediate
        return self.attention_matrices + self.hidden * self.experts + visited

    @property
    def layer_parameters(self) -> int:
        """All parameters of one layer."""
        biases = (
            self.qkv_bias * (self.query_width + 2 * self.kv_width)
            + self.output_bias * self.hidden
            + self.mlp_bias * (2 * self.intermediate + self.hidden)
        )
        norms = 2 * self.hidden + self.qk_norm * 2 * self.head_dim
        return self.attention_matrices + self.feed_forward_matrices + biases + norms

    @property
    def embedding_parameters(self) -> int:
        """Of the embedding alone."""
        return self.vocab * self.hidden

    @property
    def body_parameters(self) -> int:
        """Embedding, layers and the last norm: what student and discriminator have in common."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def language_model_parameters(self) -> int:
        """As a language model (the student)."""
        return self.body_parameters + (0 if self.tied else self.embedding_parameters)

    @property
    def discriminator_parameters(self) -> int:
        """With a scalar head and its bias, as ``...ForTokenClassification``."""
        return self.body_parameters + self.hidden + 1

    @property
    def active_parameters(self) -> int:
        """Of the language model, those that a token passes (the embedding is looked up, the head is multiplied)."""
        return self.layers * self.active_matrices + self.embedding_parameters

    def cut_to(self, layers: int | None) -> "ModelShape":
        """The first layers alone (``gad.discriminator_num_layers``); None keeps all."""
        if layers is None:
            return self
        return ModelShape(**{**vars(self), "layers": min(layers, self.layers)})


def shape_of_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a config.json describes.

    Args:
        config: Its content.
        name: Whose it is, for errors.

    Raises:
        GadConfigError: If the family is not known, or a figure is missing or none.
    """
    config, tied = _language_model(config, name)
    family = str(config.get("model_type", ""))
    if family not in FAMILIES:
        raise GadConfigError(
            f"{name}: model_type {family!r} is not among the families that can be estimated ({', '.join(FAMILIES)})"
        )
    missing = [key for key in _NEEDED if not _is_count(config.get(key))]
    if missing:
        raise GadConfigError(f"{name}: config.json lacks {', '.join(missing)}, or they are no numbers above 0")
    heads = config["num_attention_heads"]
    is_moe = family in ("qwen3_moe", "mixtral")
    if family == "qwen3_moe" and (config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1):
        raise GadConfigError(f"{name}: a mixture of experts with dense layers between cannot be estimated")
    attention_bias = bool(config.get("attention_bias", False))
    experts, active, width = _experts(config, family, name) if is_moe else (0, 0, 0)
    return ModelShape(
        name=name,
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", name, heads),
        head_dim=_count(config, "head_dim", name, config["hidden_size"] // heads),
        intermediate=0 if is_moe else _count(config, "intermediate_size", name),
        vocab=config["vocab_size"],
        tied=tied,
        qkv_bias=family == "qwen2" or attention_bias,
        output_bias=attention_bias and family in ("llama", "qwen3", "qwen3_moe"),
        mlp_bias=bool(config.get("mlp_bias", False)) and family == "llama",
        qk_norm=family in ("qwen3", "qwen3_moe"),
        experts=experts,
        active_experts=active,
        expert_intermediate=width,
        expert_names=("w1", "w3", "w2") if family == "mixtral" else ("gate_proj", "up_proj", "down_proj"),
    )


def _language_model(config: Any, name: str) -> tuple[Mapping[str, Any], bool]:
    """Of a family with images, its language model; and whether its head is the embedding."""
    if not isinstance(config, Mapping):
        raise GadConfigError(f"{name}: config.json holds no object of names and values")
    text = config.get("text_config")
    if not text:
        # transformers' own default is True, Qwen's and Llama's is False: families differ only in what they write.
        return config, bool(config.get("tie_word_embeddings", False))
    if not isinstance(text, Mapping):
        raise GadConfigError(f"{name}: text_config in config.json is no object of names and values")
    family = config.get("model_type")
    tied = bool(config.get("tie_word_embeddings", family in _TIE))
    return text, tied or (family in _ASK_TEXT and bool(text.get("tie_word_embeddings", False)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(config: Mapping[str, Any], key: str, name: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not _is_count(value):
        raise GadConfigError(f"{name}: config.json lacks {key}, or it is no number above 0")
    return value


def _experts(config: Mapping[str, Any], family: str, name: str) -> tuple[int, int, int]:
    """Experts of a layer, those that a token visits, and their width."""
    key = "num_local_experts" if family == "mixtral" else "num_experts"
    # transformers 5 writes num_local_experts for both.
    counts = (
        config.get(key) or config.get("num_local_experts"),
        config.get("num_experts_per_tok"),
        config.get("intermediate_size" if family == "mixtral" else "moe_intermediate_size"),
    )
    if not all(map(_is_count, counts)):
        raise GadConfigError(f"{name}: config.json lacks the number of experts, of active ones, or their width")
    experts, active, width = map(int, counts)
    return experts, active, width


def known_models() -> dict[str, dict[str, Any]]:
    """Published configuration figures of the students of the recipes and their relatives, by repository name."""
    return json.loads((files("gad_verl.tools.estimate") / _TABLE).read_text(encoding="utf-8"))["models"]


def _base_name(path: str) -> str:
    """``Qwen/Qwen2.5-7B-Instruct`` or ``/models/Qwen2.5-7B-Instruct`` as ``qwen2.5-7b``."""
    name = path.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for ending in ("-instruct-2507", "-instruct", "-base"):
        name = name.removesuffix(ending)
    return name


def find_shape(path: str, key: str) -> ModelShape:
    """The shape of a model that is named in a configuration, from its folder or from the table.

    Args:
        path: A folder with a config.json, or the name of a repository. Nothing is downloaded.
        key: The configuration key that named it, for errors.

    Raises:
        GadConfigError: If neither has it; lists what the table has.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        file = folder / "config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise GadConfigError(f"{key}={path}: the folder has no config.json") from None
        except ValueError as error:
            raise GadConfigError(f"{key}={path}: config.json is not readable: {error}") from None
        return shape_of_config(content, str(path))
    models = known_models()
    for name, content in models.items():
        if _base_name(path) == _base_name(name):
            return shape_of_config(content, name)
    raise GadConfigError(
        f"{key}={path} is no folder here and not among the known models ({', '.join(models)}); nothing is downloaded: "
        "give a folder with its config.json"
    )
