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
"""Images beside a prompt: the forms in which rows bring them, and where in the text they stand.

A row has the texts of its messages with ``<image>`` at each place, and the images in a column of their own
(``data.image_key``), as verl's rows have them. A run carries the files as they are: decoded, an image is many times as
large, and every rollout of a prompt has a copy.
"""

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gad_verl.errors import GadDataError

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "<image>"
# verl takes these for places of films and sound, in a row that brings images.
_OTHER_MARKS = ("<video>", "<audio>")
_FILE = "file://"
# What OpenAI-compatible APIs read.
_API_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_END_OF_JPEG = b"\xff\xd9"
_MODES_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


def image_file(value: Any, where: str) -> bytes:
    """The file of an image.

    Args:
        value: A path, the content of a file, a dict of data sets (``bytes``, ``path``), or an image of Pillow.
        where: File, row and column, for the error.

    Raises:
        GadDataError: It is none of these, or cannot be read.
    """
    if isinstance(value, Mapping):
        found = [value[name] for name in ("bytes", "path", "image") if value.get(name) is not None]
        other = sorted(set(value) - {"bytes", "path", "image", "type"})
        if other or not found:
            raise GadDataError(
                f"{where}: an image is a path, or a dict with bytes or path; got one with {', '.join(sorted(value))}. "
                "Sizes are set for all images, by data.mm_processor_kwargs"
            )
        value = found[0]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return _read(os.fspath(value), where)
    if hasattr(value, "save") and hasattr(value, "size"):
        buffer = io.BytesIO()
        # PNG has no CMYK and others; a model sees RGB anyway.
        value = value if value.mode in _MODES_OF_PNG else value.convert("RGB")
        # Without loss; little time for small files.
        value.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()
    raise GadDataError(f"{where}: an image is a path, or a dict with bytes or path; got {type(value).__name__}")


def _read(path: str, where: str) -> bytes:
    if "://" in path and not path.startswith(_FILE):
        raise GadDataError(f"{where}: {path[:80]} is an address; download the image and give its path")
    file = Path(path.removeprefix(_FILE)).expanduser()
    try:
        return file.read_bytes()
    except OSError as error:
        raise GadDataError(f"{where}: the image {file} cannot be read: {error.strerror or error}") from None


def decoded(file: Any) -> "Image":
    """An image of Pillow in RGB, of a file's content (or of whatever else a rollout's message holds)."""
    from PIL import Image

    content = file if isinstance(file, bytes) else image_file(file, "a message")
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def image_size(file: bytes, where: str) -> tuple[int, int]:
    """Height and width, from the head of a file.

    Raises:
        GadDataError: It is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(file)) as image:
            return image.height, image.width
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        raise GadDataError(f"{where}: {len(file)} bytes that are no image Pillow knows; convert it to PNG") from None


def check_image(file: bytes, where: str) -> None:
    """Check that a file is a whole image, as far as that can be seen without its pixels: by the checksums of a PNG, the
    mark at the end of a JPEG. Others are decoded, and so is a JPEG that has something else at its end.

    Raises:
        GadDataError: It is no image, or not all of one.
    """
    from PIL import Image

    image_size(file, where)
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.format == "PNG":
                image.verify()
            elif image.format != "JPEG" or not file.endswith(_END_OF_JPEG):
                image.load()
    # What Pillow raises for damage differs with the format.
    except Exception as error:
        raise GadDataError(
            f"{where}: the image of {len(file)} bytes is damaged or not whole ({error}); fetch or make it again"
        ) from None


def data_url(file: bytes) -> str:
    """An image as OpenAI-compatible APIs take it; formats that they do not read become PNG.

    Args:
        file: Content of an image's file.
    """
    from PIL import Image

    with Image.open(io.BytesIO(file)) as image:
        kind = str(image.format)
    if kind not in _API_FORMATS:
        buffer = io.BytesIO()
        decoded(file).save(buffer, format="PNG")
        kind, file = "PNG", buffer.getvalue()
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file).decode('ascii')}"


def for_api(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages with parts (:func:`with_images`) in OpenAI's form; those of text stay as they are."""

    def part_for_api(part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] != "image":
            return dict(part)
        return {"type": "image_url", "image_url": {"url": data_url(part["image"])}}

    return [
        {**message, "content": [part_for_api(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else dict(message)
        for message in messages
    ]


def image_values(value: Any, where: str) -> list[Any]:
    """What the column of the images holds, as a list.

    Raises:
        GadDataError: It is no list.
    """
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__"):
        raise GadDataError(f"{where}: expected a list of images, got {type(value).__name__}; write [image]")
    return list(value)


def row_images(value: Any, messages: Sequence[Mapping[str, Any]], where: str, column: str) -> tuple[bytes, ...]:
    """The files of a row's images, each an image with a place in the prompt; empty for a row of text.

    Args:
        value: What the column holds.
        messages: The prompt; contents are texts.
        where, column: File and row, and name of the column, for errors.

    Raises:
        GadDataError: Names the row, the column and the remedy.
    """
    named = f"{where}, column {column!r}"
    files = tuple(image_file(one, named) for one in image_values(value, named))
    for file in files:
        check_image(file, named)
    if files:
        check_marks(messages, len(files), where)
    return files


def refuse_films(row: Mapping[str, Any], columns: Sequence[str], where: str) -> None:
    """Refuse a row of films or sound.

    Args:
        row: Its columns.
        columns: Names of those that would hold them.
        where: File and row, for the error.

    Raises:
        GadDataError: Names the row, the column and the remedy.
    """
    for name in columns:
        value = row.get(name)
        if value is not None and (not hasattr(value, "__len__") or len(value)):
            raise GadDataError(
                f"{where}, column {name!r}: films and sound are not supported. Leave the column out, if the answers "
                "do not rest on it"
            )


def check_marks(messages: Sequence[Mapping[str, Any]], count: int, where: str) -> None:
    """Check that a prompt has a place for each of its images, and for nothing else.

    Args:
        messages: The prompt; contents are texts.
        count: Images of the row, at least one.
        where: File and row, for the error.

    Raises:
        GadDataError: Names the row and the remedy.
    """
    texts = [message["content"] for message in messages]
    for mark in _OTHER_MARKS:
        if any(mark in text for text in texts):
            raise GadDataError(f"{where}: the prompt holds {mark}, but films and sound are not supported; leave it out")
    places = sum(text.count(MARK) for text in texts)
    if places != count:
        raise GadDataError(
            f"{where}: {count} images for {places} places in the prompt; write {MARK} once for each image where it is "
            "to be seen"
        )


def with_images(messages: Sequence[Mapping[str, Any]], files: Sequence[bytes]) -> list[dict[str, Any]]:
    """Messages whose contents are lists of parts, as the templates of models with images want them.

    Args:
        messages: Contents are texts with as many marks as there are files.
        files: Contents of the images' files, in the order of the marks.
    """
    left = iter(files)
    return [
        {
            **message,
            "content": [
                {"type": "image", "image": next(left)} if text == MARK else {"type": "text", "text": text}
                for text in re.split(f"({MARK})", message["content"])
                if text
            ],
        }
        for message in messages
    ]


def image_files(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The images of messages with parts, in their order."""
    return [
        part["image"]
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping) and part.get("type") == "image"
    ]
