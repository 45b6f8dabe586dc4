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
"""Ends a run whose workers died or hang: without it, a lost rollout server leaves verl polling for ever."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import ray

from gad_verl.config import WatchdogConfig
from gad_verl.errors import GadStalledError
from gad_verl.trainer.deaths import actor_id, actor_is_dead, memory_ran_out, sudden_deaths

logger = logging.getLogger(__name__)

# After the workers were killed every blocked call fails; a process that still lives after this is ended by force.
_GRACE_SECONDS = 30.0
# An error of verl may be there before Ray's control store knows of the death behind it.
_NEWS_SECONDS = 5.0
_MORE_ROOM = (
    "Keep less there (offloaded parameters and optimizer states; without a GPU the tokens of a micro-batch, "
    "ppo_max_token_len_per_gpu of actor and discriminator), or give the node more"
)


def _place(text: str) -> str:
    """Process and node of a death of :func:`sudden_deaths`; nothing where there was none."""
    _, opening, place = text.partition(" (")
    return opening + place


def watched(method: Any) -> Any:
    """Decorator of a method of an object with a ``watchdog``: tells it that this stage began."""

    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.watchdog.beat(method.__name__.strip("_"))
        return method(self, *args, **kwargs)

    return run


def actors_of(trainer: Any) -> dict[str, Any]:
    """The actors of a trainer of verl that exist so far, by name and rank."""
    owners = {
        "student": ("actor_rollout_wg", "workers"),
        "discriminator": ("discriminator", "workers"),
        "rollout server": ("llm_server_manager", "server_handles"),
        "separate rollout server": ("standalone_server_manager", "server_handles"),
        "agent loop": ("agent_loop_manager", "agent_loop_workers"),
    }
    return {
        f"{name} {rank}": actor
        for name, (owner, attribute) in owners.items()
        for rank, actor in enumerate(getattr(getattr(trainer, owner, None), attribute, None) or [])
    }


class Watchdog:
    """Watches actors and the progress of the main thread from a thread of its own.

    Args:
        config: Intervals.
        actors: Returns the actors to watch by name; called at each look, so that late ones are found.
        kill: Called with each actor once the run has failed, to free calls that wait for it.
        deaths: Returns what else died, in words by the id of the actor.
        memory: Returns why workers were killed, if that was for lack of memory.
        progress: Anything that changes when the main thread gets on; compared at each look.
    """

    def __init__(
        self,
        config: WatchdogConfig,
        actors: Callable[[], Mapping[str, Any]],
        kill: Callable[[Any], None] | None = None,
        progress: Callable[[], object] | None = None,
        deaths: Callable[[], Mapping[str, str]] = sudden_deaths,
        memory: Callable[[], str | None] = memory_ran_out,
    ) -> None:
        self._config = config
        self._actors = actors
        self._kill = kill or (lambda actor: ray.kill(actor, no_restart=True))
        self._deaths, self._memory = deaths, memory
        self._progress = progress or (lambda: None)
        self._last_progress = self._progress()
        self._stage = "start-up"
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: str | None = None

    def start(self) -> None:
        """Begin to watch; does nothing if ``gad.watchdog.enable`` is off."""
        if self._config.enable:
            self._thread = threading.Thread(target=self._run, name="gad-watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def beat(self, stage: str) -> None:
        """The main thread entered ``stage`` or got on in it."""
        self._stage, self._since = stage, time.monotonic()

    def check(self) -> None:
        """Raise what the watchdog found.

        Raises:
            GadStalledError: If a worker died or hangs.
        """
        if self.failure is not None:
            raise GadStalledError(self.failure)

    def explain(self, call: Callable[..., Any], *args: Any) -> None:
        """Make a call; an error that the watchdog provoked is replaced by the reason that it found.

        An error ends the run, and the watch with it.

        Raises:
            GadStalledError: If a worker died or hangs.
        """
        try:
            call(*args)
        except GadStalledError:
            self.stop()
            raise
        except Exception as error:
            self.failure = self.failure or self._death_behind_an_error()
            self.stop()
            if self.failure is not None:
                raise GadStalledError(self.failure) from error
            raise

    def watch_buffer(self, buffer: Any, poll_interval_s: float) -> None:
        """Let verl's replay buffer poll at an interval, and notice there what the watchdog has found.

        Args:
            buffer: verl's ``ReplayBuffer`` (trainer/ppo/v1/replay_buffer.py); its wait between polls is replaced.
            poll_interval_s: Seconds between polls.
        """
        buffer.poll_interval = poll_interval_s
        wait = buffer._wait_for_next_poll
        last_progress: list[Any] = [None]

        def watched_wait(partition_id: str, last_debug_time: float) -> float:
            self.check()
            progress = (len(buffer.partitions[partition_id]), len(buffer.finished_keys[partition_id]))
            if progress != last_progress[0]:
                last_progress[0] = progress
                self.beat("gen")
            return wait(partition_id, last_debug_time)

        buffer._wait_for_next_poll = watched_wait

    def look(self) -> str | None:
        """One look: the reason to end the run, or None."""
        death = self._death()
        if death is not None:
            return death
        progress = self._progress()
        if progress != self._last_progress:
            self._last_progress, self._since = progress, time.monotonic()
        waited = time.monotonic() - self._since
        if waited > self._config.stage_timeout_s:
            return (
                f"'{self._stage}' has taken {waited:.0f} s without progress, more than gad.watchdog.stage_timeout_s="
                f"{self._config.stage_timeout_s:.0f}: a worker hangs. Raise the limit if a stage really takes that long"
            )
        return None

    def _death(self) -> str | None:
        known = {actor_id(actor): (name, actor) for name, actor in self._actors().items()}
        gone = {identity: name for identity, (name, actor) in known.items() if actor_is_dead(actor)}
        deaths = self._deaths()
        # Our name of it, and Ray's word for where it was.
        dead = [name + _place(deaths.get(identity, "")) for identity, name in gone.items()]
        dead += [text for identity, text in deaths.items() if identity not in known]
        if not dead:
            return None
        why = self._memory()
        why = f"{why}. {_MORE_ROOM}" if why else "its last words are in the log above"
        return f"worker {', '.join(dead)} died during '{self._stage}'; {why}"

    def _death_behind_an_error(self) -> str | None:
        """A death that came before the next look, which is what verl's error is about."""
        if self._thread is None or not ray.is_initialized():
            return None
        until = time.monotonic() + _NEWS_SECONDS
        while time.monotonic() < until:
            death = self._death()
            if death is not None:
                return death
            time.sleep(0.5)
        return None

    def _run(self) -> None:
        while not self._stop.wait(self._config.check_interval_s):
            try:
                self.failure = self.look()
            except Exception:
                logger.exception("the watchdog could not look at the workers")
                continue
            if self.failure is not None:
                self._end_run()
                return

    def _end_run(self) -> None:
        logger.error("gad_verl ends this run: %s", self.failure)
        for name, actor in self._actors().items():
            try:
                self._kill(actor)
            except Exception:
                logger.exception("could not kill worker %s", name)
        if not self._stop.wait(_GRACE_SECONDS):
            logger.error("the trainer did not end by itself; leaving by force. Reason: %s", self.failure)
            sys.stderr.flush()
            os._exit(1)
