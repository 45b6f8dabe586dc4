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
"""Data sets of the Hugging Face hub beside files: the input of commands that take either."""

from pathlib import Path

from gad_verl.data.reading import SUFFIXES, Source, one_line, open_file
from gad_verl.errors import GadDataError


def open_hub(name: str, split: str = "train", config: str | None = None) -> Source:
    """A data set of the Hugging Face hub (or of its local cache) through ``datasets``.

    Raises:
        GadDataError: If the data set cannot be loaded.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:
        # Of many kinds, network errors among them; all of them are for the user to mend.
        raise GadDataError(
            f"{name}: no such file, and the hub data set (split {split!r}) cannot be loaded: {one_line(error)}"
        ) from None
    if len(loaded) == 0:
        raise GadDataError(f"{name} has no rows in the split {split!r}")
    details = {"split": split, "config": config, "fingerprint": getattr(loaded, "_fingerprint", None)}
    return Source(name, list(loaded.column_names), len(loaded), lambda: iter(loaded), details=details)


def open_source(name: str, split: str = "train", config: str | None = None) -> Source:
    """A file, or where no such file is there and the name could be one, a data set of the hub."""
    looks_like_file = Path(name).suffix in SUFFIXES or Path(name).expanduser().exists()
    if looks_like_file or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return open_file(name)
    return open_hub(name, split, config)
