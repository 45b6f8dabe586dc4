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
"""What the sections of a configuration say of models and rollout reaches the estimate."""

from collections.abc import Callable
from typing import Any

import pytest

from gad_verl.core.schedule import Phase
from gad_verl.errors import GadConfigError
from gad_verl.tools.estimate import memory
from gad_verl.tools.estimate.gpus import GIB, GPUS
from gad_verl.tools.estimate.phases import PhaseMemory, phase_memory
from gad_verl.tools.estimate.ranges import Range
from gad_verl.tools.estimate.run_estimate import bounded, checkpoint_size, estimate, host_bytes
from gad_verl.tools.estimate.run_settings import RunSettings, read_settings
from gad_verl.tools.estimate.shape import find_shape

GPU = GPUS["h100-80g"]
MODEL = "Qwen/Qwen2.5-7B-Instruct"
COUNT = find_shape(MODEL, "key").language_model_parameters
ACTOR, REF, ROLLOUT = (f"actor_rollout_ref.{name}" for name in ("actor", "ref", "rollout"))
MEGATRON = "gad_megatron_trainer"
STATIC = f"{ACTOR}.use_dynamic_bsz=False"

Read = Callable[..., RunSettings]


@pytest.fixture
def read(compose_config: Any) -> Read:
    """Settings of a 7B student on 8 GPUs."""

    def settings(*overrides: str, name: str = "gad_trainer", model: str = MODEL) -> RunSettings:
        common = (f"actor_rollout_ref.model.path={model}", "trainer.n_gpus_per_node=8")
        return read_settings(compose_config(name, *common, f"{ROLLOUT}.tensor_model_parallel_size=1", *overrides))

    return settings


def phases(settings: RunSettings) -> dict[str, PhaseMemory]:
    return {phase.name: phase for phase in phase_memory(bounded(settings), GPU)}


def test_a_reference_on_megatron_has_parameters_alone(read: Read) -> None:
    here = phases(read(name=MEGATRON))
    assert here["rollout"].parts["reference, resting"].low == pytest.approx(2 * COUNT)
    score = "reference log-probabilities"
    assert here[score].parts["reference, parameters and optimizer"].low == pytest.approx(2 * COUNT)
    away = read(f"{REF}.megatron.param_offload=True", name=MEGATRON)
    assert "reference, resting" not in phases(away)["rollout"].parts
    assert memory.host_bytes(away.reference) == pytest.approx(2 * COUNT)
    # Waking it up takes its time.
    seconds = [
        next(stages[score] for stages in estimate(settings, GPU).stages.values() if score in stages).low
        for settings in (read(name=MEGATRON), away)
    ]
    assert seconds[1] > seconds[0]


def test_a_reference_that_rests_on_the_gpu_has_its_remedy(read: Read) -> None:
    small = GPUS["rtx4090"]
    texts = estimate(read(name=MEGATRON), small).warnings
    assert any(f"{REF}.megatron.param_offload=True" in text for text in texts)
    assert not any(f"{REF}.megatron.optimizer_offload" in text for text in texts)


def test_experts_lie_over_their_own_tensor_parallelism(read: Read) -> None:
    def parameters(*sizes: str) -> float:
        keys = [f"{section}.megatron.{size}" for section in (ACTOR, REF) for size in sizes]
        settings = read(*keys, "trainer.nnodes=2", name=MEGATRON, model="Qwen/Qwen3-30B-A3B")
        return memory.states(settings.student).parameters

    four = ("tensor_model_parallel_size=4", "pipeline_model_parallel_size=1", "expert_model_parallel_size=4")
    shape = find_shape("Qwen/Qwen3-30B-A3B", "key")
    experts = 2 * shape.layers * shape.expert_matrices
    # Megatron takes that of the dense layers where nothing is said.
    assert parameters(*four) == parameters(*four, "expert_tensor_parallel_size=4")
    apart = parameters(*four, "expert_tensor_parallel_size=1")
    assert apart - parameters(*four) == pytest.approx(experts / 4 - experts / 16)


@pytest.mark.parametrize("key", ["ulysses_sequence_parallel_size", "fsdp_config.ulysses_sequence_parallel_size"])
def test_sequence_parallelism_is_read_under_both_of_its_names(read: Read, key: str) -> None:
    settings = read(f"{ACTOR}.{key}=4")
    assert settings.student.layout.sequence == 4 and settings.student.layout.replicas == 2
    # The reference takes over the older name.
    assert settings.reference.layout.sequence == (4 if key.startswith("ulysses") else 1)


def test_rows_of_a_micro_batch_are_shared_by_the_gpus_of_a_sequence(read: Read) -> None:
    rows = (
        STATIC,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        f"{REF}.log_prob_micro_batch_size_per_gpu=4",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=4",
    )
    plain = read(*rows)
    longest = plain.max_prompt + plain.max_response
    shared = read(*rows, f"{ACTOR}.ulysses_sequence_parallel_size=4")
    assert plain.student.micro_tokens == plain.scoring_tokens == plain.reference.micro_tokens == 4 * longest
    assert shared.student.micro_tokens == shared.scoring_tokens == shared.reference.micro_tokens == longest
    judge = ("discriminator.use_dynamic_bsz=False", "discriminator.ppo_micro_batch_size_per_gpu=1")
    halves = read(*judge, "discriminator.fsdp.ulysses_sequence_parallel_size=2").discriminator
    assert halves.micro_tokens == read(*judge).discriminator.micro_tokens / 2 == 9 * longest / 2
    context = [f"{section}.megatron.context_parallel_size=2" for section in (ACTOR, REF)]
    assert read(*rows, *context, name=MEGATRON).student.micro_tokens == 2 * longest


def test_no_micro_batch_is_larger_than_a_gpu_s_part_of_the_batch(read: Read) -> None:
    many = (
        f"{ROLLOUT}.log_prob_max_token_len_per_gpu=100000000",
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=4",
    )
    settings = bounded(read(*many))
    longest = settings.max_prompt + settings.max_response
    assert settings.scoring_tokens == settings.prompts * settings.rollouts * longest / 8


def test_offload_policy_keeps_everything_on_the_host(read: Read) -> None:
    policy = f"{ACTOR}.fsdp_config.offload_policy=True"
    student = read(f"{ACTOR}.strategy=fsdp2", policy).student
    held = memory.states(student)
    assert memory.asleep_bytes(student) == memory.awake_bytes(student, True) == 0
    assert memory.host_bytes(student) == held.parameters + held.gradients + held.optimizer
    plain = read(f"{ACTOR}.strategy=fsdp2").student
    assert memory.training_bytes(student).low == pytest.approx(memory.training_bytes(plain).low - held.gradients)
    # FSDP 1 does not know it.
    assert memory.asleep_bytes(read(f"{ACTOR}.strategy=fsdp", policy).student) > 0


def test_layers_that_are_not_resharded_stay_whole(read: Read) -> None:
    settings = read(f"{ACTOR}.fsdp_config.reshard_after_forward=False")
    plain = read()
    shape = settings.student.shape
    more = 2 * (shape.layers - 2) * shape.layer_parameters
    for trains in (False, True):
        kept, freed = (memory.unsharded_bytes(found.student, trains) for found in (settings, plain))
        assert kept - freed == pytest.approx(more)
    # After a pass that only scores they wait for the update.
    score = "reference log-probabilities"
    rest = [phases(found)[score].parts["student, resting"].low for found in (settings, plain)]
    assert rest[0] - rest[1] == pytest.approx(2 * COUNT)
    texts = estimate(settings, GPUS["rtx4090"]).warnings
    assert any(f"{ACTOR}.fsdp_config.reshard_after_forward=True" in text for text in texts)
    assert "reference, resting" in phases(read(f"{REF}.fsdp_config.reshard_after_forward=False"))["rollout"].parts


def test_host_memory_is_that_of_the_fullest_node(read: Read) -> None:
    own = (
        "trainer.nnodes=4",
        "gad.discriminator_n_gpus_per_node=8",
        "gad.discriminator_nnodes=1",
        "discriminator.fsdp.param_offload=True",
        "discriminator.fsdp.optimizer_offload=True",
    )
    settings = read(*own)
    judge, reference = settings.discriminator, settings.reference
    assert host_bytes(settings) == pytest.approx(8 * memory.host_bytes(judge))
    assert host_bytes(settings) > 8 * memory.host_bytes(reference)
    assert estimate(settings, GPU).host == host_bytes(settings)


def test_a_rollout_with_machines_of_its_own_is_said_not_to_be_counted(read: Read) -> None:
    assert not any("gad_separate_async" in text or "machines" in text for text in estimate(read(), GPU).warnings)
    apart = read("trainer.v1.trainer_mode=gad_separate_async", f"{ROLLOUT}.nnodes=1", f"{ROLLOUT}.n_gpus_per_node=4")
    assert any("4 GPUs of the rollout's own machines are not part" in text for text in estimate(apart, GPU).warnings)


def test_a_replica_of_an_engine_has_all_dense_weights(read: Read) -> None:
    one, four = (estimate(read(f"{ROLLOUT}.data_parallel_size={size}"), GPU) for size in (1, 4))
    assert four.room == one.room and one.room.weights == 2 * COUNT
    seconds = [next(s["rollout"] for s in found.stages.values() if "rollout" in s) for found in (one, four)]
    assert seconds[0] == seconds[1]
    moe = "Qwen/Qwen3-30B-A3B"
    experts = 2 * find_shape(moe, "key").layers * find_shape(moe, "key").expert_matrices
    rooms = [read(f"{ROLLOUT}.data_parallel_size={size}", model=moe).rollout.weight_bytes() for size in (1, 4)]
    assert rooms[0] - rooms[1] == pytest.approx(experts * 3 / 4)


def test_gpus_beyond_the_heads_of_keys_hold_the_same_ones(read: Read) -> None:
    model = "Qwen/Qwen2.5-1.5B-Instruct"
    shape = find_shape(model, "key")

    def of_token(*sizes: str) -> float:
        return read(*(f"{ROLLOUT}.{size}" for size in sizes), model=model).rollout.token_bytes()

    whole = of_token()
    assert shape.kv_heads == 2 and whole == memory.kv_bytes_per_token(shape)
    assert of_token("tensor_model_parallel_size=2") == of_token("tensor_model_parallel_size=4") == whole / 2
    assert of_token("pipeline_model_parallel_size=2") == whole / 2


def test_what_lora_adapts_is_read(read: Read) -> None:
    lora = "actor_rollout_ref.model.lora_rank=8"
    everything = read(lora).student.trained_parameters
    queries = read(lora, "actor_rollout_ref.model.target_modules=[q_proj]").student
    shape = queries.shape
    assert queries.trained_parameters == shape.layers * 8 * (shape.hidden + shape.query_width)
    without = read(lora, "actor_rollout_ref.model.exclude_modules=[q_proj]").student.trained_parameters
    assert everything - without == queries.trained_parameters


@pytest.mark.parametrize(
    ("override", "part"),
    [
        (f"{ROLLOUT}.max_num_seqs=null", "a whole number of at least 1"),
        (f"{ROLLOUT}.gpu_memory_utilization=null", "above 0 and at most 1"),
        (f"{ROLLOUT}.gpu_memory_utilization=1.5", "above 0 and at most 1"),
        (f"{ROLLOUT}.dtype=null", "bfloat16"),
        ("trainer.save_freq=null", "a whole number"),
        ("trainer.total_epochs=null", "trainer.total_training_steps"),
        ("trainer.total_epochs=two", "trainer.total_training_steps"),
        ("trainer.max_actor_ckpt_to_keep=many", "a whole number"),
        ("actor_rollout_ref.model.lora_rank=abc", "a whole number of at least 0"),
        ("discriminator.model.lora_rank=-1", "a whole number of at least 0"),
        (f"{ACTOR}.fsdp_config.fsdp_size=null", "a whole number"),
        (f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=null", "a whole number of at least 1"),
        (f"{ACTOR}.checkpoint.save_contents=model", "a list of names"),
        ("actor_rollout_ref.model.override_config=sdpa", "a section"),
    ],
)
def test_a_value_that_is_none_is_named(read: Read, override: str, part: str) -> None:
    overrides = [override]
    with pytest.raises(GadConfigError) as error:
        read(*overrides)
    assert str(error.value).startswith(override.partition("=")[0]) and part in str(error.value)


def test_an_expression_that_is_none_is_named(read: Read) -> None:
    lora = ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.target_modules='(q'")
    with pytest.raises(GadConfigError, match=r"target_modules=\(q is no regular expression"):
        read(*lora)


def test_the_gathered_model_of_seven_billion_is_fourteen_gib(read: Read) -> None:
    kept = read(f"{ACTOR}.fsdp_config.reshard_after_forward=False").student
    assert memory.gathered_bytes(kept) / GIB == pytest.approx(14.2, abs=0.1)
    assert memory.gathered_bytes(read().student) == 0


def seconds(settings: RunSettings) -> dict[Phase, dict[str, Range]]:
    return estimate(settings, GPU).stages


@pytest.mark.parametrize("preset", [(), ("gad=paper",)])
def test_epochs_of_the_policy_multiply_its_update_alone(read: Read, preset: tuple[str, ...]) -> None:
    """A supervised step takes one, and so does a step by texts that the discriminator's ignorance leaves."""
    found = [read(*preset, f"{ACTOR}.ppo_epochs={epochs}") for epochs in (1, 3)]
    once, often = map(seconds, found)
    update = "student update"
    for phase, stages in once.items():
        for name, spent in stages.items():
            if (phase, name) != (Phase.ADVERSARIAL, update):
                assert often[phase][name] == spent
    before, after = once[Phase.ADVERSARIAL][update], often[Phase.ADVERSARIAL][update]
    assert after.high == pytest.approx(3 * before.high)
    assert found[0].gad.turns_to_texts == (not preset)
    assert after.low == pytest.approx(3 * before.low if preset else before.low)


@pytest.mark.parametrize("lora", [0, 16])
@pytest.mark.parametrize("compares", [True, False])
def test_the_rollouts_log_probabilities_spare_a_pass(read: Read, lora: int, compares: bool) -> None:
    keys = (f"actor_rollout_ref.model.lora_rank={lora}", f"{ACTOR}.use_kl_loss={compares}")
    # The size of the pass need not be set where nobody makes it.
    bypass = ("algorithm.rollout_correction.bypass_mode=True", f"{ROLLOUT}.calculate_log_probs=True")
    plain, spared = read(*keys), read(*keys, *bypass)
    old, reference = "old log-probabilities", "reference log-probabilities"
    stages = [seconds(settings)[Phase.ADVERSARIAL] for settings in (plain, spared)]
    assert list(stages[1]) == [name for name in stages[0] if name != old] and old in stages[0]
    assert (reference in stages[0]) == (reference in stages[1]) == compares
    assert old in phases(plain) and old not in phases(spared)
    assert (reference in phases(spared)) == compares
    unsized = (f"{ROLLOUT}.log_prob_use_dynamic_bsz=False", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=null")
    if lora and compares:
        with pytest.raises(GadConfigError, match="rows of a micro-batch are not set"):
            read(*keys, *bypass, *unsized)
    else:
        read(*keys, *bypass, *unsized)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((f"{ACTOR}.megatron.tensor_model_parallel_size=3",), "does not divide the 8 GPUs"),
        ((f"{ACTOR}.megatron.tensor_model_parallel_size=3", "trainer.nnodes=3"), "the attention heads (28)"),
        ((f"{REF}.megatron.tensor_model_parallel_size=8",), "ref.megatron.tensor_model_parallel_size=8"),
        ((f"{ACTOR}.megatron.pipeline_model_parallel_size=8",), "do not divide 28 layers"),
        ((f"{ACTOR}.megatron.context_parallel_size=3",), "does not divide the 8 GPUs"),
        (("discriminator.megatron.tensor_model_parallel_size=8",), "discriminator.megatron.tensor_model_parallel_size"),
        (
            ("gad.discriminator_num_layers=5", "discriminator.megatron.pipeline_model_parallel_size=2"),
            "do not divide 5 layers",
        ),
        (("actor_rollout_ref.model.lora_rank=32",), "LoRA is supported on FSDP only"),
    ],
)
def test_layouts_of_megatron_that_no_run_has_are_refused(read: Read, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(GadConfigError) as error:
        read(*overrides, name=MEGATRON)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_of_adapters_alone(read: Read) -> None:
    adapted = "actor_rollout_ref.model.lora_rank=16"
    alone = f"+{ACTOR}.checkpoint.save_lora_only=True"
    whole, small = read(adapted), read(adapted, alone)
    assert checkpoint_size(whole) - checkpoint_size(small) == pytest.approx(
        4 * (COUNT - whole.student.trained_parameters)
    )
    # It says nothing of a model without adapters, nor of one that is not saved.
    assert checkpoint_size(read(alone)) == checkpoint_size(read())
    optimizer = f"{ACTOR}.checkpoint.save_contents=[optimizer]"
    assert checkpoint_size(read(adapted, alone, optimizer)) == checkpoint_size(read(adapted, optimizer))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((f"{ACTOR}.optim.optimizer=SGD",), "gad_trainer"),
        ((f"{ACTOR}.optim.optimizer=AdamW8bit", f"{ACTOR}.optim.optimizer_impl=torchao.optim"), "gad_trainer"),
        (("discriminator.optim.optimizer=Adafactor",), "gad_trainer"),
        ((f"{ACTOR}.optim.optimizer=muon",), MEGATRON),
        ((f"{ACTOR}.optim.use_precision_aware_optimizer=True",), MEGATRON),
    ],
)
def test_another_optimizer_is_said_to_be_counted_as_adam(read: Read, overrides: tuple[str, ...], name: str) -> None:
    def said(*more: str) -> list[str]:
        return [text for text in estimate(read(*more, name=name), GPU).warnings if "counted as Adam" in text]

    assert not said() and not said(f"{ACTOR}.optim.optimizer={'adam' if name == MEGATRON else '_AdamW'}")
    (text,) = said(*overrides)
    assert overrides[0] in text
