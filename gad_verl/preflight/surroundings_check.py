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
"""What would end a run after all models are loaded: loggers without their key, a context that is too short."""

import importlib.util
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from gad_verl.errors import GadConfigError

# Package of each tracker of verl, and the variables of the environment without which it asks on a terminal or fails.
_TRACKERS: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "console": (None, ()),
    "file": (None, ()),
    "tensorboard": ("tensorboard", ()),
    "wandb": ("wandb", ("WANDB_API_KEY",)),
    "tracking": ("wandb", ("WANDB_API_KEY",)),
    "swanlab": ("swanlab", ("SWANLAB_API_KEY",)),
    "vemlp_wandb": (
        "volcengine_ml_platform",
        ("VOLC_ACCESS_KEY_ID", "VOLC_SECRET_ACCESS_KEY", "MLP_TRACKING_REGION"),
    ),
    "mlflow": ("mlflow", ()),
    "clearml": ("clearml", ()),
    "trackio": ("trackio", ()),
    "rl_insight": (None, ()),
}
_WANDB = ("wandb", "tracking")
_WITHOUT_KEY = ("offline", "disabled", "dryrun", "local")


def check_loggers(loggers: str | Sequence[str]) -> None:
    """Check that each of ``trainer.logger`` can be opened by a process that nobody watches.

    Raises:
        GadConfigError: Names the logger, and the package or the variable that is missing.
    """
    for name in [loggers] if isinstance(loggers, str) else loggers:
        if name not in _TRACKERS:
            raise GadConfigError(f"trainer.logger names {name!r}; verl knows {', '.join(_TRACKERS)}")
        package, variables = _TRACKERS[name]
        if package is not None and importlib.util.find_spec(package) is None:
            raise GadConfigError(
                f"trainer.logger names {name}, but its package {package} is not installed: install it, or leave it out"
            )
        missing = [variable for variable in variables if not os.environ.get(variable)]
        if missing and not _needs_no_key(name):
            mode = {"swanlab": "SWANLAB_MODE=local"}.get(name, "WANDB_MODE=offline")
            instead = f", or {mode}" if name != "vemlp_wandb" else ""
            raise GadConfigError(
                f"trainer.logger names {name}, which would ask for a key after all models are loaded: set "
                f"{', '.join(missing)}{instead}, or leave {name} out"
            )


def _needs_no_key(name: str) -> bool:
    """Whether a tracker works offline, or somebody has logged in on this machine."""
    home = Path.home()
    if name in _WANDB:
        return os.environ.get("WANDB_MODE", "").lower() in _WITHOUT_KEY or _has_login(os.environ.get("WANDB_BASE_URL"))
    if name == "swanlab":
        folder = Path(os.environ.get("SWANLAB_SAVE_DIR", home / ".swanlab"))
        return os.environ.get("SWANLAB_MODE", "").lower() in _WITHOUT_KEY or (folder / ".netrc").is_file()
    return False


def _has_login(base_url: str | None) -> bool:
    """Whether ``wandb login`` left a key: in the file of logins, for its host."""
    host = (base_url or "https://api.wandb.ai").partition("://")[2].partition("/")[0].partition(":")[0]
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc")).expanduser()
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def check_context(config: DictConfig) -> None:
    """Check that the rollout has the lengths of the data, and that its context holds the longest prompt and response.

    Raises:
        GadConfigError: Names the keys and the sum.
    """
    for name in ("prompt_length", "response_length"):
        own, of_data = config.actor_rollout_ref.rollout.get(name, None), config.data[f"max_{name}"]
        if own is not None and own != of_data:
            raise GadConfigError(
                f"actor_rollout_ref.rollout.{name}={own}, but data.max_{name}={of_data}, by which rows are "
                "checked and the teacher's texts are cut: leave the first out, it follows the second"
            )
    limit = config.actor_rollout_ref.rollout.get("max_model_len", None)
    longest = config.data.max_prompt_length + config.data.max_response_length
    if limit is not None and limit < longest:
        raise GadConfigError(
            f"actor_rollout_ref.rollout.max_model_len={limit} is less than data.max_prompt_length + "
            f"data.max_response_length = {config.data.max_prompt_length} + {config.data.max_response_length} = "
            f"{longest}: long prompts would get cut responses, or none. Raise it, or lower the two"
        )
