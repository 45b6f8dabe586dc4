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
"""The training data of a run: its length in steps, rows drawn by a curriculum, files that are looked at again.

Without ``gad.curriculum.mode`` and ``gad.reload_data`` the rows are drawn as verl draws them.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict
from torch.utils.data import Sampler
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler

from gad_verl.config import GadConfig
from gad_verl.core.curriculum import Curriculum, group_margins
from gad_verl.core.teacher_mix import TeacherMix
from gad_verl.data.curriculum_sampler import CurriculumSampler, prompt_key, row_difficulty, row_keys
from gad_verl.data.dataset import GadDataset
from gad_verl.data.file_stamps import FileStamp, changed_files, file_list, same_content, stamp_files
from gad_verl.data.loaded import check_loaded
from gad_verl.data.rendered_prompts import prompt_readers
from gad_verl.data.row_checks import TrainingRowChecks
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.trainer.begun import BegunRun, begun_run
from gad_verl.trainer.data_state import SAMPLER_OF_CURRICULUM, SAMPLER_OF_VERL, DataState
from gad_verl.trainer.scored import ScoredStep

logger = logging.getLogger(__name__)


class TrainingData:
    """Decides which rows a step gets.

    Args:
        config: The whole configuration.
        gad_config: Its section ``gad``.
        teachers: Turning points of its schedule are noted.
        beat: Called with the name of a stage that may take long.
    """

    def __init__(
        self, config: DictConfig, gad_config: GadConfig, teachers: TeacherMix, beat: Callable[[str], None]
    ) -> None:
        self._config, self._gad_config, self._teachers, self._beat = config, gad_config, teachers, beat
        # verl's trainer reads and assigns both through properties of ours.
        self.dataset: GadDataset
        self.loader: StatefulDataLoader
        self.steps_per_epoch = 0
        self._total_steps = 0
        self._model: tuple[Any, Any] = (None, None)
        self._step, self._turned = 0, -1
        self._events: list[dict[str, Any]] = []
        # An asynchronous run fetches row by row, several times a step.
        self._noted_draw: Any = None
        self.begun = BegunRun()
        self._stamps: list[FileStamp] = []
        self._refused: list[FileStamp] = []
        self._passes = 0
        self._reloads = 0

    # ------------------------------ set-up ------------------------------

    @property
    def reloads(self) -> bool:
        """Whether files are looked at again after each pass."""
        return self._gad_config.reload_data == "epoch"

    @property
    def _sampler(self) -> CurriculumSampler | None:
        sampler = self.loader.sampler
        return sampler if isinstance(sampler, CurriculumSampler) else None

    @property
    def _files(self) -> list[str]:
        return file_list(self._config.data.train_files)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around verl's own set-up of the data.

        The epoch of a resumed run stays as long as it was when the run began, whatever the files hold by now; so do the
        stages and the end of the run, which follow from it.
        """
        self._beat("read_data")
        trainer = self._config.trainer
        self.begun = begun_run(trainer)
        configured = trainer.total_training_steps
        # Before verl reads them: a file that changes meanwhile is noticed at the end of the first pass.
        self._stamps = stamp_files(self._files)
        with open_dict(trainer):
            if self.begun.data is not None and configured is None:
                trainer.total_training_steps = self.begun.data.steps_per_epoch * trainer.total_epochs
            try:
                yield
            finally:
                trainer.total_training_steps = configured

    def take_over(self, steps_per_epoch: int, total_steps: int, tokenizer: Any, processor: Any) -> None:
        """After verl's own set-up.

        Args:
            steps_per_epoch: As verl counted them.
            total_steps: Of the run.
            tokenizer, processor: Of the student, with which files are read again.
        """
        self.steps_per_epoch = self.begun.steps_per_epoch(steps_per_epoch)
        self._total_steps, self._model = total_steps, (tokenizer, processor)
        # verl's loop ends with the epochs too, and then without saving: the steps that were asked for count.
        trainer = self._config.trainer
        with open_dict(trainer):
            trainer.total_epochs = max(trainer.total_epochs, math.ceil(total_steps / self.steps_per_epoch))
        if self._gad_config.curriculum.enabled:
            self.loader = self._build_loader(self.dataset)

    def _build_sampler(self, dataset: GadDataset) -> Sampler[int]:
        curriculum = self._gad_config.curriculum
        if not curriculum.enabled:
            return create_rl_sampler(self._config.data, dataset)
        return CurriculumSampler(
            Curriculum(
                curriculum.settings(self.steps_per_epoch),
                row_difficulty(dataset, curriculum, self._gad_config.teacher_key),
                len(dataset),
                self._config.data.train_batch_size,
                row_keys(dataset),
            )
        )

    def _build_loader(self, dataset: GadDataset) -> StatefulDataLoader:
        """A loader as verl's, with the sampler of the configuration."""
        sampler = self._build_sampler(dataset)
        return StatefulDataLoader(
            dataset=dataset,
            batch_size=self.loader.batch_size,
            # Rows that are fetched ahead would be drawn before the steps that they are to learn from.
            num_workers=0 if isinstance(sampler, CurriculumSampler) else self._config.data.dataloader_num_workers,
            drop_last=True,
            collate_fn=self.loader.collate_fn,
            sampler=sampler,
        )

    # ------------------------------ steps and passes ------------------------------

    def batches(self) -> Iterator[dict]:
        """Batches without end: between two passes the files may have changed.

        Raises:
            GadDataError: If a pass has not one batch.
        """
        # A run that is resumed where a pass ended has nothing left of its first one.
        may_be_empty = True
        while True:
            is_empty = True
            for batch in self.loader:
                is_empty = False
                yield batch
            if is_empty and not may_be_empty:
                raise GadDataError(
                    f"{', '.join(self._files)}: {len(self.dataset)} rows can be used, fewer than "
                    f"data.train_batch_size={self._config.data.train_batch_size}"
                )
            may_be_empty = False
            self._end_pass()

    def begin_draw(self, step: int) -> None:
        """A step is about to draw its rows."""
        self._step = step

    def end_draw(self) -> None:
        """It has drawn them: note what has changed by it."""
        draw = None if self._sampler is None else self._sampler.last_draw
        if draw is not None and draw.growth and draw is not self._noted_draw:
            self._noted_draw = draw
            self._note(
                "curriculum",
                "fraction",
                "info",
                f"curriculum: {draw.fraction:.0%} of the rows by difficulty are available ({draw.available} of "
                f"{len(self.dataset)})",
                {"fraction": draw.fraction, "available": float(draw.available), "place": draw.place},
            )
        if self._step in self._teachers.turning_points() and self._step != self._turned:
            self._turned = self._step
            weights = self._teachers.teacher_weights(self._step)
            named = ", ".join(f"{teacher} {weight:.3g}" for teacher, weight in weights.items())
            self._note("teacher", "mixture", "info", f"weights of the teachers: {named}", weights)

    def observe(self, step: ScoredStep) -> dict[str, float]:
        """Show a step's scores to a curriculum that learns the student's margins; no metrics."""
        if self._sampler is not None and self._sampler.curriculum.learns:
            output = step.output
            scores = (output.teacher_scores, output.student_scores, output.weights)
            margins = group_margins(*(values.double().numpy() for values in scores))
            curriculum, groups = self._sampler.curriculum, step.rollouts.groups
            rows: list[int | None] = [group.index for group in groups]
            if self._reloads:
                # Prompts that were on their way when the files changed have the numbers of the rows before.
                rows = [curriculum.find(group.index, prompt_key(group.messages)) for group in groups]
            there = {place: row for place, row in enumerate(rows) if row is not None}
            curriculum.update([*there.values()], margins[[*there]])
        return {}

    def metrics(self) -> dict[str, float]:
        """Of the rows of this step; empty where neither a curriculum nor reloading is on."""
        metrics: dict[str, float] = {}
        if self._sampler is not None and self._sampler.last_draw is not None:
            metrics |= self._sampler.last_draw.metrics()
        if self.reloads:
            metrics |= {
                "gad/data_rows": float(len(self.dataset)),
                "gad/data_passes": float(self._passes),
                "gad/data_reloads": float(self._reloads),
            }
        return metrics

    def take_events(self) -> list[dict[str, Any]]:
        """Decisions since the last call, as lines of ``record/events.jsonl``."""
        events, self._events = self._events, []
        return events

    def _note(self, source: str, rule: str, action: str, text: str, figures: dict[str, float]) -> None:
        logger.log(logging.INFO if action == "info" else logging.WARNING, "step %d: %s", self._step, text)
        event = {"step": self._step, "source": source, "rule": rule, "action": action, "text": text}
        self._events.append({**event, "figures": figures})

    # ------------------------------ files that change ------------------------------

    def _end_pass(self) -> None:
        """All rows were gone through: take over files that have changed, if they are good."""
        self._passes += 1
        try:
            stamps = stamp_files(self._files, self._stamps)
        except OSError as error:
            self._keep(f"{error.filename} cannot be read: {error.strerror}")
            return
        changed = changed_files(self._stamps, stamps)
        if not changed:
            self._stamps, self._refused = stamps, []
            return
        if stamps == self._refused:
            return
        self._beat("load_data")
        try:
            dataset, loader = self._load_changed(stamps, changed)
        except (GadDataError, GadConfigError) as error:
            self._refused = stamps
            self._keep(str(error))
            return
        except Exception as error:
            # Whatever a reader of files may raise: a bad file must not end a run that has good data in memory.
            logger.warning("reading the changed training data failed", exc_info=True)
            self._refused = stamps
            self._keep(f"{', '.join(changed)}: {type(error).__name__}: {error}")
            return
        before = len(self.dataset)
        self.dataset, self.loader = dataset, loader
        self._stamps, self._refused = stamps, []
        self._reloads += 1
        self._note(
            "data",
            "reloaded",
            "adapt",
            f"training data reloaded after pass {self._passes}: {', '.join(changed)} changed, {len(dataset)} rows "
            f"instead of {before}. The run keeps its {self._total_steps} steps",
            {"rows": float(len(dataset)), "rows_before": float(before), "reloads": float(self._reloads)},
        )

    def _keep(self, reason: str) -> None:
        text = f"training data not reloaded, the run goes on with the rows it has: {reason}"
        self._note("data", "kept", "warn", text, {"rows": float(len(self.dataset))})

    def _load_changed(self, stamps: list[FileStamp], changed: list[str]) -> tuple[GadDataset, StatefulDataLoader]:
        """Check and read the files as they are now.

        Raises:
            GadDataError, GadConfigError: If they cannot be trained on.
        """
        known = {stamp.path: stamp.modified_ns for stamp in self._stamps}
        for stamp in stamps:
            if stamp.path in changed and known.get(stamp.path) == stamp.modified_ns:
                # The cache of Hugging Face's datasets goes by path and time.
                raise GadDataError(f"{stamp.path} has other content but its old time of modification: touch it")
        data = self._config.data
        checks = TrainingRowChecks(self._gad_config)
        checks.check_files(self._files, data.prompt_key)
        check_loaded(self._files, data.prompt_key, self._gad_config.teacher_key, checks.read_texts)
        for reader in prompt_readers(self._config, self._gad_config):
            for path in self._files:
                reader.check_file(path, data.prompt_key)
        checks.check_together(min(self._step, self._total_steps), self._total_steps)
        dataset = create_rl_dataset(
            data.train_files, data, *self._model, is_train=True, max_samples=data.get("train_max_samples", -1)
        )
        if len(dataset) < data.train_batch_size:
            raise GadDataError(
                f"{', '.join(self._files)}: {len(dataset)} rows can be used, fewer than "
                f"data.train_batch_size={data.train_batch_size}"
            )
        loader = self._build_loader(dataset)
        self._carry_over(loader.sampler)
        if changed_files(stamps, stamp_files(self._files, stamps)):
            raise GadDataError(f"{', '.join(changed)} changed while being read; the next pass looks again")
        return dataset, loader

    def _carry_over(self, sampler: Sampler[int]) -> None:
        """Let the sampler of new data go on where that of the old ones stopped."""
        old = self.loader.sampler
        if isinstance(sampler, CurriculumSampler) and isinstance(old, CurriculumSampler):
            sampler.curriculum.load_state_dict(old.curriculum.state_dict())
        elif hasattr(sampler, "generator") and hasattr(old, "generator"):
            sampler.generator.set_state(old.generator.get_state())

    # ------------------------------ checkpoints ------------------------------

    @property
    def _sampler_name(self) -> str:
        return SAMPLER_OF_VERL if self._sampler is None else SAMPLER_OF_CURRICULUM

    def save(self, folder: Path) -> None:
        """Write what verl's ``data.pt`` does not say of the data."""
        DataState(
            sampler=self._sampler_name,
            steps_per_epoch=self.steps_per_epoch,
            rows=len(self.dataset),
            batch_size=self._config.data.train_batch_size,
            fetched=self.loader.batch_size,
            passes=self._passes,
            reloads=self._reloads,
            files=self._stamps,
        ).write(folder)

    def resume(self, step: int) -> None:
        """After verl has loaded the place in the data of a checkpoint; ``step`` 0 is a run that starts anew."""
        self._step = step
        if step == 0:
            return
        if step >= self._total_steps:
            logger.info("the checkpoint of step %d is that of the last step: nothing is left to train", step)
        saved, has = self.begun.data, self._sampler_name
        if saved is not None:
            self._passes, self._reloads = saved.passes, saved.reloads
        if has != (SAMPLER_OF_VERL if saved is None else saved.sampler):
            self._start_pass_anew()
            what = "begins" if has == SAMPLER_OF_CURRICULUM else "ends"
            self._note("curriculum", "switched", "info", f"the curriculum {what} here: a new pass begins", {})
            return
        changes = [] if saved is None else list(self._changes_since(saved))
        if saved is None or not changes:
            return
        if has == SAMPLER_OF_VERL:
            # The place in a pass through other rows means nothing. A curriculum finds its rows by their prompts.
            self._start_pass_anew()
        self._reloads += 1
        self._note(
            "data",
            "changed",
            "warn",
            f"since the checkpoint of step {step}: {', '.join(changes)}. The run keeps its stages and its "
            f"{self._total_steps} steps, and is no exact continuation",
            {"rows": float(len(self.dataset)), "rows_before": float(saved.rows)},
        )

    def _changes_since(self, saved: DataState) -> Iterator[str]:
        """What is another than when a checkpoint was saved, in words."""
        rows, batch = len(self.dataset), self._config.data.train_batch_size
        if saved.files and not same_content(saved.files, self._stamps):
            yield f"{', '.join(changed_files(saved.files, self._stamps)) or 'the order of the training files'} changed"
        if rows != saved.rows:
            yield f"{rows} rows instead of {saved.rows}"
        if batch != (saved.batch_size or batch):
            yield f"{batch} prompts a step instead of {saved.batch_size}"
        if saved.fetched not in (None, self.loader.batch_size):
            yield f"prompts are fetched {self.loader.batch_size} at a time instead of {saved.fetched} (trainer mode)"

    def _start_pass_anew(self) -> None:
        """Forget verl's place in the data: a fresh loader, in another order than the first pass had."""
        self.loader = self._build_loader(self.dataset)
        sampler = self.loader.sampler
        seed = self._config.data.get("seed", None)
        if isinstance(sampler, CurriculumSampler):
            sampler.curriculum.steps = self._step
        elif hasattr(sampler, "generator") and seed is not None:
            sampler.generator.manual_seed(seed + self._step)
