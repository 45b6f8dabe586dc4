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
"""All rules over the metrics of a run."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gad_verl.guardian.events import Event, Standing, Stop
from gad_verl.guardian.knobs import NEUTRAL_KNOBS, combine
from gad_verl.guardian.rules import RULES
from gad_verl.guardian.watch import Watch

if TYPE_CHECKING:
    from gad_verl.config.guardian import GuardianConfig

logger = logging.getLogger(__name__)


class Guardian:
    """Watches a run.

    ``observe`` takes the metrics of each step in order. Nothing but metrics goes in, so that the same guardian judges a
    running training, a finished file and a test.

    Args:
        config: ``gad.guardian``.
    """

    def __init__(self, config: "GuardianConfig") -> None:
        self._config = config
        self._watches: dict[str, Watch] = {}
        self._stop: Stop | None = None
        # What the trainer applies in the next step: every knob, neutral where no rule turns it.
        self.knobs = dict(NEUTRAL_KNOBS)
        for rule in (*RULES, *config.custom_rule_classes()):
            policy = config.policy_of(rule.name)
            if config.enable and policy != "off":
                self._watches[rule.name] = Watch(rule(config.section_of(rule.name), config), policy, config.limits)

    def observe(self, step: int, metrics: Mapping[str, Any]) -> list[Event]:
        """Judge one step.

        Args:
            step: Training step.
            metrics: Everything that is logged for it; what a rule does not find it does not judge.

        Returns:
            What has changed: a rule tripped, a knob was turned, a condition has passed, or the run is to stop.
        """
        events = []
        for watch in self._watches.values():
            for event in watch.observe(step, metrics):
                events.append(event)
                logger.log(logging.INFO if event.action == "info" else logging.WARNING, "step %d: %s", step, event.text)
                if event.action == "stop" and self._stop is None:
                    self._stop = Stop(step, event.rule, event.text, watch.rule.weights_are_sound)
        self._set_knobs()
        return events

    @property
    def tripped(self) -> list[str]:
        """Rules whose condition stands."""
        return [name for name, watch in self._watches.items() if watch.tripped]

    def standings(self) -> list[Standing]:
        """How each rule that is not off stands, in the order in which they speak."""
        return [watch.standing() for watch in self._watches.values()]

    def turns(self, knob: str) -> bool:
        """Whether a rule may turn this knob."""
        return any(watch.policy == "adapt" and watch.rule.knob == knob for watch in self._watches.values())

    def _set_knobs(self) -> None:
        turned = [watch.knob for watch in self._watches.values() if watch.knob is not None]
        self.knobs = {name: combine(name, [value for knob, value in turned if knob == name]) for name in NEUTRAL_KNOBS}

    @property
    def stop(self) -> Stop | None:
        """Why the run is to end; None if it is not.

        It is saved with the state: a run that is started again by mistake stops again, until the policy of the rule is
        changed.
        """
        return self._stop

    def metrics(self) -> dict[str, float]:
        """What stands after the last step, for the metrics file."""
        result = {"guardian/tripped_rules": float(len(self.tripped))}
        return result | {f"guardian/{name}": value for name, value in self.knobs.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything for a checkpoint, made of what JSON knows."""
        stop = self._stop
        return {
            "watches": {name: watch.state_dict() for name, watch in self._watches.items()},
            "stop": None if stop is None else vars(stop).copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where the state was taken.

        Rules that are new or switched off since are passed over. A stop holds only while its rule's policy is ``stop``.
        """
        for name, watch in self._watches.items():
            if name in state["watches"]:
                watch.load_state_dict(state["watches"][name])
        stop, self._stop = state.get("stop"), None
        stopping = {name for name, watch in self._watches.items() if watch.policy == "stop"}
        if stop is not None and stop["rule"] in stopping:
            self._stop = Stop(**stop)
        self._set_knobs()
