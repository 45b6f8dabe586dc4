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
"""Folders on the machines of worker groups."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray


def remove_everywhere(groups: Iterable[Any], folders: list[Path]) -> None:
    """Delete folders on every node that holds a part of them.

    Args:
        groups: Worker groups; each worker deletes on its node.
        folders: What goes; nothing happens where a node has none of it.
    """

    def remove(_: Any, targets: list[str]) -> None:
        import shutil

        for target in targets:
            shutil.rmtree(target, ignore_errors=True)

    paths = [str(folder) for folder in folders]
    calls = [worker.__ray_call__.remote(remove, paths) for group in groups for worker in group.workers]
    if calls:
        # Without a call to wait for, Ray would start a cluster of its own here.
        ray.get(calls)
