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
"""``gad.stage=soda``: the snapshot, SeqKD, preferences, and a run that is cut anywhere."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fake_run import FakeRun, random_answer
from omegaconf import DictConfig
from verl.utils import tensordict_utils as tu

from gad_verl.config import load_gad_config
from gad_verl.core.preference import PreferenceLogProbs, preference_gradients
from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.errors import GadCheckpointError, GadConfigError
from gad_verl.preflight.objective_check import check_objective
from gad_verl.trainer.begun import BegunRun
from gad_verl.trainer.checkpoints import GadState
from gad_verl.trainer.snapshot import PAIRS_FILE, Snapshot, SnapshotAnswer
from gad_verl.workers.row_gradients import ROW_GRADIENT, row_gradient_loss

# Two steps a pass: the snapshot takes one of them, SeqKD one step, preferences the rest.
PROMPTS, PASS, STEPS = 8, 2, 6


@pytest.fixture
def config(tiny_config: DictConfig) -> DictConfig:
    tiny_config.trainer.total_training_steps, tiny_config.trainer.total_epochs = STEPS, 10
    tiny_config.trainer.val_before_train = False
    tiny_config.trainer.test_freq = tiny_config.trainer.save_freq = -1
    tiny_config.data.train_max_samples, tiny_config.data.seed = PASS * PROMPTS, 7
    tiny_config.gad.stage, tiny_config.gad.warmup_steps = "soda", 1
    tiny_config.gad.warmup.actor_lr, tiny_config.gad.adversarial.actor_lr = 3e-4, 1e-4
    return tiny_config


@pytest.fixture
def start(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    return lambda answer=random_answer: FakeRun(config, monkeypatch, answer).fit()


def pairs_of(config: DictConfig) -> list[dict[str, Any]]:
    path = Path(config.trainer.default_local_dir) / PAIRS_FILE
    return [json.loads(line) for line in path.read_text().splitlines()]


def text_of(run: FakeRun, ids: torch.Tensor, mask: torch.Tensor) -> str:
    return run.trainer.tokenizer.decode(ids[mask.bool()].tolist(), skip_special_tokens=True)


def test_snapshot_then_texts_then_preferences(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    run = start()
    assert [run.metrics[step]["gad/stage"] for step in range(1, STEPS + 1)] == [4, 4, 3, 5, 5, 5]
    # One answer a prompt, in the snapshot alone; nobody is trained in it and there is no discriminator.
    assert run.rollouts.sessions == [1] * PASS and run.discriminator is None
    assert len(run.student.named("supervised_update")) == STEPS - PASS
    assert run.student.named("use_loss") == ["policy"] * PASS + ["supervised"] + ["row_gradient"] * 3
    assert run.student.named("begin_stage") == [(3e-4, 1, True), (1e-4, 3, True)]
    # The reference is the student behind SeqKD, and its optimizer begins anew.
    names = [name for name, _ in run.student.calls if name in ("load_reference_weights", "reset_moments")]
    assert names == ["load_reference_weights", "reset_moments"]
    assert run.replicas[-1] == "asleep" and run.queue.kv_list("train") == {"train": {}}


def test_the_pairs_are_the_teacher_over_the_first_answer(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    run = start()
    exported, rows = pairs_of(config), pd.read_parquet(config.data.train_files)
    assert len(exported) == PASS * PROMPTS
    teachers = {
        json.dumps(list(prompt)): text for prompt, text in zip(rows["prompt"], rows["teacher_response"], strict=True)
    }
    for pair in exported:
        assert pair["chosen"][0]["content"] == teachers[json.dumps(pair["prompt"])]
    known = {(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in exported}
    for batch in run.student.named("supervised_update")[1:]:
        half = len(batch["input_ids"]) // 2
        texts = [
            text_of(run, *one) for one in zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
        ]
        assert half == PROMPTS and set(zip(texts[:half], texts[half:], strict=True)) <= known


def test_the_rows_carry_the_gradient_of_the_loss(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    config.gad.soda.beta, config.gad.supervised_weight = 0.3, 0.5
    run = start()
    batch, now, ref = (run.student.named(name)[-1] for name in ("supervised_update", "read_texts", "read_reference"))
    del now, ref
    ids, masks = batch["input_ids"].unbind(), batch["loss_mask"].unbind()
    sums = [
        torch.stack(
            [(-(one % base + 1.0) / base)[:-1] @ mask[1:].float() for one, mask in zip(ids, masks, strict=True)]
        )
        for base in (7, 5)
    ]
    half = len(ids) // 2
    pairs = PreferenceLogProbs(sums[0][:half], sums[0][half:], sums[1][:half], sums[1][half:])
    of_chosen, of_rejected = preference_gradients(pairs, 0.3)
    tokens = sum(int(mask.sum()) for mask in masks[:half])
    expected = torch.cat([of_chosen - 0.5 / tokens, of_rejected]).float()
    assert torch.allclose(batch[ROW_GRADIENT], expected, atol=1e-6)
    assert run.metrics[STEPS]["actor/loss"] == run.metrics[STEPS]["gad/preference_loss"]


def test_under_lora_the_reference_is_the_adapter_of_that_moment(
    config: DictConfig, start: Callable[..., FakeRun]
) -> None:
    config.actor_rollout_ref.model.lora_rank = 8
    run = start()
    assert run.student.named("read_reference") == []
    flags = [bool(tu.get(batch, "no_lora_adapter", False)) for batch in run.student.named("read_texts")]
    assert flags == [False, True] * 3


def test_prompts_without_an_answer_make_no_pair(config: DictConfig, start: Callable[..., FakeRun]) -> None:
    run = start(lambda index, session, step: None if index % 2 else random_answer(index, session, step))
    assert len(pairs_of(config)) == PASS * PROMPTS / 2
    metrics = [run.metrics[step] for step in (5, 6)]
    assert sum(one["gad/pairs"] for one in metrics) == sum(one["gad/unpaired_prompts"] for one in metrics) == PROMPTS


@pytest.mark.parametrize("cut", range(1, STEPS))
def test_a_resumed_run_learns_from_the_same_pairs(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: int
) -> None:
    config.trainer.save_freq = 1

    def run(folder: str, ends: int) -> FakeRun:
        config.trainer.default_local_dir = str(tmp_path / folder / "checkpoints")
        (tmp_path / folder).mkdir(exist_ok=True)
        one = FakeRun(config, monkeypatch)
        if ends < STEPS:

            def stop() -> None:
                if one.trainer.global_steps > ends:
                    raise KeyboardInterrupt

            one.trainer.on_step_begin = stop
        try:
            one.fit()
        except KeyboardInterrupt:
            pass
        return one

    whole, first, second = run("whole", STEPS), run("cut", cut), run("cut", STEPS)
    learned = [
        [
            (batch["input_ids"].unbind(), batch[ROW_GRADIENT] if ROW_GRADIENT in batch.keys() else None)
            for one in runs
            for batch in one.student.named("supervised_update")
        ]
        for runs in ([whole], [first, second])
    ]
    assert len(learned[0]) == len(learned[1]) == STEPS - PASS
    for (ids, gradient), (same, also) in zip(*learned, strict=True):
        assert [one.tolist() for one in ids] == [one.tolist() for one in same]
        assert gradient is also is None or torch.equal(gradient, also)
    texts = [(tmp_path / name / "checkpoints" / PAIRS_FILE).read_text() for name in ("whole", "cut")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (StageSchedule("soda", 9, 2, snapshot_steps=2), None),
        (StageSchedule("soda", 9, 3, snapshot_steps=2), "gad.warmup_steps=2, and now it is 3"),
        (StageSchedule("soda", 9, 2, snapshot_steps=3), "gad.soda.snapshot_steps=2, and now it is 3"),
        (StageSchedule("seqkd", 9), "of gad.stage=soda, and now it is seqkd"),
    ],
)
def test_a_run_does_not_go_back(tmp_path: Path, now: StageSchedule, words: str | None) -> None:
    begun = StageSchedule("soda", 9, 2, snapshot_steps=2)
    run = BegunRun(tmp_path, GadState(5, "preference", False, None, None, schedule=begun))
    if words is None:
        assert run.check(now) == now
        return
    with pytest.raises(GadCheckpointError, match=f"{words}.*gad.stage=soda gad.soda.snapshot_steps=2 gad.warmup_st"):
        run.check(now)


def test_what_a_killed_run_wrote_behind_its_checkpoint_is_written_again(tmp_path: Path) -> None:
    def pair(number: int) -> tuple[list[dict], str, SnapshotAnswer]:
        return [{"role": "user", "content": f"q{number}"}], f"t{number}", SnapshotAnswer(f"a{number}", number % 2 == 0)

    one = Snapshot(tmp_path)
    assert one.add([pair(1), pair(2), pair(1)]) == 2
    state, before = one.state_dict(), (tmp_path / PAIRS_FILE).read_bytes()
    one.add([pair(3)])
    two = Snapshot(tmp_path)
    two.load_state_dict(state)
    assert len(two) == 2 and two.answer(pair(2)[0]) == SnapshotAnswer("a2", True) and two.answer(pair(3)[0]) is None
    two.add([pair(4)])
    assert (tmp_path / PAIRS_FILE).read_bytes().startswith(before)
    assert [json.loads(line)["prompt"][0]["content"] for line in (tmp_path / PAIRS_FILE).read_text().splitlines()] == [
        "q1",
        "q2",
        "q4",
    ]
    (tmp_path / PAIRS_FILE).write_bytes(before[:-9])
    with pytest.raises(GadCheckpointError, match=PAIRS_FILE):
        Snapshot(tmp_path).load_state_dict(state)


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\r\n", "\n"])
def test_a_text_may_hold_what_others_take_for_the_end_of_a_line(tmp_path: Path, end: str) -> None:
    messages, answer = [{"role": "user", "content": f"a{end}b"}], SnapshotAnswer(f"c{end}d", True)
    one, two = Snapshot(tmp_path), Snapshot(tmp_path)
    one.add([(messages, f"e{end}f", answer)])
    two.load_state_dict(one.state_dict())
    assert two.answer(messages) == answer


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("actor_rollout_ref.actor.use_kl_loss", False, "use_kl_loss=True"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", 4, "ppo_mini_batch_size=8"),
        ("gad.curriculum.mode", "pool", "curriculum.mode"),
    ],
)
def test_settings_that_do_not_fit_are_named(config: DictConfig, key: str, value: Any, words: str) -> None:
    from omegaconf import OmegaConf

    check_objective(config, load_gad_config(config))
    OmegaConf.update(config, key, value)
    with pytest.raises(GadConfigError, match=words):
        check_objective(config, load_gad_config(config))


def test_the_schedule_has_three_parts_in_their_order() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        snapshot, warmup, rest = rng.randint(1, 5), rng.randint(0, 5), rng.randint(1, 5)
        total = snapshot + warmup + rest
        schedule = StageSchedule("soda", total, warmup, snapshot_steps=snapshot)
        phases = [schedule.phase(step) for step in range(1, total + 1)]
        assert phases == [Phase.SNAPSHOT] * snapshot + [Phase.SEQKD] * warmup + [Phase.PREFERENCE] * rest
        with pytest.raises(ValueError, match="no step for preferences"):
            StageSchedule("soda", snapshot + warmup, warmup, snapshot_steps=snapshot)


def test_the_loss_of_the_workers_is_linear_in_the_log_probabilities() -> None:
    torch.manual_seed(0)
    lengths, responses = [5, 3, 6], [2, 1, 4]
    ids = torch.nested.as_nested_tensor([torch.arange(n) for n in lengths], layout=torch.jagged)
    masks = [torch.tensor([0] * (n - r) + [1] * r) for n, r in zip(lengths, responses, strict=True)]
    values = [torch.randn(n, requires_grad=True) for n in lengths]
    gradients = torch.tensor([0.5, -2.0, 0.0])
    data = {
        "input_ids": ids,
        "loss_mask": torch.nested.as_nested_tensor(masks, layout=torch.jagged),
        ROW_GRADIENT: gradients,
        "dp_size": 2,
    }
    nested = torch.nested.as_nested_tensor(values, layout=torch.jagged)
    loss, _ = row_gradient_loss({"log_probs": nested}, data)
    expected = sum(
        weight * value[n - r - 1 : n - 1].sum()
        for weight, value, n, r in zip(gradients, values, lengths, responses, strict=True)
    )
    assert loss.item() == pytest.approx(2 * expected.item(), abs=1e-5)
