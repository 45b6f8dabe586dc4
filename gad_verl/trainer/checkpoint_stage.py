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
"""Saving and resuming: discriminator, stages and tools beside verl's checkpoint."""

import logging
from pathlib import Path
from typing import Any

import ray
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from gad_verl.trainer import checkpoints
from gad_verl.trainer.watchdog import watched

logger = logging.getLogger(__name__)

DISCRIMINATOR_FOLDER = "discriminator"


class CheckpointStageMixin(PPOTrainer):
    """The part of ``GadTrainerSync`` that writes and reads checkpoints. Needs ``gad_config`` and ``toolbox``."""

    _resume_folder: Path | None = None

    @property
    def _discriminator_shape(self) -> dict[str, Any] | None:
        if not self._has_discriminator:
            return None
        return checkpoints.discriminator_shape(
            self.discriminator.hf_config, self.gad_config.discriminator_num_layers, self.config.discriminator.model
        )

    @property
    def _checkpoint_root(self) -> Path:
        return Path(self.config.trainer.default_local_dir).absolute()

    def _load_checkpoint(self) -> None:
        """Resume from a complete checkpoint only; the discriminator's part is loaded once its workers exist."""
        trainer = self.config.trainer
        self._resumed_from = None
        if trainer.resume_mode == "auto":
            folder = checkpoints.find_resumable(self._checkpoint_root)
            if folder is not None:
                checkpoints.write_tracker(self._checkpoint_root, int(folder.name.rsplit("_", 1)[1]))
        elif trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path).absolute()
        else:
            folder = None
        super()._load_checkpoint()
        self._resume_folder = folder
        if folder is None:
            return
        state = checkpoints.read_state(folder)
        self._resumed_from = folder if state.has_discriminator else None
        self._entered_stage, self._kl_reference = state.stage, state.kl_reference
        self.actor_rollout_wg.resume_stage(self._stage_steps(state.stage))
        if state.kl_reference is not None and self._wants_new_reference:
            self.actor_rollout_wg.load_reference_weights(str(folder.parent / state.kl_reference))
        logger.info("resumed from %s in stage %s", folder, state.stage)

    @watched
    def _save_checkpoint(self) -> None:
        """Discriminator and state first, verl's tracker last: a checkpoint that is tracked is whole."""
        folder = self._checkpoint_root / f"global_step_{self.global_steps}"
        if self._has_discriminator:
            self.discriminator.save(folder / DISCRIMINATOR_FOLDER, self.global_steps)
        checkpoints.GadState(
            step=self.global_steps,
            stage=self._entered_stage,
            has_discriminator=self._has_discriminator,
            kl_reference=self._kl_reference,
            discriminator_shape=self._discriminator_shape,
            has_critic=self.use_critic,
        ).write(folder)
        self._save_tools(folder)
        keep_actor = self.config.trainer.get("max_actor_ckpt_to_keep", None)
        keep = self.gad_config.keep_checkpoints or keep_actor
        keep_critic = self.config.trainer.get("max_critic_ckpt_to_keep", None)
        with open_dict(self.config.trainer):
            # verl's rotation would delete the student of a checkpoint before the tracker has moved on.
            self.config.trainer.max_actor_ckpt_to_keep = None
            self.config.trainer.max_critic_ckpt_to_keep = None
            try:
                super()._save_checkpoint()
            finally:
                self.config.trainer.max_actor_ckpt_to_keep = keep_actor
                self.config.trainer.max_critic_ckpt_to_keep = keep_critic
        checkpoints.mark_complete(folder)
        self._remove_everywhere(checkpoints.folders_to_remove(self._checkpoint_root, keep, self.global_steps))

    def _remove_everywhere(self, folders: list[Path]) -> None:
        """Delete checkpoints on every node that holds a part of them."""
        if not folders:
            return
        paths = [str(folder) for folder in folders]

        def remove(_: Any, targets: list[str] = paths) -> None:
            import shutil

            for target in targets:
                shutil.rmtree(target, ignore_errors=True)

        groups = [self.actor_rollout_wg, *([self.discriminator] if self._has_discriminator else [])]
        ray.get([worker.__ray_call__.remote(remove) for group in groups for worker in group.workers])
        logger.info("removed old checkpoints: %s", ", ".join(paths))

    def _save_tools(self, folder: Path) -> None:
        """State of the tools; written anew after a validation that a guardian has judged."""
        self.toolbox.save(folder, self.adversary)
