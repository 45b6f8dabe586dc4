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
"""The real worker with LoRA on real FSDP: what is trained, saved, restored and exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from probe_cases import Case, Probes, Results
from reward_scores import classifier_scores
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification
from worker_probe import make_groups

from gad_verl.discriminator.shared_keys import pack_keyed_groups
from gad_verl.errors import GadCheckpointError
from gad_verl.tools.commands.export import add_to
from gad_verl.tools.export.weights import export_part, load_state

LAYOUTS = [(1, "fsdp"), (1, "fsdp2"), (2, "fsdp"), (2, "fsdp2")]
PROBE_CASES = [Case(world_size, "lora_probe", strategy) for world_size, strategy in LAYOUTS]
HEAD = "base_model.model.score.modules_to_save.default.weight"
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}")


@pytest.fixture(scope="module")
def probe(probes: Probes) -> Results:
    """What the worker computed in every layout, on one rank and on two."""
    return probes.of("lora_probe")


def plain_scores(model: Any) -> torch.Tensor:
    """Scores of the probe's groups by transformers alone; failed rollouts count as one token 0."""
    rows = [row for group in make_groups() for row in [*group.teacher_ids, *group.student_ids]]
    ids = [torch.tensor([0] if row is None else row) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    with torch.no_grad():
        logits = model(input_ids=pad_sequence(ids, batch_first=True), attention_mask=mask).logits.squeeze(-1)
    return logits[torch.arange(len(ids)), mask.sum(1) - 1]


def used_rows() -> torch.Tensor:
    """Rows that are no failed rollouts."""
    return torch.tensor(
        [row is not None for group in make_groups() for row in [*group.teacher_ids, *group.student_ids]]
    )


@each_layout
def test_adapter_and_head_change_and_nothing_else(probe: Results, layout: tuple[int, str]) -> None:
    root = probe[layout]["root"]
    before = load_state(root / "global_step_0" / "discriminator")
    after = load_state(root / "global_step_2" / "discriminator")
    assert set(before) == set(after) and HEAD in after
    for name in before:
        trained = ".lora_" in name or ".modules_to_save." in name
        # The bias of the head cancels in the loss.
        assert torch.equal(before[name], after[name]) != trained or name.endswith("bias"), name
    assert torch.equal(before["base_model.model.score.original_module.weight"], before[HEAD])
    assert sum(".lora_B." in name for name in after) == 14, "seven linear layers in each of two blocks"
    assert not any("score" in name and ".lora_" in name for name in after), "the head is trained whole"


@each_layout
def test_training_is_saved_and_restored_with_its_optimizer(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    assert (found["saved"] - found["start"]).abs().max() > 0.1
    assert (found["other"] - found["start"]).abs().max() > 0.1, "another seed, another head"
    torch.testing.assert_close(found["loaded"], found["saved"], atol=1e-6, rtol=0)
    assert (found["later"] - found["saved"]).abs().max() > 0.1
    torch.testing.assert_close(found["resumed"], found["later"], atol=1e-6, rtol=0)


@each_layout
def test_training_does_not_depend_on_the_layout(probe: Results, layout: tuple[int, str]) -> None:
    reference = probe[LAYOUTS[0]]
    torch.testing.assert_close(probe[layout]["start"], reference["start"], atol=1e-5, rtol=0)
    assert (reference["descended"] - reference["start"]).abs().max() > 0.01
    torch.testing.assert_close(probe[layout]["descended"], reference["descended"], atol=1e-4, rtol=0)


@each_layout
def test_shared_prompts_and_gradient_checkpointing_change_nothing(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    assert found["flash_packs_by"] == pack_keyed_groups.__name__, "else flash attention shares nothing"
    for name in ("shared", "shared_flash"):
        torch.testing.assert_close(found[name], found["apart"], atol=1e-5, rtol=0)


@each_layout
def test_a_frozen_adapter_computes_as_it_did(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    torch.testing.assert_close(found["frozen"], found["saved"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found["thawed"], found["later"], atol=1e-6, rtol=0)


@each_layout
def test_the_whole_adapter_can_be_sent(probe: Results, layout: tuple[int, str]) -> None:
    """As the student's is sent to the rollout; the head is no part of LoRA."""
    found = probe[layout]
    saved = load_state(found["root"] / "global_step_2" / "discriminator")
    expected = {name.replace(".default.", "."): tensor for name, tensor in saved.items() if ".lora_" in name}
    assert set(found["weights"]) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found["weights"][name], tensor), name
    assert not found["alone"] and found["modules_to_save"] == ["score"]


@each_layout
def test_the_merged_export_scores_as_the_worker(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    model = AutoModelForTokenClassification.from_pretrained(found["root"] / "merged", attn_implementation="sdpa")
    assert model.dtype == torch.float32 and not any("lora" in name for name in model.state_dict())
    used = used_rows()
    torch.testing.assert_close(plain_scores(model.eval())[used], found["saved"][used], atol=1e-5, rtol=0)
    # As a plain reward model too; the trained head has a bias, which the classifier leaves out.
    rows = [[0] if row is None else row for group in make_groups() for row in [*group.teacher_ids, *group.student_ids]]
    scores = classifier_scores(found["root"] / "merged", rows)
    torch.testing.assert_close(scores[used], found["saved"][used], atol=1e-5, rtol=0)


@each_layout
def test_the_exported_adapter_scores_as_the_worker(probe: Results, model_folder: Path, layout: tuple[int, str]) -> None:
    found = probe[layout]
    folder = found["root"] / "adapter"
    assert not list(folder.glob("model*.safetensors")), "the base is not written"
    base = AutoModelForTokenClassification.from_pretrained(model_folder, num_labels=1, attn_implementation="sdpa")
    used = used_rows()
    scores = plain_scores(PeftModel.from_pretrained(base, folder).eval())
    torch.testing.assert_close(scores[used], found["saved"][used], atol=1e-5, rtol=0)
    # And a discriminator can start from it, head included.
    torch.testing.assert_close(found["from_adapter"], found["saved"], atol=1e-6, rtol=0)


@each_layout
def test_adapter_and_head_are_float32_on_a_bfloat16_body(probe: Results, layout: tuple[int, str]) -> None:
    found = probe[layout]
    state = load_state(found["root"] / "narrow" / "discriminator")
    for name, tensor in state.items():
        wide = ".lora_" in name or ".score." in name
        assert tensor.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert (found["narrow"] - found["narrow_start"]).abs().max() > 0.1
    assert (found["narrow"] != found["narrow"].bfloat16().float()).float().mean() > 0.8
    torch.testing.assert_close(found["narrow_start"], found["start"], atol=5e-2, rtol=0)


def test_a_merge_in_bfloat16_is_not_asked_for_by_the_checkpoint(probe: Results, tmp_path: Path) -> None:
    """Merged in the precision of the adapter: the base's own would round the steps away."""
    found = probe[(1, "fsdp")]
    checkpoint = found["root"] / "narrow"
    exported = export_part(checkpoint, "discriminator", tmp_path / "wide")
    model = AutoModelForTokenClassification.from_pretrained(exported, attn_implementation="sdpa")
    assert model.dtype == torch.float32
    used = used_rows()
    # The worker computes in bfloat16.
    torch.testing.assert_close(plain_scores(model.eval())[used], found["narrow"][used], atol=0.1, rtol=0.1)
    narrow = export_part(checkpoint, "discriminator", tmp_path / "narrow", torch.bfloat16)
    assert AutoModelForTokenClassification.from_pretrained(narrow).dtype == torch.bfloat16


def test_export_errors_name_the_cause(probe: Results, tmp_path: Path) -> None:
    source = probe[(1, "fsdp")]["root"] / "global_step_2" / "discriminator"
    checkpoint = tmp_path / "global_step_2"
    folder = checkpoint / "discriminator"
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name != "adapter_config.json":
            (folder / file.name).symlink_to(file)
    with pytest.raises(GadCheckpointError, match="adapter_config.json"):
        export_part(checkpoint, "discriminator", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_the_command_offers_the_adapter() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers())
    arguments = ["export", "global_step_1", "--output", "x"]
    assert parser.parse_args(arguments).adapter is False
    assert parser.parse_args([*arguments, "--adapter"]).adapter is True
