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
"""A real OpenAI-compatible server: llama.cpp with SmolLM2-135M-Instruct, as the quickstart's teacher runs it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


@contextlib.contextmanager
def real_server(threads: int = 2, parallel: int = 4) -> Iterator[tuple[str, str]]:
    """The server, while the block runs. A test is skipped where xllamacpp is missing or the weights cannot be had.

    The key is in ``OPENAI_API_KEY`` meanwhile, for this process and those that it starts.

    Yields:
        Base URL and name of the model.
    """
    pytest.importorskip("xllamacpp")
    sys.path.insert(0, str(QUICKSTART))
    try:
        import student
        import teacher
    finally:
        sys.path.remove(str(QUICKSTART))
    try:
        gguf = student.fetch_gguf()
    except student.StudentError as error:
        pytest.skip(f"no weights for the local server: {error}")
    before = os.environ.get("OPENAI_API_KEY")
    with teacher.local_server(gguf, threads=threads, parallel=parallel) as (base_url, key):
        os.environ["OPENAI_API_KEY"] = key
        try:
            yield base_url, teacher.LOCAL_MODEL
        finally:
            if before is None:
                del os.environ["OPENAI_API_KEY"]
            else:
                os.environ["OPENAI_API_KEY"] = before
