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
"""What never trained the discriminator, over runs: a rule that begins to hold out what it has seen is warned of."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from gad_verl.config import load_gad_config
from gad_verl.core.trust import HeldOut
from gad_verl.errors import GadCheckpointError
from gad_verl.preflight.objective_check import check_unseen
from gad_verl.tools.export.reward_model import Scoring
from gad_verl.trainer.checkpoints import GadState
from gad_verl.trainer.unseen import unseen, unseen_before
from gad_verl.trainer.whole import write_list


def resumes(config: DictConfig, held_out: HeldOut | None, has_discriminator: bool = True) -> Path:
    """A checkpoint from which the run would go on."""
    folder = Path(config.trainer.default_local_dir) / "global_step_3"
    GadState(3, "adversarial", has_discriminator, None, None, held_out=held_out).write(folder)
    for name in ("actor", "discriminator"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("data.pt", "gad_parts.pt"):
        (folder / name).write_text("")
    write_list(folder)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("3")
    return folder


def asks(config: DictConfig, fraction: float, seed: int = 0) -> DictConfig:
    with open_dict(config):
        OmegaConf.update(config, "gad.trust.held_out_fraction", fraction)
        OmegaConf.update(config, "gad.trust.seed", seed)
    return config


@pytest.mark.parametrize(
    ("before", "now", "after", "said"),
    [
        (HeldOut(0.25), (0.25, 0), HeldOut(0.25), None),
        (HeldOut(0.25), (0.1, 0), HeldOut(0.1), None),
        (HeldOut(0.1), (0.25, 0), HeldOut(0.1), "gad.trust.held_out_fraction=0.1 gad.trust.seed=0 as then"),
        (HeldOut(0.25), (0.25, 1), HeldOut(0.0), "gad.trust.held_out_fraction=0.25 gad.trust.seed=0 as then"),
        (HeldOut(0.0), (0.1, 0), HeldOut(0.0), "none was held out then"),
        (HeldOut(0.25), (0.0, 0), HeldOut(0.0), None),
        (None, (0.1, 0), None, None),
    ],
)
@pytest.mark.parametrize("begins_with", ["checkpoint", "model", "adapter"])
def test_what_it_was_begun_with(
    begins_with: str,
    before: HeldOut | None,
    now: tuple[float, int],
    after: HeldOut | None,
    said: str | None,
    tiny_config: DictConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, folder = asks(tiny_config, *now), tmp_path / "exported"
    if begins_with == "checkpoint":
        folder = resumes(config, before)
    else:
        folder.mkdir()
        Scoring(held_out=None if before is None else vars(before)).write(folder)
        key = "path" if begins_with == "model" else "lora_adapter_path"
        with open_dict(config):
            config.discriminator.model[key] = str(folder)
    gad = load_gad_config(config)
    assert unseen_before(config) == (before, folder) and unseen(config, gad) == after
    check_unseen(config, gad)
    if said is None:
        assert caplog.text == ""
    else:
        assert f"that have trained the discriminator of {folder} ({said})" in caplog.text


def test_of_a_fresh_one_everything_is_unseen(tiny_config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    gad = load_gad_config(asks(tiny_config, 0.2, 5))
    assert unseen(tiny_config, gad) == HeldOut(0.2, 5)
    check_unseen(tiny_config, gad)
    # A SeqKD that goes on has none either.
    resumes(tiny_config, None, has_discriminator=False)
    assert unseen(tiny_config, gad) == HeldOut(0.2, 5)
    assert caplog.text == ""


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"held_out": {"share": 1}}), json.dumps({"held_out": 3})])
def test_a_damaged_word_is_named(content: Any, tiny_config: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "gad_scoring.json").write_text(content)
    tiny_config.discriminator.model.path = str(tmp_path)
    gad = load_gad_config(asks(tiny_config, 0.2))
    with pytest.raises(GadCheckpointError, match=r"gad_scoring.json is damaged"):
        check_unseen(tiny_config, gad)
