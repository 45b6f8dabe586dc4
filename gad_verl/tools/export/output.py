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
"""Where an export may be written: looked at before anything is read, because the reading takes long."""

import os
from pathlib import Path

from gad_verl.errors import GadConfigError


def check_output(output: str | Path) -> Path:
    """The folder that an export replaces: new, or empty.

    Args:
        output: As the user named it. A link to an empty folder stays one.

    Returns:
        Its real place.

    Raises:
        FileExistsError: If it holds files.
        GadConfigError: If no folder can be put there.
    """
    place = Path(os.path.realpath(output))
    if os.path.isdir(place):
        if any(place.iterdir()):
            raise FileExistsError(f"{output} is not empty: remove it or choose another folder")
        if os.path.ismount(place):
            raise GadConfigError(
                f"{output} is a mount point, and the export takes the place of the whole folder: name a folder in it"
            )
        if place == Path.cwd():
            raise GadConfigError(f"{output} is the working folder, and the export takes its place: name a folder in it")
    elif os.path.exists(place):
        raise GadConfigError(f"{output} is a file: the name of a folder is needed")
    try:
        # As record.files.replaced names what it writes first.
        os.lstat(place.with_name(f".{place.name}.partial"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise GadConfigError(f"no folder {output} can be made ({error.strerror}): choose another") from None
    above = next(folder for folder in place.parents if os.path.isdir(folder))
    if not os.access(above, os.W_OK | os.X_OK):
        raise GadConfigError(f"{above} is not yours to write: choose another folder than {output}")
    return place
