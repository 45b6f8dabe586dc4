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
"""An OpenAI-compatible API asked for many answers: bounded, retried, within its limits, each answer on disk at once.

========================  ============================================================================================
module                    content
========================  ============================================================================================
``requests``              a request, an answer, keys
``endpoint``              where the API is, its limits, the key's variable
``check``                 :func:`check_endpoint`: is it there, does it take the key, does it know the model
``store``                 answers in a SQLite file
``client``                :func:`answer_all`: asks for what the store lacks
``gate``                  requests and tokens per minute, pauses
``transport``             one request
``manner``                how an API wants to be asked
``replies``               the answer in what comes back
``faults``                what an error means, in the API's own words
``asking``                :func:`ask_for_texts`: for code that goes on without what it does not get
``connection``            the HTTP client, proxies and certificates
========================  ============================================================================================

The modules from ``check`` on, but for ``store`` and ``gate``, import ``openai``; names here are loaded on first use.
"""

import importlib
from typing import Any

_PUBLIC = {
    "AnswerStore": "gad_verl.tools.api.store",
    "ChatAnswer": "gad_verl.tools.api.requests",
    "ChatRequest": "gad_verl.tools.api.requests",
    "Endpoint": "gad_verl.tools.api.endpoint",
    "Summary": "gad_verl.tools.api.client",
    "answer_all": "gad_verl.tools.api.client",
    "answer_all_sync": "gad_verl.tools.api.client",
    "ask_for_texts": "gad_verl.tools.api.asking",
    "check_endpoint": "gad_verl.tools.api.check",
    "request_key": "gad_verl.tools.api.requests",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
