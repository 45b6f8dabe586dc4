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
"""One request to an API over the ``openai`` client, and what its outcome means: an answer, later, never, or stop."""

import asyncio
from typing import Any

import openai

from gad_verl.tools.api.connection import connection_detail
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.faults import PassingError, RejectedError, status_error
from gad_verl.tools.api.manner import Manner
from gad_verl.tools.api.replies import answer_of
from gad_verl.tools.api.requests import ChatAnswer, ChatRequest


async def ask_once(client: openai.AsyncOpenAI, endpoint: Endpoint, request: ChatRequest, manner: Manner) -> ChatAnswer:
    """Send a request once, and once more for everything that its refusal teaches about the API.

    Raises:
        PassingError: Worth another attempt.
        RejectedError: This request will never be answered.
        GadEndpointError: No request will be answered.
    """
    while True:
        body = manner.body(request)
        try:
            return await _send(client, endpoint, request, body)
        except RejectedError as error:
            if not manner.learn(request, body, error):
                raise


async def _send(
    client: openai.AsyncOpenAI, endpoint: Endpoint, request: ChatRequest, body: dict[str, Any]
) -> ChatAnswer:
    try:
        # The limit of the HTTP client is one between two bytes; this one is for the whole attempt.
        async with asyncio.timeout(endpoint.timeout_s):
            # The chat as extra_body, which replaces the empty list: the client would look at the type of every field of
            # every message, which takes longer than the rest of the request. A stream is read whole, as any other body.
            raw = await client.chat.completions.with_raw_response.create(
                model=endpoint.model, messages=[], extra_body=body
            )
    except UnicodeEncodeError:
        raise RejectedError("the request holds half of a character (a lone surrogate), which no UTF-8 has") from None
    except (TimeoutError, openai.APITimeoutError):
        raise PassingError("timeout", f"no answer within {endpoint.timeout_s:g} s", counted=True) from None
    except openai.APIStatusError as error:
        raise status_error(endpoint, error) from None
    except openai.APIConnectionError as error:
        raise PassingError("connection", connection_detail(endpoint, error)) from None
    return answer_of(endpoint, request, raw.content, raw.headers.get("content-type", ""))
