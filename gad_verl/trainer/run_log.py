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
"""What a run writes down beside its metrics: events, the spread of the scores, a few texts (``record/``)."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from gad_verl.config.stability import RecordConfig
from gad_verl.discriminator.worker_group import DiscriminatorOutput
from gad_verl.record import RunRecord, Sample, Split
from gad_verl.trainer.encoding import Encoding
from gad_verl.trainer.rollouts import VALIDATION, StepRollouts
from gad_verl.trainer.scored import Observer, ScoredStep


class RunLog:
    """The record of a run, where ``gad.record.enable`` asks for one.

    Args:
        config: ``gad.record``.
    """

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self._record: RunRecord | None = None

    def open(self, folder: Path, resume_step: int | None, config: Any, metrics_file: Path | None) -> None:
        """Begin or continue the record of the run in ``folder``."""
        if self._config.enable:
            self._record = RunRecord.open(folder, resume_step)
            self._record.write_run(config, metrics_file)

    def close(self, finished: bool) -> None:
        """Close it; ``finished`` where the run came to its end."""
        if self._record is not None:
            if finished:
                self._record.finish()
            self._record.close()

    def event(self, step: int, source: str, rule: str, action: str, text: str, figures: Mapping[str, float]) -> None:
        """Something was noticed or done; see :meth:`gad_verl.record.RunRecord.event`."""
        if self._record is not None:
            self._record.event(step, source, rule, action, text, figures)

    def observer(self, encoding: Encoding) -> Observer:
        """Notes how the scores of both sides are spread, and a few texts of the steps that are due.

        Args:
            encoding: Decodes the texts.
        """

        def observe(step: ScoredStep) -> dict[str, float]:
            output, info = step.output, step.info
            if self._record is not None:
                read = output.weights > 0
                teacher = output.teacher_scores[read.any(dim=1)].tolist()
                self._record.scores(info.number, info.phase.name.lower(), teacher, output.student_scores[read].tolist())
            self.samples(info.number, step.rollouts, encoding, output)
            return {}

        return observe

    def samples(
        self, step: int, rollouts: StepRollouts, encoding: Encoding, output: DiscriminatorOutput | None
    ) -> None:
        """A few texts, at each validation and every so many steps of training."""
        split: Split = "val" if rollouts.partition_id == VALIDATION else "train"
        due = split == "val" or step == 1 or step % self._config.samples_every_steps == 0
        if self._record is not None and due and self._config.samples > 0:
            found = islice(_samples(rollouts, encoding, output), self._config.samples)
            self._record.samples(step, split, found)


def _samples(rollouts: StepRollouts, encoding: Encoding, output: DiscriminatorOutput | None) -> Iterable[Sample]:
    for number, group in enumerate(rollouts.groups):
        answers = [(at, session) for at, session in enumerate(group.answers) if session is not None]
        yield Sample(
            index=group.index,
            prompt=encoding.prompt_text(group),
            teacher=encoding.teacher_text(group),
            students=[encoding.text(session) for _, session in answers],
            teacher_score=None if output is None else output.teacher_scores[number].item(),
            student_scores=None if output is None else [output.student_scores[number, at].item() for at, _ in answers],
        )
