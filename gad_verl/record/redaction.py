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
"""Keeps secrets out of what is written down."""

import os
import re
from collections.abc import Mapping
from typing import Any

REMOVED = "(removed)"

# Parts of names that hold a secret. "key" and "token" alone are no such parts: prompt_key, max_token_len, pad_token.
_SECRET_NAME = re.compile(
    r"secret|passw(or)?d|passphrase|credential|authorization|cookie"
    r"|(api|access|private|auth|signing|encryption|account|license)[-_.]?key"
    r"|(^|[-_.])(ak|sk|pwd)$"
    r"|(^|[-_.])(api|access|auth|bearer|refresh|id|hf|hub|huggingface|wandb|github|session)?[-_.]?tokens?$",
    re.IGNORECASE,
)
_HARMLESS_NAME = re.compile(
    r"(bos|eos|pad|unk|sep|cls|mask|image|video|audio|special|stop|num|max|min|new|response|prompt|total)[-_.]tokens?$"
    # The name of an environment variable, not what it holds.
    r"|[-_.]env$",
    re.IGNORECASE,
)
# Forms of well-known keys, and a word after "Bearer".
_SECRET_TEXT = re.compile(
    r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}|\b(?:hf|ghp|gho|ghs|github_pat|glpat|xox[abps])[_-][A-Za-z0-9_-]{16,}"
    r"|\bAKIA[A-Z0-9]{16}\b|(?<=\bBearer )\S+"
)
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_SHORTEST = 8
# The environment variable of the working folder is named like a password.
_WORKING_FOLDER = "PWD"


def is_secret_name(name: str) -> bool:
    """Whether a key of that name holds a secret: ``api_key`` and ``HF_TOKEN`` do, ``prompt_key`` does not."""
    # apiKey and api_key are one name.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def without_secrets(value: Any) -> Any:
    """A nested configuration in which every secret is replaced by ``REMOVED``.

    A secret is what stands under a name that says so, what has the form of a well-known key, user and password in an
    address, and the value of an environment variable with a secret name, wherever it stands.

    Args:
        value: Of mappings, lists and plain values. It is left as it is.
    """
    known = [
        text
        for name, text in os.environ.items()
        if len(text) >= _SHORTEST and not text.isdigit() and name != _WORKING_FOLDER and _holds(name, text)
    ]
    return _clean(value, sorted(known, key=len, reverse=True))


def _holds(name: str, value: Any) -> bool:
    """Numbers, switches and empty values are no secrets, whatever their name."""
    return bool(value) and not isinstance(value, bool | int | float) and is_secret_name(name)


def _clean(value: Any, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: REMOVED if _holds(str(name), item) else _clean(item, known) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, known) for item in value]
    if not isinstance(value, str):
        return value
    for secret in known:
        value = value.replace(secret, REMOVED)
    return _USER_IN_ADDRESS.sub(REMOVED, _SECRET_TEXT.sub(REMOVED, value))
