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
"""Which prompts the discriminator of a run has never been trained on, whatever trained it before.

What it knows is asked on these alone. A rule that begins to hold out prompts which have trained it would ask it what it
has learned by heart, and f would say that it knows more than it does.
"""

import json
from pathlib import Path

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.core.trust import HeldOut
from gad_verl.discriminator.form import SCORING_FILE
from gad_verl.errors import GadCheckpointError
from gad_verl.trainer.begun import resume_folder
from gad_verl.trainer.checkpoints import read_state

_ALL = HeldOut(1.0)


def unseen_before(config: DictConfig) -> tuple[HeldOut | None, Path | None]:
    """What had never trained the discriminator when this run begins or goes on, and the folder that says so.

    Returns:
        None where a checkpoint or an exported discriminator of an older version says nothing. Every prompt for a model
        that gad_verl has not written: what has trained it is not among its teacher's texts, as far as one can know.

    Raises:
        GadCheckpointError: If what the folder says is damaged.
    """
    resumed = resume_folder(config.trainer)
    if resumed is not None:
        state = read_state(resumed)
        if state.has_discriminator:
            return state.held_out, resumed
    model = config.discriminator.model
    for name in (model.get("lora_adapter_path", None), model.path):
        folder = Path(str(name)).expanduser()
        if name is not None and (folder / SCORING_FILE).is_file():
            return _exported(folder), folder
    return _ALL, None


def unseen(config: DictConfig, gad_config: GadConfig) -> HeldOut | None:
    """What will never have trained the discriminator at the end of this run either; None where that is not known."""
    before, _ = unseen_before(config)
    return None if before is None else before.also_by(gad_config.trust.held_out)


def _exported(folder: Path) -> HeldOut | None:
    path = folder / SCORING_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("held_out")
        return None if found is None else HeldOut(**found)
    except (ValueError, TypeError, AttributeError) as error:
        raise GadCheckpointError(f"{path} is damaged: {error}") from None
