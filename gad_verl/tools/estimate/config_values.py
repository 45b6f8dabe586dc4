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
"""Values of a configuration, each with an error that names its key."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gad_verl.errors import GadConfigError

_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}


def needed(config: Any, key: str) -> Any:
    """A value that has to be there.

    Raises:
        GadConfigError: Names the key.
    """
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise GadConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    if value is None:
        raise GadConfigError(f"the configuration lacks {key}: start from --config-name gad_trainer (or gad_cpu)")
    return value


def whole(value: Any, key: str, least: int | None = None) -> int:
    """A whole number.

    Args:
        value: What the configuration says.
        key: Where it says it.
        least: The lowest that it may be; None allows any.

    Raises:
        GadConfigError: Names the key.
    """
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        wanted = "a whole number is needed" if least is None else f"a whole number of at least {least} is needed"
        raise GadConfigError(f"{key}={value}: {wanted}")
    return value


def share(value: Any, key: str) -> float:
    """A number above 0 and at most 1.

    Raises:
        GadConfigError: Names the key.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:
        raise GadConfigError(f"{key}={value}: a number above 0 and at most 1 is needed")
    return float(value)


def section(config: Any, name: str, key: str) -> Mapping[str, Any]:
    """A section that may be missing or null; empty then.

    Args:
        config: What holds it.
        name: Its name there.
        key: Its whole key, for errors.

    Raises:
        GadConfigError: If it is no section.
    """
    found = config.get(name, None)
    if found is None:
        return {}
    if not isinstance(found, Mapping | DictConfig):
        raise GadConfigError(f"{key}={found}: a section is needed, such as {{name: value}}")
    return found


def names(value: Any, key: str) -> tuple[str, ...]:
    """A list of names.

    Raises:
        GadConfigError: If it is none.
    """
    found = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise GadConfigError(f"{key}={value}: a list of names is needed, such as [a,b]")
    return tuple(found)


def element_bytes(name: Any, key: str) -> int:
    """Bytes of a number of a type.

    Raises:
        GadConfigError: If the type is not known.
    """
    size = _BYTES.get(str(name).removeprefix("torch."))
    if size is None:
        raise GadConfigError(f"{key}={name}: expected one of {', '.join(_BYTES)}")
    return size
