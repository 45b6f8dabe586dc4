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
"""Prompts with images in a step: read from the queue, encoded for both sides, remembered without their pixels."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_queue import FakeTransferQueue
from tiny_vlm import COLOURS, MARKS, QUESTION, build_vlm, picture
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.utils.tokenizer import hf_processor, hf_tokenizer

from gad_verl.config import ReplayConfig
from gad_verl.core.teacher_mix import TeacherMix
from gad_verl.data.image_prompts import ImagePrompts
from gad_verl.data.image_rows import IMAGES
from gad_verl.data.images import with_images
from gad_verl.data.prompt_images import PromptImages
from gad_verl.data.tokens import SequenceBuilder
from gad_verl.discriminator.groups import SequenceGroup
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.replayed import Replay, pack_group, unpack_group
from gad_verl.trainer.rollouts import Rollouts
from gad_verl.trainer.supervised import build_supervised_batch

N = 2
PROMPTS = {
    0: with_images([{"role": "user", "content": QUESTION}], [picture("red")]),
    1: [{"role": "user", "content": "no picture"}],
    2: with_images([{"role": "user", "content": "<image> or <image>?"}], [picture("blue"), picture("white", 3)]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_vlm(tmp_path_factory.mktemp("eyes") / "model")


@pytest.fixture(scope="module")
def prompts(model: Path) -> ImagePrompts:
    return ImagePrompts(hf_tokenizer(str(model)), hf_processor(str(model)), "qwen2_5_vl", 100)


@pytest.fixture(scope="module")
def encoding(model: Path, prompts: ImagePrompts) -> Encoding:
    builder = SequenceBuilder(hf_tokenizer(str(model)), 100, 20)
    return Encoding(builder, builder, images=prompts)


@pytest.fixture
def step(prompts: ImagePrompts, encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Groups of a step of which the last one's first rollout has failed."""
    queue = FakeTransferQueue()
    queue.install(monkeypatch)
    keys, fields = [], []
    for index, messages in PROMPTS.items():
        ids, inputs = encoding.student.prompt(messages) if index == 1 else prompts.read(messages)[0], {}
        if index != 1:
            inputs = prompts.read(messages)[1].inputs
        for session in range(N):
            if (index, session) == (2, 0):
                continue
            keys.append(f"u{index}_{session}_0")
            fields.append(
                {
                    "index": index,
                    "raw_prompt": messages,
                    "teacher_response": f"teacher {index}",
                    "extra_info": {},
                    "prompts": torch.tensor(ids),
                    "responses": torch.tensor([65 + session, encoding.student.eos_token_id]),
                    "multi_modal_inputs": inputs,
                }
            )
    tags = [{"status": "success"} for _ in keys]
    queue.kv_batch_put(keys, "train", list_of_dict_to_tensordict(fields), tags)
    rollouts = Rollouts("teacher_response", "teacher", TeacherMix())
    return rollouts.read(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), N, step=1, visit=0)


def same_images(ours: PromptImages, theirs: PromptImages) -> bool:
    same = ours.inputs.keys() == theirs.inputs.keys() and torch.equal(ours.positions, theirs.positions)
    return same and all(torch.equal(value, theirs.inputs[name]) for name, value in ours.inputs.items())


def test_both_sides_of_a_group_have_the_prompt_and_pixels_of_the_rollout(
    step: Any, encoding: Encoding, prompts: ImagePrompts
) -> None:
    groups = [one.sequences() for one in encoding.encode(step.groups)]
    assert [group.images is None for group in groups] == [False, True, False]
    assert groups[2].student_ids[0] is None
    for index in (0, 2):
        ids, images = prompts.read(PROMPTS[index])
        assert same_images(groups[index].images, images) and groups[index].images.files == images.files
        for row in [*groups[index].teacher_ids, *filter(None, groups[index].student_ids)]:
            assert row[: len(ids)] == ids and groups[index].prompt_length == len(ids)


def test_people_read_one_mark_for_an_image(step: Any, encoding: Encoding) -> None:
    texts = [encoding.prompt_text(group) for group in step.groups]
    # A picture has four tokens.
    assert step.groups[2].prompt_ids.count(encoding.student.tokenizer.convert_tokens_to_ids(MARKS[2])) == 8
    shown = "".join([MARKS[0], MARKS[2], MARKS[1]])
    for text, content in zip(texts, ["Which colour?", "no picture", " or "], strict=True):
        assert content in text
    assert [text.count(shown) for text in texts] == [text.count(MARKS[2]) for text in texts] == [1, 0, 2]


def test_the_students_rows_have_the_pixels(step: Any, encoding: Encoding, prompts: ImagePrompts) -> None:
    rows = encoding.supervised_rows(step, encoding.encode(step.groups))
    apart = [encoding.supervised_row(messages, f"teacher {index}", True) for index, messages in PROMPTS.items()]
    for row, other in zip(rows, apart, strict=True):
        assert (row.prompt_ids, row.response_ids) == (other.prompt_ids, other.response_ids)
        assert (row.images is None) == (other.images is None)
        assert row.images is None or same_images(row.images, other.images)
    batch = build_supervised_batch(rows, 4, 1, pad_token_id=0)
    assert batch["position_ids"].dim() == 3 and len(batch["multi_modal_inputs"]) == 4
    assert [sorted(one) != [] for one in batch["multi_modal_inputs"]] == [True, False, True, False]
    text = build_supervised_batch(rows[1:2], 1, 1, pad_token_id=0)
    assert text["position_ids"].dim() == 2 and "multi_modal_inputs" not in text.keys()


def test_nothing_is_fetched_for_prompts_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = Rollouts("teacher_response", "teacher", TeacherMix())
    monkeypatch.setattr(Rollouts, "_get", lambda *_: pytest.fail("pixels were fetched"))
    assert rollouts._image_inputs(KVBatchMeta(keys=["a_0_0"], tags=[{}]), [0], [PROMPTS[1]]) == {}


def groups_of(prompts: ImagePrompts) -> list[SequenceGroup]:
    found = []
    for number, colour in enumerate(COLOURS):
        ids, images = prompts.read(with_images([{"role": "user", "content": QUESTION}], [picture(colour)]))
        found.append(SequenceGroup(([*ids, number],), [[*ids, 9], None], len(ids), images=images))
    return found


def test_a_past_group_has_its_pixels_again_and_kept_none(prompts: ImagePrompts, tmp_path: Path) -> None:
    for group in groups_of(prompts):
        # As a checkpoint holds it.
        buffer = io.BytesIO()
        torch.save(pack_group(group), buffer)
        assert len(buffer.getvalue()) < group.images.inputs["pixel_values"].nbytes / 4
        packed = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        again = unpack_group(packed, 2, prompts)
        assert (again.teacher_ids, again.student_ids) == (group.teacher_ids, group.student_ids)
        assert same_images(again.images, group.images) and again.images.files == group.images.files


def test_replay_mixes_groups_with_images(prompts: ImagePrompts) -> None:
    replay = Replay(ReplayConfig(capacity_steps=3, fraction=0.5), 1, prompts)
    groups = groups_of(prompts)
    replay.remember(1, groups[:2])
    mixed = replay.mix(2, 0, groups[2:], 2)
    assert mixed.num_fresh == 2 and len(mixed.groups) == 4
    known = {group.teacher_ids: group.images for group in map(_hashable, groups)}
    for group in map(_hashable, mixed.groups):
        assert same_images(group.images, known[group.teacher_ids])


def _hashable(group: SequenceGroup) -> SequenceGroup:
    from dataclasses import replace

    return replace(group, teacher_ids=tuple(map(tuple, group.teacher_ids)))


def test_the_pixels_of_a_group_are_sent_once(prompts: ImagePrompts) -> None:
    import ray.cloudpickle

    from gad_verl.discriminator.groups import build_group_batch

    def size(students: int) -> int:
        (group, *_) = groups_of(prompts)
        ids = group.teacher_ids[0]
        many = SequenceGroup((ids,), [[*ids, one] for one in range(students)], group.prompt_length, images=group.images)
        batch = build_group_batch([many], students)
        assert len(batch[IMAGES]) == students + 1
        return len(ray.cloudpickle.dumps(batch))

    pixels = groups_of(prompts)[0].images.inputs["pixel_values"].nbytes
    assert size(16) - size(1) < pixels / 2
