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
"""The training data of a run: rows drawn by a curriculum, files that are looked at again after each pass.

Nothing here acts unless ``gad.curriculum.mode`` or ``gad.reload_data`` is set.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from torch.utils.data import Sampler
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from gad_verl.config import GadConfig
from gad_verl.core.curriculum import Curriculum, group_margins
from gad_verl.data.curriculum_sampler import CurriculumSampler, row_difficulty, row_keys
from gad_verl.data.dataset import GadDataset
from gad_verl.data.file_stamps import FileStamp, changed_files, file_list, stamp_files
from gad_verl.data.row_checks import TrainingRowChecks
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.trainer.data_state import (
    SAMPLER_OF_CURRICULUM,
    SAMPLER_OF_VERL,
    DataState,
    resumed_data_state,
)

logger = logging.getLogger(__name__)


class _Passes(Iterator[dict]):
    """Batches without end: at the end of a pass the trainer may replace its data loader, then the next pass begins."""

    def __init__(self, trainer: "TrainingDataMixin") -> None:
        self._trainer = trainer
        self._batches = iter(trainer.train_dataloader)

    def __next__(self) -> dict:
        try:
            return next(self._batches)
        except StopIteration:
            self._trainer.on_data_pass_end()
            self._batches = iter(self._trainer.train_dataloader)
            return next(self._batches)


class TrainingDataMixin(PPOTrainer):
    """The part of ``GadTrainerSync`` that decides which rows a step gets. Needs ``gad_config`` and ``watchdog``."""

    gad_config: GadConfig

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.teacher_mix = self.gad_config.teachers.build()
        self._data_events: list[dict[str, Any]] = []
        self._data_saved: DataState | None = None
        self._data_stamps: list[FileStamp] = []
        self._data_refused: list[FileStamp] = []
        self._data_passes = 0
        self._data_reloads = 0

    # ------------------------------ for the rest of the trainer ------------------------------

    def take_data_events(self) -> list[dict[str, Any]]:
        """Decisions since the last call, as lines of ``record/events.jsonl``."""
        events, self._data_events = self._data_events, []
        return events

    def data_metrics(self) -> dict[str, float]:
        """Metrics of the rows of this step; empty where neither a curriculum nor reloading is on."""
        metrics: dict[str, float] = {}
        sampler = self._curriculum_sampler
        if sampler is not None and sampler.last_draw is not None:
            metrics |= sampler.last_draw.metrics()
        if self._reloads:
            metrics |= {
                "gad/data_rows": float(len(self.train_dataset)),
                "gad/data_passes": float(self._data_passes),
                "gad/data_reloads": float(self._data_reloads),
            }
        return metrics

    def observe_scores(
        self,
        indices: Sequence[int],
        teacher_scores: torch.Tensor,
        student_scores: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Show a step's scores to a curriculum that learns the student's margins.

        Args:
            indices: Row of each of the G groups.
            teacher_scores: (G,) or (G, k).
            student_scores, weights: (G, n).
        """
        sampler = self._curriculum_sampler
        if sampler is not None and sampler.curriculum.learns:
            margins = group_margins(*(values.double().numpy() for values in (teacher_scores, student_scores, weights)))
            sampler.curriculum.update(indices, margins)

    # ------------------------------ set-up ------------------------------

    @property
    def _reloads(self) -> bool:
        return self.gad_config.reload_data == "epoch"

    @property
    def _curriculum_sampler(self) -> CurriculumSampler | None:
        sampler = self.train_dataloader.sampler
        return sampler if isinstance(sampler, CurriculumSampler) else None

    @property
    def _train_files(self) -> list[str]:
        return file_list(self.config.data.train_files)

    def _init_dataloader(self) -> None:
        self._data_saved = resumed_data_state(self.config.trainer)
        if self._reloads:
            # Before verl reads them: a file that changes meanwhile is noticed at the end of the first pass.
            self._data_stamps = stamp_files(self._train_files)
        if self._reloads and self._data_saved is not None:
            self._init_with_length(self._data_saved.steps_per_epoch)
        else:
            super()._init_dataloader()
        if self.gad_config.curriculum.enabled:
            self.train_dataloader = self._build_loader(self.train_dataset)

    def _init_with_length(self, steps_per_epoch: int) -> None:
        """verl's set-up with an epoch as long as it was when the run began, whatever the files hold by now."""
        trainer = self.config.trainer
        configured = trainer.total_training_steps
        with open_dict(trainer):
            if configured is None:
                trainer.total_training_steps = steps_per_epoch * trainer.total_epochs
            try:
                super()._init_dataloader()
            finally:
                trainer.total_training_steps = configured
        self.steps_per_epoch = steps_per_epoch

    def _build_sampler(self, dataset: GadDataset) -> Sampler[int]:
        curriculum = self.gad_config.curriculum
        if not curriculum.enabled:
            return create_rl_sampler(self.config.data, dataset)
        return CurriculumSampler(
            Curriculum(
                curriculum.settings(self.steps_per_epoch),
                row_difficulty(dataset, curriculum, self.gad_config.teacher_key),
                len(dataset),
                self.config.data.train_batch_size,
                row_keys(dataset),
            )
        )

    def _build_loader(self, dataset: GadDataset) -> StatefulDataLoader:
        """A loader as verl's, with the sampler of the configuration."""
        like = self.train_dataloader
        sampler = self._build_sampler(dataset)
        return StatefulDataLoader(
            dataset=dataset,
            batch_size=like.batch_size,
            # Rows that are fetched ahead would be drawn before the steps that they are to learn from.
            num_workers=0 if isinstance(sampler, CurriculumSampler) else self.config.data.dataloader_num_workers,
            drop_last=True,
            collate_fn=like.collate_fn,
            sampler=sampler,
        )

    # ------------------------------ steps and passes ------------------------------

    def _fetch_one_gen_batch(self) -> TensorDict:
        if self._reloads and self.train_dataloader_it is None:
            self.train_dataloader_it = _Passes(self)
        return super()._fetch_one_gen_batch()

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        sampler = self._curriculum_sampler
        if sampler is not None and sampler.last_draw is not None and sampler.last_draw.growth:
            draw = sampler.last_draw
            self._decide(
                "curriculum",
                "fraction",
                "info",
                f"curriculum: {draw.fraction:.0%} of the rows by difficulty are available ({draw.available} of "
                f"{len(self.train_dataset)})",
                {"fraction": draw.fraction, "available": float(draw.available), "place": draw.place},
            )
        if self.global_steps in self.teacher_mix.turning_points():
            weights = self.teacher_mix.teacher_weights(self.global_steps)
            named = ", ".join(f"{teacher} {weight:.3g}" for teacher, weight in weights.items())
            self._decide("teacher", "mixture", "info", f"weights of the teachers: {named}", weights)
        return batch

    def _decide(self, source: str, rule: str, action: str, text: str, figures: dict[str, float]) -> None:
        logger.log(logging.INFO if action == "info" else logging.WARNING, "step %d: %s", self.global_steps, text)
        self._data_events.append(
            {
                "step": self.global_steps,
                "source": source,
                "rule": rule,
                "action": action,
                "text": text,
                "figures": figures,
            }
        )

    # ------------------------------ files that change ------------------------------

    def on_data_pass_end(self) -> None:
        """All rows were gone through: take over files that have changed, if they are good."""
        self._data_passes += 1
        paths = self._train_files
        try:
            stamps = stamp_files(paths, self._data_stamps)
        except OSError as error:
            self._keep_data(f"{error.filename} cannot be read: {error.strerror}")
            return
        changed = changed_files(self._data_stamps, stamps)
        if not changed:
            self._data_stamps, self._data_refused = stamps, []
            return
        if stamps == self._data_refused:
            return
        self.watchdog.beat("load_data")
        try:
            dataset, loader = self._load_changed(stamps, changed)
        except (GadDataError, GadConfigError) as error:
            self._data_refused = stamps
            self._keep_data(str(error))
            return
        except Exception as error:
            # Whatever a reader of files may raise: a bad file must not end a run that has good data in memory.
            logger.warning("reading the changed training data failed", exc_info=True)
            self._data_refused = stamps
            self._keep_data(f"{', '.join(changed)}: {type(error).__name__}: {error}")
            return
        before = len(self.train_dataset)
        self.train_dataset, self.train_dataloader = dataset, loader
        self._data_stamps, self._data_refused = stamps, []
        self._data_reloads += 1
        self._decide(
            "data",
            "reloaded",
            "adapt",
            f"training data reloaded after pass {self._data_passes}: {', '.join(changed)} changed, {len(dataset)} rows "
            f"instead of {before}. The run keeps its {self.total_training_steps} steps",
            {"rows": float(len(dataset)), "rows_before": float(before), "reloads": float(self._data_reloads)},
        )

    def _keep_data(self, reason: str) -> None:
        text = f"training data not reloaded, the run goes on with the rows it has: {reason}"
        self._decide("data", "kept", "warn", text, {"rows": float(len(self.train_dataset))})

    def _load_changed(self, stamps: list[FileStamp], changed: list[str]) -> tuple[GadDataset, StatefulDataLoader]:
        """Check and read the files as they are now.

        Raises:
            GadDataError, GadConfigError: If they cannot be trained on.
        """
        known = {stamp.path: stamp.modified_ns for stamp in self._data_stamps}
        for stamp in stamps:
            if stamp.path in changed and known.get(stamp.path) == stamp.modified_ns:
                # The cache of Hugging Face's datasets goes by path and time.
                raise GadDataError(f"{stamp.path} has other content but its old time of modification: touch it")
        data = self.config.data
        checks = TrainingRowChecks(self.gad_config)
        checks.check_files(self._train_files, data.prompt_key)
        checks.check_together(min(self.global_steps, self.total_training_steps), self.total_training_steps)
        dataset = create_rl_dataset(
            data.train_files,
            data,
            self.tokenizer,
            self.processor,
            is_train=True,
            max_samples=data.get("train_max_samples", -1),
        )
        if len(dataset) < data.train_batch_size:
            raise GadDataError(
                f"{', '.join(self._train_files)}: {len(dataset)} rows can be used, fewer than "
                f"data.train_batch_size={data.train_batch_size}"
            )
        loader = self._build_loader(dataset)
        self._carry_over(loader.sampler)
        if changed_files(stamps, stamp_files(self._train_files, stamps)):
            raise GadDataError(f"{', '.join(changed)} changed while being read; the next pass looks again")
        return dataset, loader

    def _carry_over(self, sampler: Sampler[int]) -> None:
        """Let the sampler of new data go on where that of the old ones stopped."""
        old = self.train_dataloader.sampler
        if isinstance(sampler, CurriculumSampler) and isinstance(old, CurriculumSampler):
            sampler.curriculum.load_state_dict(old.curriculum.state_dict())
        elif hasattr(sampler, "generator") and hasattr(old, "generator"):
            sampler.generator.set_state(old.generator.get_state())

    # ------------------------------ checkpoints ------------------------------

    def _save_checkpoint(self) -> None:
        if self._reloads or self._curriculum_sampler is not None:
            DataState(
                sampler=SAMPLER_OF_VERL if self._curriculum_sampler is None else SAMPLER_OF_CURRICULUM,
                steps_per_epoch=self.steps_per_epoch,
                rows=len(self.train_dataset),
                passes=self._data_passes,
                reloads=self._data_reloads,
                files=self._data_stamps,
            ).write(Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}")
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        saved = self._data_saved
        if saved is not None:
            self._data_passes, self._data_reloads = saved.passes, saved.reloads
        had = SAMPLER_OF_VERL if saved is None else saved.sampler
        has = SAMPLER_OF_VERL if self._curriculum_sampler is None else SAMPLER_OF_CURRICULUM
        if had != has:
            self._start_pass_anew()
            what = "begins" if has == SAMPLER_OF_CURRICULUM else "ends"
            self._decide("curriculum", "switched", "info", f"the curriculum {what} here: a new pass begins", {})
            return
        changed = changed_files(saved.files, self._data_stamps) if self._reloads and saved and saved.files else []
        if changed:
            if has == SAMPLER_OF_VERL:
                # The place in a pass through other rows means nothing. A curriculum finds its rows by their prompts.
                self._start_pass_anew()
            rows = len(self.train_dataset)
            self._data_reloads += 1
            self._decide(
                "data",
                "changed",
                "warn",
                f"{', '.join(changed)} changed since the checkpoint of step {self.global_steps}: {rows} rows instead "
                f"of {saved.rows}. The run goes on with the new data and is no exact continuation",
                {"rows": float(rows), "rows_before": float(saved.rows)},
            )

    def _start_pass_anew(self) -> None:
        """Forget verl's place in the data: a fresh loader, in another order than the first pass had."""
        self.train_dataloader = self._build_loader(self.train_dataset)
        sampler = self.train_dataloader.sampler
        seed = self.config.data.get("seed", None)
        if isinstance(sampler, CurriculumSampler):
            sampler.curriculum.steps = self.global_steps
        elif hasattr(sampler, "generator") and seed is not None:
            sampler.generator.manual_seed(seed + self.global_steps)
