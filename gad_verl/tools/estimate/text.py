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
"""The estimate as text and as JSON."""

from gad_verl.record.files import to_json
from gad_verl.tools.estimate import memory
from gad_verl.tools.estimate.gpus import GIB
from gad_verl.tools.estimate.ranges import Range
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.run_estimate import Estimate, counts_passes

_FORMULAS = (
    "parameters, gradients, Adam, activations, KV cache, multiply-adds, bytes moved: from the shapes of the models and "
    "the configuration"
)


def _span(value: Range, digits: int = 0) -> str:
    low, high = f"{value.low:,.{digits}f}", f"{value.high:,.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _seconds(value: Range) -> str:
    return _span(value, 0 if value.low >= 10 else 1)


def _gib(value: Range) -> str:
    return _span(value * (1 / GIB), 1)


def _role(role: Role) -> str:
    layout = role.layout
    if layout.engine == "megatron":
        place = (
            f"Megatron, tensor {layout.tensor}, pipeline {layout.pipeline}, context {layout.sequence}, experts "
            f"{layout.experts}" + (f" x tensor {layout.expert_tensor or layout.tensor}" if role.shape.experts else "")
        )
    else:
        place = f"FSDP over {layout.shards}" + (f", sequence parallel {layout.sequence}" if layout.sequence > 1 else "")
    count = f"{role.parameters / 1e9:.2f} billion parameters"
    if role.shape.experts:
        count += f" ({role.shape.active_parameters / 1e9:.2f} active)"
    if role.has_adapters:
        count += f", {role.trained_parameters / 1e6:.1f} million trained (LoRA)"
    return f"{role.shape.name}, {count}; {place}"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def _assumptions(found: Estimate) -> list[tuple[str, str]]:
    assume = found.assumptions
    roles = found.settings.roles
    student = found.settings.student
    return [
        *dict.fromkeys(
            (
                f"share of the peak in training and scoring (MFU){', experts' if role.shape.experts else ''}",
                _span(assume.mfu_of(role), 2),
            )
            for role in roles
        ),
        ("share of the memory's bandwidth in generation", _span(assume.decode_bandwidth, 2)),
        ("between GPUs, GB/s", _span(assume.link * 1e-9)),
        ("between GPU and host, GB/s", _span(assume.host_link * 1e-9)),
        ("mean tokens: prompt", _span(found.lengths.prompt)),
        ("mean tokens: response", _span(found.lengths.response)),
        ("mean tokens: teacher's text", _span(found.lengths.teacher)),
        ("lengths", found.lengths.source),
        ("CUDA and libraries, GiB", _span(memory.LIBRARIES * (1 / GIB))),
        ("fragmentation", f"none to {memory.FRAGMENTATION.high - 1:.0%} of what a step allocates"),
        (
            "copies of the logits that live at once",
            f"update {_span(memory.trained_logits(student))}, scoring {_span(memory.SCORED_LOGITS)}",
        ),
    ]


def _missing_length(found: Estimate) -> str:
    if counts_passes(found.settings):
        return "give --rows: a part of the run is counted in passes over them"
    return "give --rows, or trainer.total_training_steps"


def render(found: Estimate) -> str:
    """The estimate as text."""
    settings, gpu = found.settings, found.gpu
    lines = [f"{settings.gpus + settings.own_pool} x {gpu.name}, {gpu.memory / GIB:.0f} GiB each"]
    lines += _table([(role.name, _role(role)) for role in settings.roles])
    lines += ["", "Memory of one GPU, GiB"]
    for phase in found.phases:
        place = " (its own pool)" if phase.own_pool else ""
        lines.append(f"  {phase.name}{place}: {_gib(phase.total)}")
        lines += [f"    {name}: {_gib(size)}" for name, size in phase.parts.items()]
    if found.room is not None:
        lines.append(
            f"  rollout's cache: {_span(found.room.cache_tokens * 1e-3)} thousand tokens an engine, "
            f"{_span(found.room.longest_sequences)} sequences of full length at once"
        )
    if found.host > 0:
        lines.append(f"  memory of the host for what is offloaded: {found.host / GIB:.0f} GiB a node")
    lines += ["", "Seconds of a step"]
    for phase, stages in found.stages.items():
        lines.append(f"  {phase.name.lower().replace('_', ' ')}: {_seconds(sum(stages.values(), Range.exact(0.0)))}")
        lines += [f"    {name}: {_seconds(seconds)}" for name, seconds in stages.items()]
    lines.append("")
    if found.run is None:
        lines.append(f"Whole run: its length is not known; {_missing_length(found)}")
    else:
        steps = ", ".join(f"{count} {phase.name.lower().replace('_', ' ')}" for phase, count in found.run.steps.items())
        lines.append(
            f"Whole run: {_span(found.run.hours, 1)} hours ({steps} steps; validation and start-up not counted; "
            f"{_span(found.run.checkpoint_seconds * (1 / 3600), 1)} hours of it for checkpoints)"
        )
    lines += [f"One checkpoint: {found.checkpoint / 1e9:.0f} GB", "", f"Formulas: {_FORMULAS}.", "Assumptions:"]
    lines += _table(_assumptions(found))
    lines += [f"\nwarning: {text}" for text in found.warnings]
    return "\n".join(lines) + "\n"


def as_json(found: Estimate) -> str:
    """The estimate as JSON: bytes and seconds, every range with its ends ``low`` and ``high``."""
    run = found.run
    content = {
        "gpu": found.gpu,
        "gpus": found.settings.gpus + found.settings.own_pool,
        "models": {
            role.name: {
                "shape": role.shape.name,
                "parameters": role.parameters,
                "trained": role.trained_parameters,
                "active": role.shape.active_parameters,
            }
            for role in found.settings.roles
        },
        "memory": [{"total": phase.total, **vars(phase)} for phase in found.phases],
        "host": found.host,
        "seconds": {phase.name.lower(): stages for phase, stages in found.stages.items()},
        "run": run and {"hours": run.hours, "steps": {phase.name.lower(): count for phase, count in run.steps.items()}},
        "checkpoint": found.checkpoint,
        "assumptions": found.assumptions,
        "lengths": found.lengths,
        "warnings": found.warnings,
    }
    return to_json(content)
