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
"""Seconds by formula: closed forms, and what must hold whatever the figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gad_verl.core.gating import UpdateGate
from gad_verl.core.schedule import Phase
from gad_verl.tools.estimate import run_estimate, timing
from gad_verl.tools.estimate.adapters import Adapters
from gad_verl.tools.estimate.gpus import GIB, GPUS
from gad_verl.tools.estimate.ranges import Range, hidden_behind, total
from gad_verl.tools.estimate.roles import Layout, Role
from gad_verl.tools.estimate.rollout import Rollout
from gad_verl.tools.estimate.run_settings import read_settings
from gad_verl.tools.estimate.shape import find_shape
from gad_verl.tools.estimate.timing import Assumptions, Lengths

GPU = GPUS["h100-80g"]
SHAPE = find_shape("Qwen/Qwen2.5-7B-Instruct", "key")
ONE = Range.exact(1.0)
# Every share 1 and no overhead: what is left is the formula.
IDEAL = Assumptions(
    mfu=ONE,
    mfu_experts=ONE,
    decode_bandwidth=ONE,
    decode_overhead=Range.exact(0.0),
    link=Range.exact(1e30),
    host_link=Range.exact(1e30),
    disk=Range.exact(1e9),
    weight_sync=Range.exact(1e30),
)
LENGTHS = Lengths(Range.exact(200), Range.exact(400), Range.exact(400), "given")
WITH_DISCRIMINATOR = (Phase.DISCRIMINATOR_ONLY, Phase.WARMUP, Phase.ADVERSARIAL)
PAGE = Path(__file__).parents[2] / "docs" / "estimate.md"
PAPER = (
    "gad=paper",
    "actor_rollout_ref.model.path=Qwen/Qwen2.5-14B-Instruct",
    "trainer.nnodes=2",
    "trainer.n_gpus_per_node=8",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
)

positive = st.floats(1e-3, 1e6)
ranges = st.tuples(positive, positive).map(lambda pair: Range(min(pair), max(pair)))


@given(ranges, ranges, st.floats(0, 1), st.floats(0, 1))
def test_a_range_holds_whatever_its_parts_may_be(a: Range, b: Range, at: float, bt: float) -> None:
    x, y = a.low + at * (a.high - a.low), b.low + bt * (b.high - b.low)
    slack = 1e-9

    def holds(found: Range, value: float) -> bool:
        return found.low * (1 - slack) <= value <= found.high * (1 + slack)

    assert holds(a + b, x + y) and holds(a * b, x * y) and holds(a.over(b), x / y)
    assert holds(total([a, b, a]), 2 * x + y)
    assert holds(hidden_behind(a, b), max(x, y)) and holds(hidden_behind(a, b), x + y)
    assert a.middle**2 == pytest.approx(a.low * a.high)


def test_a_range_is_ordered() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Range(2.0, 1.0)
    assert total([]) == Range.exact(0.0)


def role(**settings: Any) -> Role:
    return Role("student", SHAPE, Layout("fsdp", 8, shards=8), **settings)


def test_a_pass_takes_its_multiply_adds_over_the_peak() -> None:
    tokens = 600
    work = SHAPE.layers * SHAPE.active_matrices + SHAPE.embedding_parameters
    attention = 2 * SHAPE.layers * SHAPE.query_width * tokens**2 / 2
    expected = 2 * 3 * 100 * (work * tokens + attention) / (8 * GPU.flops)
    found = timing.pass_seconds(role(), 100, Range.exact(tokens), 3, GPU, IDEAL)
    assert found.low == pytest.approx(expected) and found.high == pytest.approx(expected)


def test_an_update_is_three_passes_and_checkpointing_one_more() -> None:
    assert timing.update_passes(role(checkpointing=False)) == 3
    assert timing.update_passes(role()) == 4
    # A frozen model makes no gradients of its weights.
    adapted = Adapters(8)
    assert timing.update_passes(role(checkpointing=False, adapters=adapted)) == 2
    assert timing.update_passes(role(adapters=adapted)) == 3


@given(st.integers(1, 64), st.floats(16, 4096), st.floats(0.01, 1))
def test_seconds_grow_with_rows_and_tokens_and_shrink_with_speed(rows: int, tokens: float, mfu: float) -> None:
    assume = replace(IDEAL, mfu=Range.exact(mfu))
    base = timing.pass_seconds(role(), rows, Range.exact(tokens), 4, GPU, assume).low
    assert timing.pass_seconds(role(), 2 * rows, Range.exact(tokens), 4, GPU, assume).low == pytest.approx(2 * base)
    # Attention grows with the square.
    assert timing.pass_seconds(role(), rows, Range.exact(2 * tokens), 4, GPU, assume).low > 2 * base
    slower = replace(assume, mfu=Range.exact(mfu / 2))
    assert timing.pass_seconds(role(), rows, Range.exact(tokens), 4, GPU, slower).low == pytest.approx(2 * base)


def test_fsdp_gathers_in_each_pass_and_scatters_gradients() -> None:
    speed = replace(IDEAL, mfu=Range.exact(1e9), mfu_experts=Range.exact(1e9), link=Range.exact(1e9))
    count = SHAPE.language_model_parameters
    tokens = Range.exact(1000)
    # 8 replicas with 32 rows each: two micro-batches of 16,000 tokens.
    trained = timing.pass_seconds(role(micro_tokens=16000), 256, tokens, 4, GPU, speed).high
    assert trained == pytest.approx(2 * (3 * 2 * count + 4 * count) / 1e9, rel=1e-3)
    scored = timing.pass_seconds(role(micro_tokens=16000), 256, tokens, 1, GPU, speed).high
    assert scored == pytest.approx(2 * 2 * count / 1e9, rel=1e-3)


def test_what_lives_on_the_host_is_uploaded_for_each_gathering() -> None:
    speed = replace(IDEAL, mfu=Range.exact(1e9), host_link=Range.exact(1e9))
    count = SHAPE.language_model_parameters

    def seconds(passes: int, **settings: Any) -> float:
        host = role(micro_tokens=16000, always_on_host=True, param_offload=True, optimizer_offload=True, **settings)
        # It is never woken up as a whole.
        assert timing.offload_seconds(host, True, speed) == Range.exact(0.0)
        # Two micro-batches of 16,000 tokens.
        return timing.pass_seconds(host, 256, Range.exact(1000), passes, GPU, speed).high

    assert seconds(1) == pytest.approx(2 * 4 * count / 8 / 1e9, rel=1e-3)
    # Three gatherings, and the gradients back.
    assert seconds(4) == pytest.approx(2 * (3 * 4 + 4) * count / 8 / 1e9, rel=1e-3)


def test_layers_that_stay_gathered_are_gathered_once() -> None:
    speed = replace(IDEAL, mfu=Range.exact(1e9), link=Range.exact(1e9))
    count = SHAPE.language_model_parameters
    found = timing.pass_seconds(role(micro_tokens=16000, keeps_gathered=True), 256, Range.exact(1000), 4, GPU, speed)
    assert found.high == pytest.approx(2 * (2 * count + 4 * count) / 1e9, rel=1e-3)


def rollout(**settings: Any) -> Rollout:
    figures = {
        "name": "vllm",
        "shape": SHAPE,
        "tensor": 1,
        "pipeline": 1,
        "data": 1,
        "gpus": 8,
        "memory_share": 0.5,
        "sleeps": True,
        "element": 2,
        "max_sequences": 64,
        "shares_prefixes": True,
    }
    return Rollout(**(figures | settings))


def generate(cache: float = 1e12, **settings: Any) -> Range:
    engine = rollout(**settings)
    return timing.generation_seconds(engine, Range.exact(cache), 64, 8, LENGTHS, 400, GPU, IDEAL)


def test_generation_reads_the_weights_once_for_each_token_of_all_sequences() -> None:
    # 512 sequences on 8 engines: 64 at once, 400 steps, at best.
    mean_context = 200 + 400 / 2
    read = 2 * SHAPE.language_model_parameters + 64 * mean_context * 2 * SHAPE.layers * SHAPE.kv_width * 2
    prefill = 2 * 64 * 200 * SHAPE.layers * SHAPE.active_matrices / (8 * GPU.flops)
    found = generate()
    assert found.low == pytest.approx(prefill + 400 * read / GPU.bandwidth, rel=1e-6)
    # At worst the last response begins when all others are done.
    assert found.high == pytest.approx(prefill + 800 * read / GPU.bandwidth, rel=1e-6)


def test_generation_is_slower_with_fewer_sequences_at_once_and_without_shared_prompts() -> None:
    assert generate(max_sequences=16).low > generate().low
    assert generate(cache=600 * 8).low > generate().low
    assert generate(shares_prefixes=False).low > generate().low
    assert generate(tensor=2, gpus=16).low < generate().low


def test_each_gpu_reads_its_own_weights_and_keys() -> None:
    # A replica reads all weights.
    assert generate(data=8) == generate()
    # 512 sequences on one engine, 64 at once. Of 4 heads of keys on 8 GPUs, each GPU has a whole one.
    prefill = 2 * 64 * 200 * SHAPE.layers * SHAPE.active_matrices / (8 * GPU.flops)
    keys = 64 * (200 + 400 / 2) * 2 * SHAPE.layers * SHAPE.head_dim * 2
    read = 2 * SHAPE.language_model_parameters / 8 + keys
    assert generate(tensor=8).low == pytest.approx(prefill + 3200 * read / GPU.bandwidth, rel=1e-6)


def test_of_experts_generation_reads_those_that_are_visited() -> None:
    moe = find_shape("Qwen/Qwen3-30B-A3B", "key")
    experts = 2 * moe.layers * moe.expert_matrices
    dense = 2 * moe.language_model_parameters - experts

    def read(sequences: float, **settings: Any) -> float:
        engine = rollout(shape=moe, **settings)
        return engine.weight_bytes(timing._experts_visited(engine, sequences))

    assert read(1) == pytest.approx(dense + experts * 8 / 128)
    assert read(1000) == pytest.approx(dense + experts)
    # Four replicas visit more experts together, and share them.
    assert read(1, data=4) == pytest.approx(dense + experts * (1 - (1 - 8 / 128) ** 4) / 4)


@pytest.mark.parametrize(
    ("steps", "every", "count"), [(100, 50, 2), (101, 50, 3), (10, 50, 1), (10, -1, 0), (50, 50, 1)]
)
def test_a_run_saves_every_so_many_steps_and_at_its_end(steps: int, every: int, count: int) -> None:
    assert run_estimate.saves_of(steps, every) == count


@pytest.fixture(scope="module")
def paper(compose_config: Any) -> Any:
    """The 14B student of the paper on 16 GPUs."""
    return read_settings(compose_config("gad_trainer", *PAPER))


def test_a_step_is_the_sum_of_its_stages(paper: Any) -> None:
    found = run_estimate.estimate(paper, GPU, lengths=LENGTHS, rows=192_014)
    assert found.run.steps == {Phase.DISCRIMINATOR_ONLY: 10, Phase.WARMUP: 740, Phase.ADVERSARIAL: 1500}
    seconds = sum(total(found.stages[phase].values()).low * count for phase, count in found.run.steps.items())
    assert found.run.hours.low == pytest.approx((seconds + found.run.checkpoint_seconds.low) / 3600)
    assert set(found.stages[Phase.DISCRIMINATOR_ONLY]) < set(found.stages[Phase.WARMUP])
    supervised = found.stages[Phase.WARMUP]["student update"].low
    assert supervised < found.stages[Phase.ADVERSARIAL]["student update"].low / 4


def test_one_pass_costs_half_of_the_public_scheme(paper: Any) -> None:
    """4 (n + 1) / n over 9 forwards, with checkpointing, at equal lengths: docs/performance.md."""
    seconds = {
        scheme: run_estimate.estimate(paper, GPU, IDEAL, LENGTHS, scheme=scheme)
        .stages[Phase.ADVERSARIAL]["discriminator update"]
        .low
        for scheme in run_estimate.SCHEMES
    }
    assert seconds["one_pass"] / seconds["public"] == pytest.approx(4 * 9 / 8 / 9, rel=1e-6)


def test_groups_that_fill_no_micro_batch_cost_a_pass_more(paper: Any) -> None:
    assert run_estimate.discriminator_passes(paper, LENGTHS) == Range.exact(4)
    short = replace(paper, discriminator=replace(paper.discriminator, micro_tokens=4096))
    assert run_estimate.discriminator_passes(short, LENGTHS) == Range.exact(5)


def _of_discriminator(run: Any, phase: Phase, **updates: Any) -> Range:
    alone = updates.pop("alone", run.gad.discriminator_only_updates)
    updates = replace(run.gad.discriminator_updates, **updates)
    gad = replace(run.gad, discriminator_updates=updates, discriminator_only_updates=alone)
    found = run_estimate.estimate(replace(run, gad=gad), GPU, IDEAL, LENGTHS)
    return found.stages[phase]["discriminator update"]


@given(k=st.integers(1, 6), every=st.integers(1, 5), alone=st.integers(1, 20))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_updates_of_the_discriminator_are_counted_as_the_trainer_counts_them(
    paper: Any, k: int, every: int, alone: int
) -> None:
    """A forward pass is a quarter of an update, with checkpointing."""
    once = {phase: _of_discriminator(paper, phase, alone=1).low for phase in WITH_DISCRIMINATOR}
    told = {
        phase: _of_discriminator(paper, phase, updates_per_step=k, every_steps=every, alone=alone).low
        for phase in WITH_DISCRIMINATOR
    }
    assert told[Phase.DISCRIMINATOR_ONLY] == pytest.approx(alone * once[Phase.DISCRIMINATOR_ONLY])
    assert told[Phase.WARMUP] == pytest.approx(once[Phase.WARMUP])
    adversarial = once[Phase.ADVERSARIAL]
    assert told[Phase.ADVERSARIAL] == pytest.approx((k + (every - 1) / 4) / every * adversarial)
    frozen = _of_discriminator(paper, Phase.ADVERSARIAL, updates_per_step=k, every_steps=every, frozen=True)
    assert frozen.low == frozen.high == pytest.approx(adversarial / 4)
    # How often the accuracy holds it back is not known before.
    held = _of_discriminator(paper, Phase.ADVERSARIAL, updates_per_step=k, accuracy_below=0.8)
    assert held.low == pytest.approx(adversarial / 4) and held.high == pytest.approx(k * adversarial)


def test_the_estimate_counts_what_the_gate_lets_through(paper: Any) -> None:
    updates = replace(paper.gad.discriminator_updates, every_steps=3, updates_per_step=2)
    gate = UpdateGate(updates.gate_options())
    counts = []
    for _ in range(30):
        counts.append(gate.updates())
        gate.observe(0.7)
    share = run_estimate.share_of_updates(replace(paper.gad, discriminator_updates=updates), Phase.ADVERSARIAL)
    assert share == Range.exact(sum(count > 0 for count in counts) / 30) and set(counts) == {0, 2}


def test_the_published_run_lies_within_a_factor_of_two(paper: Any) -> None:
    """About 30 h on 16 H100 for the 14B student (arXiv 2511.10643); its lengths are assumed (docs/estimate.md)."""
    published = 30.0
    lengths = Lengths(Range.exact(130), Range(215, 430), Range(215, 430), "assumed")
    for scheme in run_estimate.SCHEMES:
        hours = run_estimate.estimate(paper, GPU, lengths=lengths, rows=192_014, scheme=scheme).run.hours
        assert hours.low <= published <= hours.high
        assert published / 2 <= hours.middle <= published * 2
        row = f"| {hours.low:.1f} to {hours.high:.1f} | {hours.middle:.1f} | {hours.middle / published:.2f} |"
        assert row in PAGE.read_text(encoding="utf-8")


def test_length_of_a_run_is_open_without_rows(paper: Any) -> None:
    assert run_estimate.estimate(paper, GPU).run is None
    known = replace(paper, total_steps=100, gad=replace(paper.gad, warmup_steps=40))
    assert run_estimate.estimate(known, GPU).run.steps[Phase.ADVERSARIAL] == 60


def test_what_does_not_fit_is_said_with_the_settings_that_help(paper: Any) -> None:
    small = replace(GPU, memory=40 * GIB)
    texts = run_estimate.estimate(paper, small).warnings
    assert any(text.startswith("rollout") and "optimizer_offload=True" in text for text in texts)
    assert any("discriminator.ppo_max_token_len_per_gpu (now 32768)" in text for text in texts)
    tiny = replace(GPU, memory=10 * GIB)
    assert any("weights take" in text for text in run_estimate.estimate(paper, tiny).warnings)
    large = replace(GPU, memory=400 * GIB)
    assert run_estimate.estimate(paper, large).warnings == []
