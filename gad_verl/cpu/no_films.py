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
"""What stands in a processor in the place of one for films; imports transformers."""

from typing import Any

from transformers import ImageProcessingMixin

from gad_verl.errors import GadConfigError


class NoFilms(ImageProcessingMixin):
    """Loads, saves nothing, refuses films."""

    model_input_names: list[str] = []

    def __init__(self, *_: Any, **__: Any) -> None: ...

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> "NoFilms":
        """The stand-in, whatever the folder holds."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Nothing that a processor would save."""
        return {}

    def save_pretrained(self, *_: Any, **__: Any) -> list[str]:
        """Writes no file."""
        return []

    def __call__(self, *_: Any, **__: Any) -> None:
        raise GadConfigError("films need torchvision, which is not installed here, and are not supported by gad_verl")
