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
"""Pictures, films and sound beside the prompts: the discriminator reads text alone."""

from omegaconf import DictConfig

from gad_verl.data.file_stamps import file_list
from gad_verl.data.reading import BadRow, open_file
from gad_verl.data.schema import column_names
from gad_verl.errors import GadDataError

# verl's settings, each with the name of its column where it is not set.
_COLUMNS = {"image_key": "images", "video_key": "videos", "audio_key": "audios"}


def check_pictures(config: DictConfig) -> None:
    """Check that no row brings more than text, which verl would put into its prompt.

    Raises:
        GadDataError: Names the file, the row and the column.
    """
    names = [config.data.get(key) or name for key, name in _COLUMNS.items()]
    for path in dict.fromkeys([*file_list(config.data.train_files), *file_list(config.data.val_files)]):
        columns = [name for name in names if name in column_names(path)]
        for number, row in enumerate(open_file(path).rows(columns) if columns else ()):
            if isinstance(row, BadRow):
                raise GadDataError(row.message)
            for name in columns:
                value = row.get(name)
                if value is not None and (not hasattr(value, "__len__") or len(value)):
                    raise GadDataError(
                        f"{path}, row {number}, column {name!r}: pictures, films and sound are not supported, the "
                        "discriminator reads text alone. Leave the column out, if the answers do not rest on it"
                    )
