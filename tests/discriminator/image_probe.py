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
"""The real discriminator worker on a tiny model with eyes, against plain transformers (run by tools/probe_cases.py).

The variants are the families of ``tools/tiny_vlm.py``. verl replaces the models' functions in the process of its
worker: what plain transformers says is computed before.
"""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

NUM_STUDENTS, HEAD_SEED = 3, 3


def prompts_of(folder: str) -> Any:
    """Reads prompts by the processor of a folder."""
    from transformers import AutoConfig
    from verl.utils.tokenizer import hf_processor, hf_tokenizer

    from gad_verl.data.image_prompts import ImagePrompts

    model_type = AutoConfig.from_pretrained(folder).model_type
    return ImagePrompts(hf_tokenizer(folder), hf_processor(folder), model_type, 200)


def noise_picture(seed: int, size: tuple[int, int] = (60, 60)) -> bytes:
    """A picture of noise: no two of its parts are alike."""
    from PIL import Image

    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def image_groups(prompts: Any, seed: int = 0, first_picture: int = 0) -> list[Any]:
    """Groups with one picture and with two, one of text alone, one with a response that did not come."""
    from gad_verl.data.images import with_images
    from gad_verl.discriminator.groups import SequenceGroup

    generator = torch.Generator().manual_seed(seed)

    def answer() -> list[int]:
        return torch.randint(
            0, 256, (int(torch.randint(2, 9, (1,), generator=generator)),), generator=generator
        ).tolist()

    groups = []
    for number, text in enumerate(["<image>What?", "no picture", "a<image>b<image>", "<image>"]):
        files = [noise_picture(first_picture + 10 * number + place) for place in range(text.count("<image>"))]
        messages = [{"role": "user", "content": text}]
        if files:
            ids, images = prompts.read(with_images(messages, files))
        else:
            ids, images = [3, 4, 5, 6], None
        students: list[list[int] | None] = [ids + answer() for _ in range(NUM_STUDENTS)]
        if number == 3:
            students[1] = None
        groups.append(SequenceGroup((ids + answer(),), students, len(ids), images=images))
    return groups


def colour_groups(prompts: Any, seed: int, shown: int = 0) -> list[Any]:
    """Groups of a teacher that names the colour of a picture, and of students that name the others.

    Args:
        prompts: Reads prompts.
        seed: Of the pictures.
        shown: Shown are pictures of the colour that stands so many places behind the one that the teacher names.
    """
    from tiny_vlm import COLOURS, QUESTION, picture

    from gad_verl.data.images import with_images
    from gad_verl.discriminator.groups import SequenceGroup

    names = sorted(COLOURS)
    groups = []
    for number, name in enumerate(names):
        file = picture(names[(number + shown) % len(names)], seed)
        ids, images = prompts.read(with_images([{"role": "user", "content": QUESTION}], [file]))
        answers = [[*ids, *other.encode()] for other in names if other != name]
        groups.append(SequenceGroup(([*ids, *name.encode()],), answers, len(ids), images=images))
    return groups


def plain_scores(folder: str, groups: list[Any]) -> dict[str, Any]:
    """Scores, loss and the gradient of eyes and head by plain transformers, a row at a time."""
    from transformers import AutoModelForImageTextToText

    from gad_verl.core import bradley_terry_loss
    from gad_verl.discriminator.model import fresh_head_weight

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    head = fresh_head_weight(model.config, HEAD_SEED, model.lm_head.in_features).requires_grad_()
    scores, weights = [], []
    for group in groups:
        for ids in [*group.teacher_ids, *group.student_ids]:
            row = torch.tensor([[0] if ids is None else ids])
            seen = {}
            if group.images is not None and ids is not None:
                inputs = group.images.inputs
                seen = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
                seen["mm_token_type_ids"] = (row == model.config.image_token_id).long()
            hidden = model.model(input_ids=row, use_cache=False, **seen).last_hidden_state
            scores.append(hidden[0, -1].float() @ head[0])
        weights.append(group.valid_students())
    scores = torch.stack(scores).view(len(groups), NUM_STUDENTS + 1)
    loss = bradley_terry_loss(scores[:, 0], scores[:, 1:], weights=torch.tensor(weights))
    loss.backward()
    eyes = {name: value.grad for name, value in model.model.visual.named_parameters()}
    return {"scores": scores.detach(), "loss": loss.item(), "head": head.grad, "eyes": eyes}


def by_worker(worker: Any, groups: list[Any], world_size: int, form: str) -> dict[str, Any]:
    """Scores of all rows and the loss: by whole groups, or by rows as the second of two passes reads them."""
    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    from gad_verl.discriminator.groups import DistinctRows, GroupLayout, build_group_batch, padding_group
    from gad_verl.discriminator.plan import plan_batch

    layout = GroupLayout.of(groups, NUM_STUDENTS)

    def gathered(call: Any, data: Any, micro_batch: int) -> torch.Tensor:
        part = tu.chunk_tensordict(data, world_size)[dist.get_rank()]
        tu.assign_non_tensor(part, use_dynamic_bsz=False, micro_batch_size_per_gpu=micro_batch)
        found = call(part)
        parts: list[Any] = [None] * world_size
        dist.all_gather_object(parts, (found["scores"], found["loss"][:1] if "loss" in found.keys() else None))
        return torch.cat([one[0] for one in parts]), parts[0][1]

    if form == "rows":
        distinct = DistinctRows.of(groups, layout)
        plan = plan_batch([[len(row)] for row in distinct.rows], world_size, 2)
        scores, _ = gathered(worker.score, distinct.batch(plan), 2)
        return {"scores": plan.restored(scores)[distinct.take].view(len(groups), -1)}
    plan = plan_batch(layout.lengths(groups), world_size, 2)
    data = build_group_batch(plan.padded(groups, padding_group(NUM_STUDENTS)), NUM_STUDENTS, layout)
    scores, loss = gathered(worker.update, data, 2)
    return {"scores": plan.restored(scores.view(-1, layout.group_size)), "loss": loss.item()}


def teach(model: str, rows: list[Any], others: list[Any]) -> dict[str, Any]:
    """Cross-entropy of supervised rows by the student's worker: before, on other pictures, and while it learns."""
    from functools import partial

    from family_probe import build_student
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import sft_loss

    from gad_verl.trainer.supervised import build_supervised_batch

    worker = build_student(Path(model), override_config={"attn_implementation": "sdpa"})
    worker.set_loss_fn(partial(sft_loss, config=None))

    def batch(some: list[Any]) -> Any:
        # One row more, to fill up.
        return build_supervised_batch(some, len(some) + 1, 1, pad_token_id=0)

    def losses(some: list[Any]) -> list[float]:
        data = batch(some)
        tu.assign_non_tensor(data, compute_loss=False)
        found = tu.get(worker.infer_batch(data), "log_probs").unbind()
        masks = data["loss_mask"].unbind()
        return [-float(one[:-1] @ mask[1:].to(one)) for one, mask in zip(found, masks, strict=True)]

    first, blind = losses(rows), losses(others)
    text = losses(rows[1:2])
    steps = [
        float(torch.as_tensor(tu.get(worker.train_batch(batch(rows)), "metrics")["loss"]).mean()) for _ in range(5)
    ]
    return {"losses": first, "other_pictures": blind, "text": text, "steps": steps}


def plain_losses(folder: str, rows: list[Any]) -> list[float]:
    """The same by plain transformers, a row at a time."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        seen = {}
        if row.images is not None:
            seen = {name: row.images.inputs[name] for name in ("pixel_values", "image_grid_thw")}
            seen["mm_token_type_ids"] = (ids == model.config.image_token_id).long()
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False, **seen).logits
        log_probs = torch.log_softmax(logits[0, :-1].float(), dim=-1).gather(1, ids[0, 1:, None])
        found.append(-float(log_probs[len(row.prompt_ids) - 1 :].sum()))
    return found


def run_case(rank: int, world_size: int, variant: str, model_folder: str, folder: Path) -> dict[str, Any]:
    """A family: scores and gradient of one update, other pictures, and what some updates teach."""
    import torch.distributed as dist
    from tiny_vlm import build_vlm
    from worker_probe import build_worker, full_weights

    from gad_verl.trainer.supervised import SupervisedRow

    model = folder / "model"
    if rank == 0:
        build_vlm(model, variant)
    if world_size > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        dist.barrier()
    prompts = prompts_of(str(model))
    groups, others = image_groups(prompts), image_groups(prompts, first_picture=500)
    result: dict[str, Any] = {"plain": plain_scores(str(model), groups)}
    if world_size == 1:
        taught, blinded = (
            [
                SupervisedRow(
                    one.teacher_ids[0][: one.prompt_length], one.teacher_ids[0][one.prompt_length :], None, seen
                )
                for one, seen in zip(groups, pictures, strict=True)
            ]
            for pictures in ([one.images for one in groups], [one.images for one in others])
        )
        result["plain_losses"] = plain_losses(str(model), taught)
    worker = build_worker(str(model), "fsdp2", seed=HEAD_SEED)
    result["rows"] = by_worker(worker, groups, world_size, "rows")
    blind = [replace(group, images=other.images) for group, other in zip(groups, others, strict=True)]
    result["other_pictures"] = by_worker(worker, blind, world_size, "rows")
    before = full_weights(worker)
    looked: list[int] = []
    eyes = worker.engine.module.model.visual
    hook = eyes.register_forward_pre_hook(lambda _, given: looked.append(given[0].shape[0]))
    result["groups"] = by_worker(worker, groups, world_size, "groups")
    hook.remove()
    result["looked"] = sum(looked)
    # A batch in which nobody has an image, beside what plain transformers said of it.
    text = build_worker(str(model), "fsdp2", seed=HEAD_SEED)
    result["text"] = by_worker(text, [groups[1]] * 2, world_size, "groups")
    result["patches"] = sum(len(one.images.inputs["pixel_values"]) for one in groups if one.images is not None)
    after = full_weights(worker)
    result["gradient"] = {name: before[name] - after[name] for name in before}
    teaching = {"lr": 3e-3, "optimizer": "AdamW"}
    worker = build_worker(str(model), "fsdp2", seed=HEAD_SEED, optimizer=teaching)
    result["losses"] = [by_worker(worker, groups, world_size, "groups")["loss"] for _ in range(6)]
    if world_size == 1:
        result["student"] = teach(str(model), taught, blinded)
        worker = build_worker(str(model), "fsdp2", seed=HEAD_SEED, optimizer=teaching)
        for step in range(45):
            by_worker(worker, colour_groups(prompts, step), 1, "groups")
        for shown in (0, 1):
            scores = by_worker(worker, colour_groups(prompts, 1000, shown), 1, "rows")["scores"]
            result["right", shown] = (scores[:, :1] > scores[:, 1:]).float().mean().item()
    return result
