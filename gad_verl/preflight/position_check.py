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
"""How long a row a model reads, and what happens to one that is longer.

Three parts of a run read rows: the rollout, the student's engine and the discriminator. What lies beyond the positions
of a model ends the run where a server of verl or a table of positions has no more; rotary positions go on, untrained;
and some models have no positions at all (a slope of attention, or a memory).
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.errors import GadConfigError

STUDENT = "actor_rollout_ref.model"
_ANSWER = "gad.max_answer_length"
# verl's servers of these give the engine max_position_embeddings as its limit, and start with nothing else.
_SERVERS = ("vllm", "sglang")
# What models call the number of their positions: most of them, and MPT.
_NAMES = ("max_position_embeddings", "max_seq_len")
# Models of transformers without rotary positions that read longer rows all the same: they have no positions, or
# compute more of them. tests/preflight/test_positions_on_cpu.py runs each of them.
_GO_ON = ("bloom", "nemotron_h", "xglm")
# Rotary positions that count the factor of their stretching in already.
_COUNTED_IN = ("default", "llama3", "longrope", "su")


@dataclass(frozen=True)
class Positions:
    """What a model reads.

    Args:
        limit: The longest row, in tokens; None where nothing limits it or its configuration does not say it.
        name: Of that number in config.json.
        ends_run: Whether a longer row ends the run; else it is read, untrained.
    """

    limit: int | None
    name: str = _NAMES[0]
    ends_run: bool = False


@dataclass(frozen=True)
class RowFinding:
    """What came of the look at the longest row.

    Args:
        positions: Of the model.
        text: In words.
        warning: Whether the longest row is longer than what the model was trained on.
    """

    positions: Positions
    text: str
    warning: bool


def positions_of(config: DictConfig, key: str, hf_config: Any) -> Positions:
    """What a model reads in a run.

    Args:
        config: The run.
        key: Of the model in it.
        hf_config: transformers' configuration of its texts.
    """
    name = next((name for name in _NAMES if isinstance(getattr(hf_config, name, None), int)), None)
    if name is None:
        return Positions(None)
    positions = int(getattr(hf_config, name))
    if key == STUDENT and config.actor_rollout_ref.rollout.name in _SERVERS:
        # They do not count that positions are stretched; everything else does.
        return Positions(positions, name, ends_run=True)
    if hf_config.model_type in _GO_ON:
        return Positions(None)
    rotary = _rotary(hf_config)
    return Positions(_stretched(positions, rotary, hf_config), name, ends_run=not rotary)


def longest_row(config: DictConfig, key: str) -> tuple[int, str]:
    """Tokens of the longest row that a model reads, and the limits that they come from, in words.

    Args:
        config: The whole configuration.
        key: Of the model: the discriminator reads answers alone, where thoughts are hidden.
    """
    data, response = config.data, "data.max_response_length"
    if key != STUDENT and OmegaConf.select(config, _ANSWER) is not None:
        response = _ANSWER
    limit = int(OmegaConf.select(config, response))
    longest = data.max_prompt_length + limit
    return longest, f"data.max_prompt_length + {response} = {data.max_prompt_length} + {limit} = {longest}"


def check_rows(config: DictConfig, key: str, hf_config: Any) -> RowFinding:
    """Check the longest row of a run, and the context of its rollout, against what a model reads.

    Raises:
        GadConfigError: The run would end; names the key, the sizes and the remedy.
    """
    rollout = config.actor_rollout_ref.rollout
    found = positions_of(config, key, hf_config)
    if key == STUDENT and rollout.name in _SERVERS:
        _check_server(rollout, hf_config)
    longest, text = longest_row(config, key)
    if found.limit is None:
        return RowFinding(found, f"{text}, and {key} reads rows of any length", warning=False)
    reads = f"{key} reads {found.limit} tokens ({found.name} in its config.json)"
    if longest <= found.limit:
        return RowFinding(found, f"{text}, {reads}", warning=False)
    if found.ends_run:
        raise GadConfigError(f"{text}, but {reads}: lower the limits, or take another model")
    return RowFinding(
        found, f"{text}, but {reads}: what lies beyond them in a row it has never seen; lower the limits", warning=True
    )


def _check_server(rollout: DictConfig, hf_config: Any) -> None:
    """What verl's server asks of the student before it starts the engine, and the engine when it starts."""
    positions, limit = getattr(hf_config, _NAMES[0], None), rollout.get("max_model_len", None)
    if not isinstance(positions, int):
        raise GadConfigError(
            f"actor_rollout_ref.rollout.name={rollout.name}: verl's server reads {_NAMES[0]} in the config.json of "
            f"{STUDENT}, and a {hf_config.model_type} has none: set actor_rollout_ref.rollout.name=hf, or take another "
            "model"
        )
    if limit is not None and limit > positions:
        raise GadConfigError(
            f"actor_rollout_ref.rollout.max_model_len={limit} is more than the {positions} positions of {STUDENT} "
            f"({_NAMES[0]} in its config.json): set it to at most {positions}, or to null"
        )
    # vLLM counts from what the positions were stretched from, verl from what the file calls their number.
    engine = _stretched(positions, _rotary(hf_config), hf_config)
    if rollout.name == "vllm" and (limit or positions) > engine:
        raise GadConfigError(
            f"actor_rollout_ref.rollout.max_model_len={limit or 'null'} is more than the {engine} positions of "
            f"{STUDENT} (original_max_position_embeddings times factor in its config.json), and vLLM would not start: "
            f"set it to at most {engine}"
        )


def _rotary(hf_config: Any) -> dict[str, Any]:
    """How positions are rotated; empty where they are not. Of layers that differ, those of whole attention."""
    rotary = getattr(hf_config, "rope_parameters", None) or getattr(hf_config, "rope_scaling", None) or {}
    if any(isinstance(value, dict) for value in rotary.values()):
        rotary = rotary.get("full_attention") or next(iter(rotary.values()))
    if not rotary and getattr(hf_config, "rope_theta", None):
        rotary = {"rope_theta": hf_config.rope_theta}
    return dict(rotary)


def _stretched(positions: int, rotary: dict[str, Any], hf_config: Any) -> int:
    """Positions that a model was made for, as vLLM counts them."""
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    # Gemma 3 gives the number of stretched ones.
    if kind in _COUNTED_IN or "gemma3" in hf_config.model_type:
        return positions
    if kind == "yarn":
        positions = rotary.get("original_max_position_embeddings") or positions
    return int(positions * float(rotary.get("factor") or 1.0))
