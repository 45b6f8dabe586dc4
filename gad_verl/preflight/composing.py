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
"""A run's configuration as ``python -m verl.trainer.main_ppo`` composes it, for commands that do not train."""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gad_verl.config.near_keys import did_you_mean
from gad_verl.errors import GadCompatError, GadConfigError

DEFAULT_NAME = "gad_trainer"
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:500]


def compose_config(
    name: str | None = None, overrides: Sequence[str] = (), folder: str | Path | None = None
) -> DictConfig:
    """Compose a configuration.

    Args:
        name: ``--config-name``; None means ``gad_trainer``.
        overrides: What stands behind it on the command line, such as ``data.train_batch_size=8``.
        folder: ``--config-path``, absolute; None means verl's own folder, which gad_verl's files are searched with.

    Raises:
        GadConfigError: If the name, a key or a value is wrong; names it.
        GadCompatError: If verl is not installed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    name = name or DEFAULT_NAME
    if folder is None:
        # Found without importing verl, which takes seconds.
        spec = importlib.util.find_spec("verl")
        if spec is None or not spec.submodule_search_locations:
            raise GadCompatError("verl is not installed: pip install gad-verl installs it")
        folder = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    folder = Path(folder).expanduser()
    if not folder.is_absolute():
        raise GadConfigError(
            f"--config-path {folder} is relative, which Hydra would read from verl's folder: give an absolute path"
        )
    if not folder.is_dir():
        raise GadConfigError(f"--config-path {folder}: no such folder")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base=None):
            return compose(name.removesuffix(".yaml"), overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _unreadable(overrides) or _refusal(name, folder, str(error)) from None


def quoted(text: object) -> str:
    """A text as the value of an override; one with a backslash before a quote or at its end is not for it."""
    return "'" + str(text).replace("'", "\\'") + "'"


def _unreadable(overrides: Sequence[str]) -> GadConfigError | None:
    """The first override that is none in Hydra's grammar, which does not say which one that is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        key, equals, value = override.partition("=")
        try:
            read = parser.parse_override(override)
        except HydraException as error:
            said = _one_line(str(error).splitlines()[0])
        else:
            # A comma outside of brackets asks for several runs.
            if not read.is_sweep_override():
                continue
            said = "several values, which are several runs"
        if not equals:
            return GadConfigError(f"{override}: Hydra cannot read it ({said}); an override is KEY=VALUE")
        return GadConfigError(
            f"{override}: Hydra cannot read the value ({said}); a text with such characters stands in quotes of its "
            f'own: "{key}={quoted(value)}"'
        )
    return None


def _refusal(name: str, folder: Path, said: str) -> GadConfigError:
    """Hydra's words, or better ones: what it proposes for a key that is spelled wrongly makes another error."""
    own = sorted(path.stem for path in Path(__file__).parents[1].joinpath("config").glob("*.yaml"))
    if said.startswith("Cannot find primary config") and name.removesuffix(".yaml") not in own:
        return GadConfigError(
            f"--config-name {name}: no such configuration; gad_verl has {', '.join(own)}. One in a folder of your own "
            "needs --config-path FOLDER"
        )
    unknown = _UNKNOWN_KEY.match(said)
    if unknown is None:
        return GadConfigError(f"--config-name {name} cannot be composed: {_one_line(said)}")
    key = unknown.group(1)
    return GadConfigError(f"{key}: no such key in {name}.{did_you_mean(key, _keys(name, folder))}")


def _keys(name: str, folder: Path) -> list[str]:
    """All keys of a configuration as it is without overrides; of an empty section its name."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(folder), version_base=None):
            return list(_dotted(OmegaConf.to_container(compose(name.removesuffix(".yaml")), resolve=False)))
    except HydraException:
        # It cannot be composed without one of the overrides.
        return []


def _dotted(section: Any, above: str = "") -> Iterator[str]:
    for name, value in section.items():
        if name == "_target_":
            continue
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"
