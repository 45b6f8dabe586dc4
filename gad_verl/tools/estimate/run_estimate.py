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
"""The estimate of a run: memory by phase, time by stage, and what follows for the whole run."""

from dataclasses import dataclass, replace

from gad_verl.config import GadConfig
from gad_verl.core.replay import replay_reading
from gad_verl.core.schedule import Phase
from gad_verl.errors import GadConfigError
from gad_verl.tools.estimate import memory, timing
from gad_verl.tools.estimate.gpus import Gpu
from gad_verl.tools.estimate.phases import PhaseMemory, RolloutRoom, phase_memory, rollout_room
from gad_verl.tools.estimate.ranges import Range, total
from gad_verl.tools.estimate.roles import Role
from gad_verl.tools.estimate.run_settings import RunSettings
from gad_verl.tools.estimate.timing import Assumptions, Lengths

SCHEMES = ("one_pass", "public")


@dataclass(frozen=True)
class RunTime:
    """Length of a run.

    Args:
        steps: Steps of each phase.
        step_seconds: Seconds of a step of each phase.
        checkpoint_seconds: Of writing all checkpoints.
    """

    steps: dict[Phase, int]
    step_seconds: dict[Phase, Range]
    checkpoint_seconds: Range

    @property
    def hours(self) -> Range:
        """Whole run, without start-up and validation."""
        seconds = total(self.step_seconds[phase] * count for phase, count in self.steps.items())
        return (seconds + self.checkpoint_seconds) * (1 / 3600)


@dataclass(frozen=True)
class Estimate:
    """Everything that is known before a run.

    Args:
        settings, gpu, assumptions, lengths: What it was made from.
        phases: Memory of one GPU.
        room: What the rollout's share holds; None without a rollout or with transformers' own.
        host: Bytes of a node's host memory that offloaded states take, of the pool whose nodes hold most.
        stages: Seconds of each stage of a step, by phase.
        run: The whole run; None where its length is not known.
        checkpoint: Bytes of one checkpoint.
        warnings: What does not fit, each with what helps.
    """

    settings: RunSettings
    gpu: Gpu
    assumptions: Assumptions
    lengths: Lengths
    phases: list[PhaseMemory]
    room: RolloutRoom | None
    host: float
    stages: dict[Phase, dict[str, Range]]
    run: RunTime | None
    checkpoint: float
    warnings: list[str]


def checkpoint_size(settings: RunSettings) -> float:
    """Bytes of one checkpoint: student and discriminator with their optimizers."""
    size = memory.checkpoint_bytes(settings.student, settings.save_contents[0])
    if settings.discriminator is not None:
        size += memory.checkpoint_bytes(settings.discriminator, settings.save_contents[1])
    return size


def reference_size(settings: RunSettings) -> float:
    """Bytes of the warmed-up KL reference beside the checkpoints; 0 where there is none."""
    wanted = settings.gad.stage in ("auto", "soda") and settings.gad.kl_reference == "warmed_up"
    if not wanted or settings.reference is None:
        return 0.0
    return memory.checkpoint_bytes(settings.student, ("model",))


def saves_of(total_steps: int, save_freq: int) -> int:
    """Checkpoints that a run writes: every ``save_freq`` steps, and after the last one."""
    if save_freq <= 0:
        return 0
    return total_steps // save_freq + (total_steps % save_freq > 0)


def _batch_bound(role: Role, rows: float, tokens: float) -> Role:
    """A micro-batch is no larger than what a replica gets of the whole batch."""
    bound = int(rows * tokens / (role.layout.replicas * role.layout.sequence))
    return replace(role, micro_tokens=max(1, min(role.micro_tokens, bound)))


def _scoring(student: Role, tokens: int, rows: float, longest: float) -> int:
    return _batch_bound(replace(student, micro_tokens=tokens), rows, longest).micro_tokens


def bounded(settings: RunSettings) -> RunSettings:
    """The settings with micro-batches that the longest possible batch could fill."""
    longest = settings.max_prompt + settings.max_response
    rows = settings.prompts * settings.rollouts
    supervised = settings.gad.stage in ("seqkd", "warmup")
    if settings.gad.stage == "soda":
        rows = 2 * settings.prompts
    student_rows = settings.prompts if supervised else rows + settings.prompts * settings.gad.uses_texts
    judge, reference = settings.discriminator, settings.reference
    student = _batch_bound(settings.student, student_rows, longest)
    return replace(
        settings,
        student=student,
        scoring_tokens=_scoring(settings.student, settings.scoring_tokens, rows, longest),
        reference=None if reference is None else _batch_bound(reference, rows, longest),
        discriminator=None if judge is None else _batch_bound(judge, rows + settings.prompts, longest),
    )


def discriminator_passes(settings: RunSettings, lengths: Lengths) -> Range:
    """Forward passes of the discriminator's update: a group that fills no micro-batch is read in two passes."""
    role = settings.discriminator
    once = timing.update_passes(role)
    if settings.gad.discriminator_passes == "one":
        return Range.exact(once)
    if settings.gad.discriminator_passes == "two":
        return Range.exact(once + timing.FORWARD)
    group = (settings.rollouts + 1) * (lengths.prompt + lengths.response)
    room = role.micro_tokens * role.layout.sequence
    return Range(once + (group.low > room), once + (group.high > room))


def share_of_updates(gad: GadConfig, phase: Phase) -> Range:
    """Share of a phase's steps in which the discriminator learns; in the others it only scores."""
    updates = gad.discriminator_updates
    if phase is not Phase.ADVERSARIAL:
        return Range.exact(1.0)
    if updates.frozen:
        return Range.exact(0.0)
    due = 1 / updates.every_steps
    # Nobody knows before how often its accuracy will hold it back.
    return Range(0.0 if updates.accuracy_below < 1 else due, due)


def _discriminator_stage(
    settings: RunSettings, phase: Phase, lengths: Lengths, gpu: Gpu, assume: Assumptions, rollouts: int, scheme: str
) -> Range:
    role, gad = settings.discriminator, settings.gad
    students, teachers = lengths.prompt + lengths.response, lengths.prompt + lengths.teacher
    n, prompts = rollouts, settings.prompts

    def seconds(rows: float, tokens: Range, passes: int) -> Range:
        return timing.pass_seconds(role, rows, tokens, passes, gpu, assume)

    if scheme == "public":
        # A scoring pass, then an update over the responses and as many copies of the teacher's text.
        update = timing.update_passes(role)
        spent = seconds(prompts * n, students, 1) + seconds(prompts * n, students, update)
        return spent + seconds(prompts * n, teachers, update)
    passes = discriminator_passes(settings, lengths)
    least, most = int(passes.low), int(passes.high)
    low = seconds(prompts * n, students, least) + seconds(prompts, teachers, least)
    high = seconds(prompts * n, students, most) + seconds(prompts, teachers, most)
    spent = Range(low.low, high.high)
    mixed = spent
    if gad.replay.capacity_steps > 0:
        mixed = spent * replay_reading(gad.replay.fraction, gad.replay.mode)
    # As DiscriminatorTraining counts them; while the student stands still, further updates read no past responses.
    learning = mixed
    if phase is Phase.DISCRIMINATOR_ONLY:
        learning = mixed + spent * (gad.discriminator_only_updates - 1)
    elif phase is Phase.ADVERSARIAL:
        learning = mixed * gad.discriminator_updates.updates_per_step
    learning += timing.offload_seconds(role, True, assume)
    scoring = seconds(prompts * n, students, 1) + seconds(prompts, teachers, 1)
    scoring += timing.offload_seconds(role, False, assume)
    share = share_of_updates(gad, phase)
    return Range(
        share.low * learning.low + (1 - share.low) * scoring.low,
        share.high * learning.high + (1 - share.high) * scoring.high,
    )


def stage_seconds(
    settings: RunSettings,
    phase: Phase,
    lengths: Lengths,
    gpu: Gpu,
    assume: Assumptions,
    room: RolloutRoom | None,
    scheme: str = "one_pass",
) -> dict[str, Range]:
    """Seconds of each stage of a step.

    Args:
        settings, lengths, gpu, assume: What is run, on what.
        phase: The phase of the step.
        room: The rollout's cache; None takes no limit by it.
        scheme: ``one_pass`` as gad_verl computes; ``public`` as the public implementations do, for comparisons.
    """
    student, stages = settings.student, {}
    warmup = phase.is_warmup
    n = 1 if phase is Phase.SNAPSHOT else settings.warmup_rollouts if warmup else settings.rollouts
    rows = settings.prompts * n
    sequence = lengths.prompt + lengths.response
    if phase.generates:
        cache = Range.exact(float("inf")) if room is None else room.cache_tokens
        stages["rollout"] = timing.generation_seconds(
            settings.rollout, cache, settings.prompts, n, lengths, settings.max_response, gpu, assume
        )
    if phase.trains_discriminator:
        stages["discriminator update"] = _discriminator_stage(settings, phase, lengths, gpu, assume, n, scheme)
    if phase is Phase.ADVERSARIAL:
        scoring = replace(student, micro_tokens=settings.scoring_tokens)
        scored = timing.pass_seconds(scoring, rows, sequence, 1, gpu, assume)
        awake = scored + timing.offload_seconds(student, False, assume)
        if settings.reads_old:
            stages["old log-probabilities"] = awake
        if settings.reference is not None:
            stages["reference log-probabilities"] = timing.pass_seconds(
                settings.reference, rows, sequence, 1, gpu, assume
            ) + timing.offload_seconds(settings.reference, False, assume)
        elif settings.compares:
            stages["reference log-probabilities"] = scored if settings.reads_old else awake
    if phase is Phase.PREFERENCE:
        stages |= _preference_stages(settings, lengths, gpu, assume)
    elif phase not in (Phase.DISCRIMINATOR_ONLY, Phase.SNAPSHOT):
        supervised = phase.trains_student_supervised
        passes = timing.update_passes(student)
        texts = timing.pass_seconds(student, settings.prompts, lengths.prompt + lengths.teacher, passes, gpu, assume)
        update = texts if supervised else timing.pass_seconds(student, rows, sequence, passes, gpu, assume)
        if not supervised:
            # n + 1 rows a prompt in each epoch; where the discriminator knows nothing, the text alone, once.
            update = (update + texts if settings.gad.uses_texts else update) * settings.policy_epochs
            update = Range(texts.low, update.high) if settings.gad.turns_to_texts else update
        stages["student update"] = update + timing.offload_seconds(student, True, assume)
    if phase.generates:
        weights = settings.rollout.element * student.shape.language_model_parameters
        stages["weights to the rollout"] = Range.exact(weights).over(assume.weight_sync)
    return stages


def _preference_stages(settings: RunSettings, lengths: Lengths, gpu: Gpu, assume: Assumptions) -> dict[str, Range]:
    """Two rows a prompt: read under the student and its reference, then learned."""
    student, prompts = settings.student, settings.prompts
    chosen, rejected = lengths.prompt + lengths.teacher, lengths.prompt + lengths.response

    def seconds(role: Role, passes: int) -> Range:
        rows = (timing.pass_seconds(role, prompts, tokens, passes, gpu, assume) for tokens in (chosen, rejected))
        return total(rows)

    scoring = replace(student, micro_tokens=settings.scoring_tokens)
    compared = seconds(scoring, 1)
    if settings.reference is not None:
        compared = seconds(settings.reference, 1) + timing.offload_seconds(settings.reference, False, assume)
    return {
        "log-probabilities": seconds(scoring, 1) + timing.offload_seconds(student, False, assume),
        "reference log-probabilities": compared,
        "student update": seconds(student, timing.update_passes(student))
        + timing.offload_seconds(student, True, assume),
    }


def counts_passes(settings: RunSettings) -> bool:
    """Whether a part of the run is as long as so many passes over the rows."""
    gad = settings.gad
    snapshot_is_a_pass = gad.stage == "soda" and gad.soda.snapshot_steps is None
    return snapshot_is_a_pass or (gad.stage in ("auto", "soda") and gad.warmup_steps is None)


def run_time(
    settings: RunSettings, rows: int | None, stages: dict[Phase, dict[str, Range]], assume: Assumptions
) -> RunTime | None:
    """Length of the run; None without its number of steps.

    Raises:
        GadConfigError: If the stages do not fit into the run.
    """
    per_epoch = None if rows is None else rows // settings.prompts
    steps = settings.total_steps or (None if per_epoch is None else per_epoch * settings.epochs)
    if steps is None:
        return None
    if per_epoch is None and counts_passes(settings):
        return None
    try:
        schedule = settings.gad.build_schedule(steps, per_epoch or 0)
    except ValueError as error:
        raise GadConfigError(str(error)) from None
    counts: dict[Phase, int] = {}
    for step in range(1, steps + 1):
        phase = schedule.phase(step)
        counts[phase] = counts.get(phase, 0) + 1
    written = Range.exact(checkpoint_size(settings) * saves_of(steps, settings.save_freq) / settings.nodes)
    return RunTime(
        steps=counts,
        step_seconds={phase: total(stages[phase].values()) for phase in counts},
        checkpoint_seconds=written.over(assume.disk),
    )


def host_bytes(settings: RunSettings) -> float:
    """Bytes of a node's host memory for what is offloaded, of the pool whose nodes hold most."""
    apart = settings.discriminator if settings.own_pool else None
    shared = sum(_of_all_gpus(role) for role in settings.roles if role is not apart) / settings.nodes
    return max(shared, 0.0 if apart is None else _of_all_gpus(apart) / settings.gad.discriminator_nnodes)


def _of_all_gpus(role: Role) -> float:
    return memory.host_bytes(role) * role.layout.gpus


def phases_of(settings: RunSettings) -> list[Phase]:
    """Phases that the run may have."""
    by_stage = {
        "seqkd": [Phase.SEQKD],
        "soda": [Phase.SNAPSHOT, Phase.SEQKD, Phase.PREFERENCE],
        "warmup": [Phase.DISCRIMINATOR_ONLY, Phase.WARMUP],
        "gad": [Phase.ADVERSARIAL],
    }
    return by_stage.get(settings.gad.stage, [Phase.DISCRIMINATOR_ONLY, Phase.WARMUP, Phase.ADVERSARIAL])


def estimate(
    settings: RunSettings,
    gpu: Gpu,
    assume: Assumptions | None = None,
    lengths: Lengths | None = None,
    rows: int | None = None,
    scheme: str = "one_pass",
) -> Estimate:
    """Estimate a run.

    Args:
        settings: See :func:`gad_verl.tools.estimate.run_settings.read_settings`.
        gpu: The GPU, all of one kind.
        assume: What no formula gives.
        lengths: Mean tokens; None assumes them from the limits.
        rows: Training rows; None leaves the run's length open where it depends on them.
        scheme: Of the discriminator's work; see :func:`stage_seconds`.

    Raises:
        GadConfigError: If the stages do not fit into the run.
    """
    from gad_verl.tools.estimate.remedies import warnings_of

    assume = assume or Assumptions()
    settings = bounded(settings)
    lengths = lengths or timing.assumed_lengths(settings.max_prompt, settings.max_response)
    room = None
    if settings.rollout is not None and settings.rollout.name != "hf":
        room = rollout_room(settings.rollout, gpu, settings.max_prompt + settings.max_response)
    phases = phase_memory(settings, gpu)
    stages = {
        phase: stage_seconds(settings, phase, lengths, gpu, assume, room, scheme) for phase in phases_of(settings)
    }
    return Estimate(
        settings=settings,
        gpu=gpu,
        assumptions=assume,
        lengths=lengths,
        phases=phases,
        room=room,
        host=host_bytes(settings),
        stages=stages,
        run=run_time(settings, rows, stages, assume),
        checkpoint=checkpoint_size(settings),
        warnings=warnings_of(settings, gpu, phases, room),
    )
