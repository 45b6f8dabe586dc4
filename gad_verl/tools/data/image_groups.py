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
"""Which rows belong together by their images: those that show the same one, and those that share one with these."""

import hashlib
from collections.abc import Iterator, Sequence

from gad_verl.data.images import image_file, image_values
from gad_verl.tools.data.row_file import GadFile


def image_digests(opened: GadFile, column: str) -> Iterator[tuple[str, ...]]:
    """Fingerprints of each row's images, by the content of their files; none of a row of text.

    Raises:
        GadDataError: Names file, row and column of an image that cannot be read.
    """
    for number, row in enumerate(opened.records([column])):
        where = f"{opened.path}, row {number}, column {column!r}"
        images = [image_file(value, where) for value in image_values(row.get(column), where)]
        yield tuple(hashlib.sha256(image).hexdigest() for image in images)


def image_groups(digests: Sequence[tuple[str, ...]]) -> list[str | None]:
    """The group of each row; None of a row of text.

    Args:
        digests: Of each row's images.

    Returns:
        The least fingerprint among the images of all rows of a group: the order of the rows has no influence.
    """
    least: dict[str, str] = {}

    def root(one: str) -> str:
        while least[one] != one:
            least[one] = one = least[least[one]]
        return one

    for row in digests:
        for one in row:
            least.setdefault(one, one)
        roots = {root(one) for one in row}
        for one in roots:
            least[one] = min(roots)
    return [root(row[0]) if row else None for row in digests]
