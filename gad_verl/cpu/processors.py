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
"""Processors of models with images, on a machine without torchvision.

PyPI's torchvision does not load beside a CPU build of torch. transformers has image processors that need Pillow alone,
but none for films, and refuses a processor with both for want of the second: verl would go on without any.
"""

from types import ModuleType


def _lacks_torchvision() -> bool:
    from transformers.utils import is_torchvision_available

    return not is_torchvision_available()


def accept_missing_films(processing_utils: ModuleType) -> None:
    """Let :func:`replace_film_loader`'s class pass where transformers looks at the parts of a processor."""
    if _lacks_torchvision():
        processing_utils.MODALITY_TO_BASE_CLASS_MAPPING["video_processor"] = "ImageProcessingMixin"


def replace_film_loader(video_processing_auto: ModuleType) -> None:
    """Load a stand-in that refuses films in the place of a processor that cannot be loaded."""
    if not _lacks_torchvision():
        return
    from gad_verl.cpu.no_films import NoFilms

    video_processing_auto.AutoVideoProcessor = NoFilms
