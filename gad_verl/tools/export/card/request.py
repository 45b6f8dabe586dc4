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
"""What a user adds to a model card."""

from collections.abc import Sequence
from dataclasses import dataclass

from gad_verl.errors import GadConfigError


@dataclass(frozen=True)
class CardRequest:
    """What only a person knows.

    Args:
        license: Identifier of the Hub, such as "apache-2.0"; None leaves it out.
        base_model: Name on the Hub of what the training began with.
        datasets: Names on the Hub of the training data.
        teacher: Name of the teacher.

    Raises:
        GadConfigError: If a name is none of the Hub.
    """

    license: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    teacher: str | None = None

    def __post_init__(self) -> None:
        names = [("--base-model", self.base_model)] * (self.base_model is not None)
        for option, name in [*names, *(("--dataset", name) for name in self.datasets)]:
            if not is_hub_name(name):
                raise GadConfigError(f"{option} {name}: no name of the Hugging Face Hub (ORGANISATION/NAME)")


def is_hub_name(name: object) -> bool:
    """Whether a text has the form ORGANISATION/NAME of the Hugging Face Hub. Nobody is asked whether it exists."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not isinstance(name, str) or name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
