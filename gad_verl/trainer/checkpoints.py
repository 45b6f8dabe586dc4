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
"""Folders of checkpoints: what belongs to one, which is complete, which may go. Plain file operations.

A checkpoint of step N is the folder ``global_step_N`` with ``actor/``, ``discriminator/``, ``data.pt``,
``gad_state.json`` and ``gad_parts.pt``. verl's tracker file names the newest one and is written last, so a run that is
killed while saving resumes from the one before. The warmed-up KL reference lies beside them in ``kl_reference_step_N``.
"""

import json
import logging
import pickle
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, open_dict

from gad_verl.core.schedule import StageSchedule
from gad_verl.core.trust import HeldOut
from gad_verl.errors import GadCheckpointError
from gad_verl.record.files import replaced, write_atomically
from gad_verl.trainer.lease import Lease
from gad_verl.trainer.whole import COMPLETE_FILE, check_space, damages, write_list

logger = logging.getLogger(__name__)

STATE_FILE = "gad_state.json"
PARTS_FILE = "gad_parts.pt"
DISCRIMINATOR_FOLDER = "discriminator"
TRACKER_FILE = "latest_checkpointed_iteration.txt"
_FOLDER = re.compile(r"global_step_(\d+)")
# An old name of verl for keeping one checkpoint (verl/trainer/ppo/v1/trainer_base.py, _save_checkpoint).
_KEEP_ONE = "remove_previous_ckpt_in_save"


@dataclass(frozen=True)
class GadState:
    """What a checkpoint remembers beyond weights and optimizers.

    Args:
        step: Step after which it was saved.
        stage: Name of the learning-rate stage that was entered: "warmup", "adversarial", "seqkd" or
            "preference".
        has_discriminator: Whether the folder ``discriminator`` belongs to it.
        kl_reference: Name of the folder of the warmed-up reference beside the checkpoint, or its path where the run was
            resumed from another folder; None without one.
        discriminator_shape: Sizes of the discriminator (``discriminator_shape``).
        has_critic: Whether the folder ``critic`` belongs to it (PPO with verl's critic).
        schedule: Where the stages of the run begin and end, in steps; None in checkpoints of older versions.
        has_transfer_queue: Whether the folder ``transfer_queue`` belongs to it: prompts on their way, asynchronous.
        held_out: Prompts that have never trained its discriminator; None where that is not known.
    """

    step: int
    stage: str
    has_discriminator: bool
    kl_reference: str | None
    discriminator_shape: dict[str, Any] | None
    has_critic: bool = False
    schedule: StageSchedule | None = None
    has_transfer_queue: bool = False
    held_out: HeldOut | None = None

    def write(self, folder: Path) -> None:
        """Write ``gad_state.json``; the file is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / STATE_FILE, json.dumps(asdict(self), indent=2))


def read_state(folder: Path) -> GadState:
    """Read the state of a checkpoint.

    Raises:
        GadCheckpointError: If it is missing or unreadable.
    """
    path = folder / STATE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schedule") is not None:
            content["schedule"] = StageSchedule(**content["schedule"])
        if content.get("held_out") is not None:
            content["held_out"] = HeldOut(**content["held_out"])
        return GadState(**content)
    except FileNotFoundError:
        raise GadCheckpointError(
            f"{folder} was not written by gad_verl ({STATE_FILE} is missing). Set trainer.resume_mode=disable, or "
            "trainer.default_local_dir to another folder"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise GadCheckpointError(f"{path} is damaged: {error}") from None


def missing_parts(folder: Path) -> list[str]:
    """What a checkpoint lacks, in words; empty if it can be resumed from."""
    try:
        state = read_state(folder)
    except GadCheckpointError:
        return [f"{STATE_FILE} is missing or damaged"]
    wanted = ["actor", "data.pt", PARTS_FILE]
    wanted += [name for name in ("discriminator", "critic", "transfer_queue") if getattr(state, f"has_{name}")]
    missing = [f"{name} is missing" for name in wanted if not (folder / name).exists()] or damages(folder)
    if state.kl_reference is not None and not (folder.parent / state.kl_reference).is_dir():
        beside = "" if Path(state.kl_reference).is_absolute() else "../"
        missing.append(f"{beside}{state.kl_reference} is missing")
    return missing


def step_folders(root: Path) -> list[Path]:
    """The folders ``global_step_N`` below ``root``, by rising step."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)]
    return sorted(folders, key=lambda path: int(path.name.rsplit("_", 1)[1]))


def _tracked_step(root: Path) -> int | None:
    try:
        return int((root / TRACKER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        # Killed between opening and writing: the checkpoint itself is whole.
        return -1


def find_resumable(root: Path) -> Path | None:
    """The checkpoint to resume from: the tracked one, or the newest complete one where the tracker file is damaged.

    Raises:
        GadCheckpointError: If the tracked checkpoint is incomplete and no other complete one exists.
    """
    tracked = _tracked_step(root)
    if tracked is None:
        return None
    folder = root / f"global_step_{tracked}"
    missing = missing_parts(folder) if folder.is_dir() else ["the folder itself is missing"]
    if tracked >= 0 and not missing:
        return folder
    complete = [path for path in step_folders(root) if (path / COMPLETE_FILE).exists() and not missing_parts(path)]
    if complete:
        logger.warning("%s cannot be resumed from (%s); taking %s", folder, ", ".join(missing), complete[-1])
        return complete[-1]
    raise GadCheckpointError(
        f"{folder}, named by {root / TRACKER_FILE}, cannot be resumed from: {', '.join(missing)}. Restore it, "
        "or set trainer.resume_mode=disable to start anew"
    )


def write_tracker(root: Path, step: int) -> None:
    """Point the tracker to ``step``; the file is there whole or not at all."""
    write_atomically(root / TRACKER_FILE, str(step))


def folders_to_remove(root: Path, keep: int | None, current_step: int) -> list[Path]:
    """Checkpoints beyond the newest ``keep`` complete ones; never the current one or a newer one."""
    if keep is None:
        return []
    complete = [
        path
        for path in step_folders(root)
        if (path / COMPLETE_FILE).exists() and int(path.name.rsplit("_", 1)[1]) <= current_step
    ]
    return [path for path in complete[:-keep] if path.name != f"global_step_{current_step}"]


def discriminator_shape(hf_config: Any, num_layers: int | None, model: Any = None) -> dict[str, Any]:
    """The sizes that decide whether a checkpoint of a discriminator fits.

    Args:
        hf_config: Configuration of its body.
        num_layers: ``gad.discriminator_num_layers``.
        model: The section ``discriminator.model``; with LoRA, rank and scale belong to the sizes.
    """
    lora = {}
    if model is not None and model.get("lora_rank", 0) > 0:
        lora = {"lora_rank": model.lora_rank, "lora_alpha": model.lora_alpha}
    text_config = hf_config.get_text_config()
    return {
        "model_type": hf_config.model_type,
        "hidden_size": text_config.hidden_size,
        "num_hidden_layers": num_layers or text_config.num_hidden_layers,
        "vocab_size": text_config.vocab_size,
        **lora,
    }


class HasState(Protocol):
    """A part of a run that remembers something."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What :meth:`state_dict` returned."""


def save_parts(folder: Path, parts: Mapping[str, HasState]) -> None:
    """Write ``gad_parts.pt`` with the states of all parts by their names; the file is there whole or not at all."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / PARTS_FILE) as temporary:
        torch.save({name: part.state_dict() for name, part in parts.items()}, temporary)


def load_parts(folder: Path, parts: Mapping[str, HasState]) -> None:
    """Let all parts go on where :func:`save_parts` was called; a part that is new since begins anew.

    Raises:
        GadCheckpointError: If the file is missing or damaged.
    """
    import torch

    path = folder / PARTS_FILE
    try:
        state = torch.load(path, weights_only=True)
        for name, part in parts.items():
            if name in state:
                part.load_state_dict(state[name])
    except FileNotFoundError:
        raise GadCheckpointError(
            f"{folder} lacks {PARTS_FILE}: it was written by another version of gad_verl. Set "
            "trainer.resume_mode=disable, or export its student and start from that (gad-verl export)"
        ) from None
    except (KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise GadCheckpointError(f"{path} is damaged: {error}") from error


class CheckpointFolders:
    """Where a run saves, and from where it resumes.

    Args:
        trainer: The section ``trainer``.
        keep: ``gad.keep_checkpoints``; None takes verl's ``trainer.max_actor_ckpt_to_keep``.
        save_minutes: ``gad.save_minutes``.
    """

    def __init__(self, trainer: DictConfig, keep: int | None, save_minutes: float | None = None) -> None:
        self._trainer = trainer
        self._keep = keep or (1 if trainer.get(_KEEP_ONE, False) else trainer.get("max_actor_ckpt_to_keep", None))
        self.root = Path(trainer.default_local_dir).absolute()
        self.resumed: Path | None = None
        self._lease = Lease(self.root)
        self._save_minutes, self._saved_s = save_minutes, time.monotonic()

    @property
    def is_time(self) -> bool:
        """Whether ``gad.save_minutes`` have passed since the last checkpoint, or since the run began."""
        return self._save_minutes is not None and time.monotonic() - self._saved_s >= 60 * self._save_minutes

    def begin(self) -> None:
        """This run writes from now on."""
        self._lease.take()
        self._saved_s = time.monotonic()

    def begin_save(self, step: int) -> Path:
        """The folder of a step's checkpoint, where it may be written and there is space for it.

        Raises:
            GadCheckpointError: If another run writes here, or the disk has not enough space.
        """
        self._lease.check()
        complete = [path for path in step_folders(self.root) if (path / COMPLETE_FILE).exists()]
        check_space(self.root, complete[-1] if complete else None, step)
        return self.of_step(step)

    def of_step(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.root / f"global_step_{step}"

    def find(self) -> None:
        """Find the complete checkpoint to resume from, and let verl's tracker name it."""
        if self._trainer.resume_mode == "auto":
            self.resumed = find_resumable(self.root)
            if self.resumed is not None:
                write_tracker(self.root, int(self.resumed.name.rsplit("_", 1)[1]))
        elif self._trainer.resume_mode == "resume_path":
            self.resumed = Path(self._trainer.resume_from_path).absolute()

    @contextmanager
    def without_rotation(self) -> Iterator[None]:
        """verl's rotation would delete the student of a checkpoint before the tracker has moved on."""
        names = ("max_actor_ckpt_to_keep", "max_critic_ckpt_to_keep", _KEEP_ONE)
        before = {name: self._trainer.get(name, None) for name in names}
        with open_dict(self._trainer):
            self._trainer.update(dict.fromkeys(names))
            try:
                yield
            finally:
                self._trainer.update(before)

    def finish(self, step: int) -> list[Path]:
        """A step's checkpoint is whole and tracked; returns those that may go."""
        write_list(self.of_step(step))
        self._saved_s = time.monotonic()
        return folders_to_remove(self.root, self._keep, step)
