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
"""The guardian over the metrics of a run, finished or training, with the settings that the run had."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from gad_verl.config import GuardianConfig, load_gad_config
from gad_verl.errors import GadConfigError
from gad_verl.guardian import Event, Guardian
from gad_verl.tools.report.runs import STAGE_METRIC, Run


def load_settings(settings: Any) -> GuardianConfig:
    """Settings below ``gad.guardian``, checked; what is not named has its default.

    Raises:
        GadConfigError: If one is unknown, renamed or cannot work.
    """
    return load_gad_config(OmegaConf.create({"gad": {"guardian": settings}})).guardian


def recorded_settings(run: Run) -> tuple[dict[str, Any], str]:
    """The settings of a run as its record has them, and what to know about them, in a sentence.

    Custom rules are left out: to read a run must not execute code that a file in it names. What they said while the run
    trained is in its events.
    """
    section: Any = (run.info or {}).get("config")
    for key in ("gad", "guardian"):
        section = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping):
        return {}, "Judged with the default settings of the guardian: those of the run are not known."
    settings = {str(key): value for key, value in section.items() if key != "custom_rules"}
    try:
        config = load_settings(settings)
    except GadConfigError as error:
        return {}, f"Judged with the default settings of the guardian: those of the run cannot be read ({error})."
    if not config.enable:
        return settings, "The guardian was switched off (gad.guardian.enable=False), so no rule judges."
    off = [name for name in config.rules() if config.policy_of(name) == "off"]
    about = "Judged with the guardian's settings of the run."
    return settings, f"{about} Switched off in it: {', '.join(off)}." if off else about


def replay(config: GuardianConfig, run: Run) -> tuple[Guardian, list[Event]]:
    """A new guardian over the metrics of a run, and everything that it says."""
    guardian, rows = Guardian(config), run.rows()
    stage = next((metrics[STAGE_METRIC] for metrics in rows.values() if STAGE_METRIC in metrics), None)
    if 0 in rows and stage is not None:
        # The validation before the first step is logged without a stage; the trainer judges it in that of the step.
        rows[0].setdefault(STAGE_METRIC, stage)
    return guardian, [event for step, metrics in rows.items() for event in guardian.observe(step, metrics)]
