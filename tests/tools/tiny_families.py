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
"""Tiny random models of the families that people train: two layers, 0.03 million parameters. Nothing is downloaded.

Each family keeps what is its own (kinds of layers, experts, a head that is the embedding, dropouts that are on);
windows of attention are shorter than the texts of the tests, so that they are seen.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny_model import build_tokenizer

WINDOW = 6
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
_SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_MULTI_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 8,
}
_QWEN_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}


@dataclass(frozen=True)
class Family:
    """A family as it is trained.

    Args:
        name: On the page.
        model_type: transformers' name.
        settings: Of its configuration, over the common sizes.
        text: Settings of the text part, where the configuration is nested.
        sized: Whether the common sizes are taken; some families have names of their own.
    """

    name: str
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None
    sized: bool = True


FAMILIES = {
    family.model_type: family
    for family in (
        Family("Llama", "llama", {"tie_word_embeddings": True, "attention_dropout": 0.1}),
        Family(
            "Llama 4 (text)",
            "llama4_text",
            {
                "num_local_experts": 4,
                "intermediate_size_mlp": 48,
                "head_dim": 8,
                "attention_chunk_size": WINDOW,
                "moe_layers": [1],
                "no_rope_layers": [1, 0],
            },
        ),
        Family("Mistral", "mistral", {"sliding_window": WINDOW}),
        Family("Ministral", "ministral", {**_SLIDING, "head_dim": 8}),
        Family("Ministral 3", "ministral3", {"head_dim": 8}),
        Family("Mixtral", "mixtral", _EXPERTS),
        Family("Qwen2", "qwen2", {"tie_word_embeddings": True}),
        Family("Qwen2-MoE", "qwen2_moe", _QWEN_EXPERTS),
        Family("Qwen3", "qwen3", {"head_dim": 8}),
        Family("Qwen3-MoE", "qwen3_moe", {**_QWEN_EXPERTS, "head_dim": 8}),
        Family("Qwen3-Next", "qwen3_next", {**_QWEN_EXPERTS, **_LINEAR}),
        Family(
            "Qwen3.5",
            "qwen3_5",
            {
                "tie_word_embeddings": True,
                "vision_config": {
                    "depth": 1,
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_heads": 2,
                    "out_hidden_size": 32,
                    "patch_size": 4,
                    "num_position_embeddings": 16,
                    "spatial_merge_size": 2,
                    "deepstack_visual_indexes": [],
                },
            },
            text=_LINEAR,
        ),
        Family("Qwen3.5 (text)", "qwen3_5_text", _LINEAR),
        Family("Qwen3.5-MoE (text)", "qwen3_5_moe_text", {**_QWEN_EXPERTS, **_LINEAR}),
        Family("Gemma", "gemma", {"head_dim": 8}),
        Family("Gemma 2", "gemma2", {**_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8}),
        Family(
            "Gemma 3",
            "gemma3",
            {
                "mm_tokens_per_image": 4,
                "vision_config": {
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "image_size": 16,
                    "patch_size": 4,
                },
            },
            text={**_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8},
        ),
        Family("Gemma 3 (text)", "gemma3_text", {**_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8}),
        Family(
            "Gemma 3n (text)",
            "gemma3n_text",
            {
                **_SLIDING,
                "head_dim": 8,
                "laurel_rank": 4,
                "altup_num_inputs": 2,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 259,
                "num_kv_shared_layers": 0,
                "activation_sparsity_pattern": [0.0, 0.0],
            },
        ),
        Family(
            "Gemma 4 (text)",
            "gemma4_text",
            {
                **_SLIDING,
                "head_dim": 8,
                "global_head_dim": 8,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 259,
                "num_kv_shared_layers": 0,
            },
        ),
        Family("Phi", "phi", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "partial_rotary_factor": 0.5}),
        Family("Phi-3", "phi3", {"resid_pdrop": 0.1, "embd_pdrop": 0.1}),
        Family("Phi-3.5-MoE", "phimoe", {**_EXPERTS, "hidden_dropout": 0.1}),
        Family("OLMo", "olmo"),
        Family("OLMo 2", "olmo2", {"attention_dropout": 0.1}),
        Family("OLMo 3", "olmo3", _SLIDING),
        Family("OLMoE", "olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
        Family(
            "Granite",
            "granite",
            {
                "logits_scaling": 8.0,
                "embedding_multiplier": 12.0,
                "attention_multiplier": 0.2,
                "residual_multiplier": 0.3,
                "tie_word_embeddings": True,
            },
        ),
        Family("GraniteMoE", "granitemoe", {**_EXPERTS, "logits_scaling": 8.0}),
        Family(
            "Granite 4 (hybrid)",
            "granitemoehybrid",
            {
                **_EXPERTS,
                "layer_types": ["mamba", "attention"],
                "layers_block_type": ["mamba", "attention"],
                "mamba_n_heads": 4,
                "mamba_d_head": 16,
                "mamba_d_state": 8,
                "mamba_n_groups": 1,
                "mamba_expand": 2,
                "shared_intermediate_size": 24,
                "logits_scaling": 8.0,
            },
        ),
        Family("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
        Family(
            "LFM2-MoE",
            "lfm2_moe",
            {
                "layer_types": ["conv", "full_attention"],
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 24,
                "num_dense_layers": 1,
            },
        ),
        Family("Cohere", "cohere", {"logit_scale": 0.0625, "tie_word_embeddings": True}),
        Family("Cohere 2", "cohere2", {**_SLIDING, "logit_scale": 0.0625, "tie_word_embeddings": True}),
        Family("ERNIE 4.5", "ernie4_5", {"head_dim": 8}),
        Family(
            "ERNIE 4.5 MoE",
            "ernie4_5_moe",
            {
                "moe_num_experts": 4,
                "moe_k": 2,
                "moe_intermediate_size": 24,
                "moe_num_shared_experts": 1,
                "moe_layer_start_index": 1,
            },
        ),
        Family("Hunyuan", "hunyuan_v1_dense", {"head_dim": 8, "tie_word_embeddings": True}),
        Family("Hunyuan MoE", "hunyuan_v1_moe", {"head_dim": 8, "num_experts": 4, "moe_topk": 2}),
        Family("gpt-oss", "gpt_oss", {**_SLIDING, **_EXPERTS, "head_dim": 8}),
        Family("SmolLM3", "smollm3", {"no_rope_layers": [1, 0]}),
        Family("Seed-OSS", "seed_oss", {"head_dim": 8, "residual_dropout": 0.1, "attention_dropout": 0.1}),
        Family("StableLM", "stablelm", {"hidden_dropout": 0.1, "attention_dropout": 0.1}),
        Family(
            "StarCoder2", "starcoder2", {"residual_dropout": 0.1, "embedding_dropout": 0.1, "sliding_window": WINDOW}
        ),
        Family("GLM 4 (glm)", "glm", {"head_dim": 8}),
        Family("GLM4", "glm4", {"head_dim": 8}),
        Family(
            "GLM4-MoE",
            "glm4_moe",
            {
                "head_dim": 8,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 24,
                "n_group": 1,
                "topk_group": 1,
                "first_k_dense_replace": 1,
            },
        ),
        Family("DeepSeek-V2", "deepseek_v2", _MULTI_LATENT),
        Family("DeepSeek-V3", "deepseek_v3", _MULTI_LATENT),
        Family("Nemotron", "nemotron", {"head_dim": 8}),
        Family(
            "Nemotron-H",
            "nemotron_h",
            {
                "head_dim": 8,
                "layers_block_type": ["mamba", "attention"],
                "mamba_num_heads": 4,
                "mamba_head_dim": 8,
                "ssm_state_size": 8,
                "n_groups": 1,
            },
        ),
        Family("EXAONE 4", "exaone4", _SLIDING),
        Family("MiniMax-M2", "minimax_m2", {**_EXPERTS, "head_dim": 8}),
        Family(
            "Falcon",
            "falcon",
            {"num_kv_heads": 2, "new_decoder_architecture": True, "hidden_dropout": 0.1, "ffn_hidden_size": 48},
        ),
        Family(
            "Falcon-H1",
            "falcon_h1",
            {
                "mamba_d_ssm": 32,
                "mamba_n_heads": 4,
                "mamba_d_head": 8,
                "mamba_d_state": 8,
                "mamba_n_groups": 1,
                "head_dim": 8,
            },
        ),
        Family("Arcee", "arcee"),
        Family("Apertus", "apertus"),
        Family("Helium", "helium", {"head_dim": 8}),
        Family("HyperCLOVA X", "hyperclovax", {"logits_scaling": 8.0}),
        Family("Bloom", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.1}, sized=False),
        Family("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.1}),
        Family("GPT-2", "gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, sized=False),
        Family("GPT-NeoX", "gpt_neox", {"hidden_dropout": 0.1, "attention_dropout": 0.1}),
        Family(
            "GPT-J",
            "gptj",
            {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4, "resid_pdrop": 0.1},
            sized=False,
        ),
    )
}


def family_config(family: Family) -> Any:
    """Its configuration, with the ids of the tokenizer of :mod:`tiny_model`."""
    from transformers import AutoConfig

    tokenizer = build_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    plain = AutoConfig.for_model(family.model_type)
    # What a family does not name must not be there: verl's engine reads it.
    sizes = (
        {key: value for key, value in _SIZES.items() if hasattr(plain.get_text_config(), key)} if family.sized else {}
    )
    if family.text is not None:
        return AutoConfig.for_model(
            family.model_type,
            text_config={**sizes, **ids, **family.text},
            **{"eos_token_id": ids["eos_token_id"]},
            **family.settings,
        )
    return AutoConfig.for_model(family.model_type, **{**sizes, **ids, **family.settings})


def build_family(family: Family, folder: Path, seed: int = 0) -> Path:
    """Write a random model of a family with the tokenizer of :mod:`tiny_model`."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(seed)
    config = family_config(family)
    auto = AutoModelForImageTextToText if family.text is not None else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            # Families that begin with zeros or ones would hide what is not read.
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
