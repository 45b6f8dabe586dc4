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
"""What a checkpoint and the record of its run say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gad_verl.core.schedule import StageSchedule
from gad_verl.errors import GadCheckpointError, GadDataError
from gad_verl.record import read_run
from gad_verl.record.redaction import without_secrets
from gad_verl.tools.export.card.request import is_hub_name

METRICS = (
    ("disc/accuracy", "discriminator's accuracy on fresh pairs"),
    ("disc/margin_mean", "mean margin teacher - student"),
    ("disc/loss", "discriminator's loss"),
    ("gad/length_ratio", "length student / teacher"),
    ("val-gad/accuracy", "discriminator's accuracy on validation prompts"),
    ("val-gad/rouge_l", "ROUGE-L with the teacher on validation prompts"),
    ("val-gad/length_ratio", "length student / teacher on validation prompts"),
)
# A backslash alone begins no path: regular expressions and formulas are full of them. Marks such as </think> and
# [/INST] are none either.
_PATH = re.compile(
    r"""(?<![\w:/.])(?!(?<=[<\[|])/[\w-]+[>\]|])~?/[^\s"',;)\]}]+"""
    r"""|(?<![\w:/.])[A-Za-z]:[/\\][^\s"',;)\]}]+"""
    r"""|(?<![\\\w])\\\\[A-Za-z0-9][\w.-]*\\[\w$][^\s"',;)\]}]*"""
)
_FOLDER = re.compile(r"global_step_(\d+)")
LOCAL = "(a local path)"


def without_paths(value: Any) -> Any:
    """The same without absolute paths of a machine."""
    if isinstance(value, Mapping):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return _PATH.sub(LOCAL, value) if isinstance(value, str) else value


@dataclass(frozen=True)
class RunFacts:
    """What is known of a checkpoint.

    Args:
        folder: Of the run.
        step: Step of the checkpoint; None if unknown.
        stage: Stage of the checkpoint; None if unknown.
        config: Configuration of the run; empty if unknown.
        versions: Versions of packages when the run was started last; empty if unknown.
        schedule: Stages of the run; None if unknown.
        local_models: Sections of the configuration whose model was a folder where the run was started; None of a run
            that did not record it.
    """

    folder: Path
    step: int | None = None
    stage: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schedule: StageSchedule | None = None
    local_models: frozenset[str] | None = None

    def get(self, key: str) -> Any:
        """A value of the configuration by its dotted name; None if it is not known."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def is_local_model(self, section: str) -> bool | None:
        """Whether the model that a section of the configuration names is no name on the Hub; None if unknown."""
        path = self.get(f"{section}.path")
        if path is None:
            return None
        if not is_hub_name(path):
            return True
        if self.local_models is not None:
            return section in self.local_models
        # A folder that is not found here may have been one where the run was.
        return True if self.resolve(path) is not None else None

    def hub_model(self, section: str) -> str | None:
        """Name on the Hub of the model that a section of the configuration names; None for a local folder."""
        return self.get(f"{section}.path") if self.is_local_model(section) is False else None

    def resolve(self, path: str) -> Path | None:
        """A file or folder that the configuration names: relative ones are looked for around the folder of the run."""
        named = Path(path).expanduser()
        if named.is_absolute():
            return named if named.exists() else None
        root = self.folder.resolve()
        return next((found for base in (root, *root.parents[:2]) if (found := base / named).exists()), None)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Of :data:`METRICS`, those that were logged at the step of the checkpoint."""
        from gad_verl.tools.report.runs import read_run as read_metrics_of_run

        try:
            run = read_metrics_of_run(self.folder)
        except GadDataError:
            return {}
        found = {}
        for name, _ in METRICS:
            series = run.get(name)
            at = series.values[series.steps == self.step]
            if len(at):
                found[name] = float(at[0])
        return found


def read_run_facts(checkpoint: str | Path) -> RunFacts:
    """Read ``gad_state.json`` of a checkpoint and ``record/run.json`` of its run, as far as they are there."""
    from gad_verl.trainer.checkpoints import read_state

    checkpoint = Path(checkpoint).absolute()
    run = without_secrets(read_run(checkpoint.parent) or {})
    named = _FOLDER.fullmatch(checkpoint.name)
    step, stage, schedule = int(named.group(1)) if named else None, None, None
    try:
        state = read_state(checkpoint)
        step, stage, schedule = state.step, state.stage, state.schedule
    except GadCheckpointError:
        pass
    # A record of another form is none.
    config, versions = (run.get(name) if isinstance(run.get(name), dict) else {} for name in ("config", "versions"))
    versions = {str(name): str(version) for name, version in versions.items()}
    if run.get("gad_verl"):
        versions = {"gad_verl": str(run["gad_verl"]), **versions}
    local = run.get("local_models")
    local_models = frozenset(map(str, local)) if isinstance(local, list) else None
    return RunFacts(checkpoint.parent, step, stage, config, versions, schedule, local_models)
