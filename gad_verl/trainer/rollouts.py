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
"""Rollouts of a step: from trajectories in TransferQueue to groups of texts, and rewards back to them.

The only module that talks to TransferQueue: another data plane of verl is another file like this one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from gad_verl.core.teacher_mix import TeacherMix, WeightedText
from gad_verl.data.answers import ENCODED, ENCODED_TEACHER, shared_ids, unpack_answer, unpack_teacher
from gad_verl.data.endings import EXTRA_INFO, cut_texts
from gad_verl.data.image_rows import MULTI_MODAL_INPUTS
from gad_verl.data.images import image_files
from gad_verl.data.schema import teacher_names, teacher_texts
from gad_verl.data.thoughts import ReadResponse, ThoughtReader
from gad_verl.data.tokens import EncodedResponse
from gad_verl.errors import GadStalledError

TRAIN, VALIDATION = "train", "val"


def parse_key(key: str) -> tuple[str, int, int]:
    """Prompt uid, session and output of verl's trajectory key ``{uid}_{session_id}_{index}``."""
    uid, session, output = key.rsplit("_", 2)
    return uid, int(session), int(output)


def session_of(key: str) -> str:
    """``{uid}_{session}`` of a trajectory key."""
    return key.rsplit("_", 1)[0]


def rollout_order(keys: Sequence[str], indices: Sequence[int]) -> list[int]:
    """Positions of trajectories sorted by (data set index, uid, session, output): completion order plays no role."""
    return sorted(range(len(keys)), key=lambda position: (int(indices[position]), *parse_key(keys[position])))


@dataclass(frozen=True)
class Session:
    """One rollout of a prompt that came back.

    Args:
        row: Position of its LAST output in the batch.
        response_ids: Sampled ids of that output.
        answer_ids: Those of them that the discriminator reads; None where there is nothing for it to read. Such a
            session is in no pair, but it has a row in the student's batch and so a reward.
        read: The response taken apart, where the student hides its thoughts; else None.
        encoded: The answer as the discriminator reads it, where the agent loop encoded it; else None.
        versions: First and last version of the weights that wrote it, as steps; None where nobody asks for them.
        mask: 1 for each token that the student sampled, of trajectories (``Rollouts.reads_masks``); else empty.
    """

    row: int
    response_ids: list[int]
    answer_ids: list[int] | None
    read: ReadResponse | None = None
    encoded: EncodedResponse | None = None
    versions: tuple[int, int] | None = None
    mask: Sequence[int] = ()


@dataclass(frozen=True)
class RolloutGroup:
    """All responses to one prompt.

    Args:
        index: Row of the data set.
        messages: The prompt.
        prompt_ids: Ids of the prompt as the rollout was asked.
        teachers: The teacher texts that the discriminator compares with, at least one.
        teacher_text: The one that the supervised stages train on.
        sessions: The rollouts; None where no trajectory came.
        teacher_finished: Whether that text was ended by its author; False where it was cut when it was written.
        asked: How many rollouts were asked for; None for all of ``sessions``. Groups of one batch may differ in it.
        encoded_teacher: The only teacher text as the discriminator reads it, where an agent loop encoded it; else None.
        image_inputs: Where the prompt has images, what the student's processor made of them for a rollout.
    """

    index: int
    messages: list[dict]
    prompt_ids: list[int]
    teachers: tuple[WeightedText, ...]
    teacher_text: str
    sessions: tuple[Session | None, ...]
    teacher_finished: bool = True
    asked: int | None = None
    encoded_teacher: EncodedResponse | None = None
    image_inputs: Mapping[str, Any] | None = None

    @property
    def num_asked(self) -> int:
        """Rollouts that were asked for."""
        return len(self.sessions) if self.asked is None else self.asked

    @property
    def num_failed(self) -> int:
        """Those of them of which no trajectory came."""
        return sum(session is None for session in self.sessions[: self.num_asked])

    @property
    def answers(self) -> list[Session | None]:
        """The sessions that have an answer; None for the others."""
        return [None if one is None or one.answer_ids is None else one for one in self.sessions]


@dataclass(frozen=True)
class StepRollouts:
    """The rollouts of a step as they were read: verl reorders its batch and fills it up afterwards.

    Args:
        partition_id: Of TransferQueue.
        keys: Of the trajectories, N of them; ``row`` of a session is a position here.
        groups: G of them, in the order of the data.
        lost: Prompt and teacher's text of those prompts whose rollouts all failed, in the order of the data.
        lengths: (N,) tokens of the responses.
    """

    partition_id: str
    keys: list[str]
    groups: list[RolloutGroup]
    lost: list[tuple[list[dict], WeightedText]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def num_sessions(self) -> int:
        """n, of every group: one that was asked for fewer is filled up."""
        return len(self.groups[0].sessions)


def chosen_teachers(
    mix: TeacherMix, value: object, names_value: object, extra_info: object, index: int, step: int, visit: int
) -> tuple[tuple[WeightedText, ...], WeightedText]:
    """Which of a row's teacher texts take part: those for the discriminator, and the one for the student.

    Args:
        mix: ``gad.teachers``.
        value, names_value: What the columns of the texts and of the teachers' names hold.
        extra_info: What this column holds: whether texts were cut when they were written.
        index: Row of the data set.
        step: Training step, for schedules of teachers.
        visit: How often the data were seen; with several teacher texts, each visit may use the next one.
    """
    where = f"row {index} of the training data"
    texts = teacher_texts(value, where)
    names = teacher_names(names_value, len(texts), where) if mix.needs_names else None
    finished = [not cut for cut in cut_texts({EXTRA_INFO: extra_info}, len(texts), where)]
    chosen = mix.choose(texts, names, index, step, visit, finished)
    return tuple(chosen), mix.choose_one(chosen, index, step)


def sessions_by_prompt(keys: Sequence[str], num_sessions: int) -> dict[str, list[int | None]]:
    """Position of the last output of each session, by prompt and in the order of ``keys``; None for missing ones."""
    last: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for position, key in enumerate(keys):
        uid, session, output = parse_key(key)
        if last[uid].get(session, (-1, -1))[0] < output:
            last[uid][session] = (output, position)
    return {
        uid: [found[session][1] if session in found else None for session in range(num_sessions)]
        for uid, found in last.items()
    }


def versions_of(tags: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """First and last version of the weights that wrote each trajectory, as verl's agent loops note them."""
    return [(int(tag["min_global_steps"]), int(tag["max_global_steps"])) for tag in tags]


class Rollouts:
    """Reads rollouts and writes what is made of them.

    Args:
        teacher_key, names_key: Columns of the teacher's texts and of the teachers' names.
        teachers: Which of several texts take part in training; a validation takes the same one of a row each time.
        whole_groups: Whether verl samples whole groups alone, and replaces those of which a rollout has failed. A batch
            then holds prompts of several steps, asked for as many rollouts as each of these steps wants.
    """

    def __init__(self, teacher_key: str, names_key: str, teachers: TeacherMix, whole_groups: bool = False) -> None:
        self._teacher_key, self._names_key, self.teachers = teacher_key, names_key, teachers
        self._whole_groups = whole_groups
        self._asked: TensorDict | None = None
        # Of a student that hides its thoughts; there once verl has read the tokenizer.
        self.thoughts: ThoughtReader | None = None
        # Whether responses are trajectories, of which the student sampled a part.
        self.reads_masks = False

    def note_asked(self, batch: TensorDict) -> None:
        """Remember the rows of data that the rollouts of a step are asked for: some may bring no trajectory."""
        self._asked = None if self._whole_groups else batch

    def read(self, batch: KVBatchMeta, num_sessions: int, step: int, visit: int) -> StepRollouts:
        """Groups of a step's trajectories, whose batch is brought into the order of the data.

        Args:
            batch: verl's; reordered in place.
            num_sessions: Rollouts per prompt; missing ones have failed. Whole groups tell it themselves.
            step, visit: See :func:`chosen_teachers`.

        Raises:
            GadStalledError: If there is no trajectory at all.
        """
        if len(batch) == 0:
            raise GadStalledError(
                f"all rollouts of step {step} failed; the errors of the agent loops are in the log above"
            )
        mix = TeacherMix() if batch.partition_id == VALIDATION else self.teachers
        names = ["index", "responses", ENCODED, *(["response_mask"] if self.reads_masks else [])]
        of_rows = _lists(self._get(batch.partition_id, batch.keys, names))
        order = rollout_order(batch.keys, [int(index) for index in of_rows["index"]])
        batch.reorder(order)
        of_rows = {name: [values[place] for place in order] for name, values in of_rows.items()}
        whole = self._whole_groups and batch.partition_id != VALIDATION
        versions = versions_of(batch.tags) if whole else None
        if whole:
            num_sessions = 1 + max(parse_key(key)[1] for key in batch.keys)
        by_prompt = list(sessions_by_prompt(batch.keys, num_sessions).values())
        firsts = [next(place for place in places if place is not None) for places in by_prompt]
        # What all trajectories of a prompt have in common comes once.
        names = ["raw_prompt", self._teacher_key, ENCODED_TEACHER, EXTRA_INFO, "prompts"]
        names += [self._names_key] * mix.needs_names
        columns = _lists(self._get(batch.partition_id, [batch.keys[first] for first in firsts], names))
        seen = self._image_inputs(batch, firsts, columns["raw_prompt"])
        groups = []
        for number, places in enumerate(by_prompt):
            index, prompt_ids = int(of_rows["index"][firsts[number]]), columns["prompts"][number].tolist()
            teacher_of = columns[self._names_key][number] if mix.needs_names else None
            value, extra = columns[self._teacher_key][number], columns[EXTRA_INFO][number]
            teachers, one = chosen_teachers(mix, value, teacher_of, extra, index, step, visit)
            encoded = unpack_teacher(columns[ENCODED_TEACHER][number]) if ENCODED_TEACHER in columns else None
            groups.append(
                RolloutGroup(
                    index=index,
                    messages=list(columns["raw_prompt"][number]),
                    prompt_ids=prompt_ids,
                    teachers=teachers,
                    teacher_text=one.text,
                    teacher_finished=one.finished,
                    sessions=tuple(
                        None if place is None else self._session(place, prompt_ids, of_rows, versions)
                        for place in places
                    ),
                    asked=1 + max(n for n, place in enumerate(places) if place is not None) if whole else None,
                    encoded_teacher=encoded,
                    image_inputs=seen.get(firsts[number]),
                )
            )
        lost = [] if batch.partition_id == VALIDATION else self._lost(batch.keys, step, visit)
        lengths = [len(response) for response in of_rows["responses"]]
        return StepRollouts(batch.partition_id, list(batch.keys), groups, lost, lengths)

    def _image_inputs(self, batch: KVBatchMeta, places: Sequence[int], prompts: Sequence[Any]) -> dict[int, Any]:
        """Of those of the trajectories whose prompts have images; nothing else has any pixels to fetch."""
        some = [place for place, prompt in zip(places, prompts, strict=True) if image_files(list(prompt))]
        if not some:
            return {}
        found = self._get(batch.partition_id, [batch.keys[place] for place in some], [MULTI_MODAL_INPUTS])
        return dict(zip(some, _lists(found)[MULTI_MODAL_INPUTS], strict=True))

    def _session(
        self,
        place: int,
        prompt_ids: list[int],
        of_rows: Mapping[str, list[Any]],
        versions: Sequence[tuple[int, int]] | None,
    ) -> Session:
        ids, written_by = shared_ids(of_rows["responses"][place]), None if versions is None else versions[place]
        if ENCODED in of_rows:
            answer = unpack_answer(of_rows[ENCODED][place], ids, self.thoughts is not None)
            return Session(place, ids, answer.answer_ids(ids), answer.read, answer.encoded, written_by)
        # An agent loop of verl's, with tools, or of somebody else's.
        if self.thoughts is None:
            mask = of_rows["response_mask"][place].tolist() if self.reads_masks else ()
            return Session(place, ids, ids, versions=written_by, mask=mask)
        read = self.thoughts.read(prompt_ids, ids)
        return Session(place, ids, read.answer_ids, read, versions=written_by)

    def _lost(self, keys: Sequence[str], step: int, visit: int) -> list[tuple[list[dict], WeightedText]]:
        asked, self._asked = self._asked, None
        if asked is None:
            return []
        came = {parse_key(key)[0] for key in keys}
        places = [place for place, uid in enumerate(asked["uid"]) if uid not in came]
        if not places:
            return []
        texts = self.teacher_texts(asked, step, visit)
        places.sort(key=lambda place: int(asked["index"][place]))
        return [(list(asked["raw_prompt"][place]), texts[place]) for place in places]

    def teacher_texts(self, batch: TensorDict, step: int, visit: int) -> list[WeightedText]:
        """The teacher's text of each row of a batch of data, for the student."""
        names = batch[self._names_key] if self.teachers.needs_names else [None] * len(batch)
        columns = (batch[self._teacher_key], names, batch[EXTRA_INFO], batch["index"])
        return [
            chosen_teachers(self.teachers, value, name, extra, int(index), step, visit)[1]
            for value, name, extra, index in zip(*columns, strict=True)
        ]

    def last_sampled(self, rollouts: StepRollouts) -> torch.Tensor:
        """Position of the last token of each of the N responses that the student sampled."""
        last = torch.tensor(rollouts.lengths) - 1
        if not self.reads_masks:
            return last
        masks = self.fields(rollouts, ["response_mask"])["response_mask"]
        sampled = [mask.nonzero().flatten() for mask in masks.unbind()]
        return torch.stack([places[-1] if len(places) else at for places, at in zip(sampled, last, strict=True)])

    def fields(self, rollouts: StepRollouts, names: Sequence[str]) -> TensorDict:
        """Fields of all trajectories, (N, ...)."""
        return self._get(rollouts.partition_id, rollouts.keys, names)

    def write_rewards(self, rollouts: StepRollouts, rewards: Sequence[torch.Tensor]) -> None:
        """Write ``rm_scores``: for each of the N trajectories the rewards of its tokens."""
        nested = torch.nested.as_nested_tensor(list(rewards), layout=torch.jagged)
        self._put(rollouts.partition_id, rollouts.keys, TensorDict({"rm_scores": nested}, batch_size=len(nested)))

    def write_ground_truths(self, rollouts: StepRollouts) -> None:
        """Show the teacher's text as the ground truth that verl dumps beside its validation's generations."""
        texts = {
            session_of(rollouts.keys[session.row]): group.teacher_text
            for group in rollouts.groups
            for session in group.sessions
            if session is not None
        }
        truths = [{"ground_truth": texts.get(session_of(key))} for key in rollouts.keys]
        self._put(rollouts.partition_id, rollouts.keys, tu.get_tensordict({"reward_model": truths}))

    def write_no_advantages(self, batch: KVBatchMeta, names: Sequence[str]) -> None:
        """Zeros where verl's metrics read advantages and the like of a step without policy gradient."""
        rewards = self._get(batch.partition_id, batch.keys, ["rm_scores"])["rm_scores"]
        zeros = {name: torch.zeros_like(rewards) for name in names}
        self._put(batch.partition_id, batch.keys, TensorDict(zeros, batch_size=len(batch)))

    @staticmethod
    def clear_orphans() -> int:
        """Forget trajectories whose prompt is gone, of a checkpoint: their step was trained before it was saved.

        Returns:
            How many there were.
        """
        tags = (tq.kv_list(TRAIN) or {}).get(TRAIN, {})
        prompts = {key for key, tag in tags.items() if tag.get("is_prompt", False)}
        orphans = [key for key in tags if key not in prompts and key.split("_", 1)[0] not in prompts]
        if orphans:
            tq.kv_clear(keys=orphans, partition_id=TRAIN)
        return len(orphans)

    @staticmethod
    def without_rollouts(uids: Sequence[str], step: int) -> KVBatchMeta:
        """A batch of prompts that nobody answers: verl clears a step's keys afterwards and takes no empty list."""
        tags = [{"is_prompt": True, "status": "finished", "global_steps": step}] * len(uids)
        tq.kv_batch_put(keys=list(uids), partition_id=TRAIN, tags=tags)
        return KVBatchMeta(partition_id=TRAIN, keys=list(uids), tags=tags)

    @staticmethod
    def _get(partition_id: str, keys: Sequence[str], names: Sequence[str]) -> TensorDict:
        return tq.kv_batch_get(keys=list(keys), partition_id=partition_id, select_fields=list(names))

    @staticmethod
    def _put(partition_id: str, keys: Sequence[str], fields: TensorDict) -> None:
        tq.kv_batch_put(keys=list(keys), partition_id=partition_id, fields=fields)


def _lists(data: TensorDict) -> Mapping[str, list[Any]]:
    """Fields as lists of rows."""
    return {
        name: list(data[name].unbind()) if isinstance(data[name], torch.Tensor) else list(data[name])
        for name in data.keys()
    }
