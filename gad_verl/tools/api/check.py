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
"""Is there an API, does it take the key, does it know the model? Asked before the first prompt is sent."""

import asyncio
import json
from dataclasses import replace

import openai

from gad_verl.errors import GadEndpointError
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.requests import ChatRequest
from gad_verl.tools.api.transport import PassingError, RejectedError, ask_once, open_client, status_error

# A check is for a person who waits.
TIMEOUT_S = 30.0
SHOWN_MODELS = 8


def check_endpoint(endpoint: Endpoint) -> None:
    """Ask the API for its models, and where that is not conclusive for a one-token answer.

    Raises:
        GadEndpointError: Unreachable, unauthorised, an unknown model, or no OpenAI-compatible API; one line each.
        GadConfigError: The key's variable is not set.
    """
    asyncio.run(_check(endpoint))


async def _check(endpoint: Endpoint) -> None:
    async with open_client(endpoint) as client:
        models = await _models(client, endpoint)
        if models is None or endpoint.model not in models:
            # Not every API lists its models, and some know them by more names than they list.
            await _probe(client, endpoint, models or [])


async def _models(client: openai.AsyncOpenAI, endpoint: Endpoint) -> list[str] | None:
    """Names of the models; None where the API does not tell."""
    try:
        raw = await client.models.with_raw_response.list(timeout=min(TIMEOUT_S, endpoint.timeout_s))
        return [str(model["id"]) for model in json.loads(raw.content)["data"]]
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        detail = endpoint.scrub(str(cause)) or type(cause).__name__
        raise GadEndpointError(
            f"{endpoint.base_url} cannot be reached ({detail}); check --base-url and that the server runs"
        ) from None
    except openai.APIStatusError as error:
        if error.status_code in (401, 402, 403):
            raise status_error(endpoint, error) from None
        return None
    except (ValueError, KeyError, TypeError, openai.APIError):
        return None


async def _probe(client: openai.AsyncOpenAI, endpoint: Endpoint, models: list[str]) -> None:
    """Ask for one token; an answer of any kind is enough, and so is a fault that may pass."""
    request = ChatRequest("check", ({"role": "user", "content": "Hi"},), {"max_tokens": 1})
    patient = replace(endpoint, timeout_s=min(TIMEOUT_S, endpoint.timeout_s))
    try:
        await ask_once(client, patient, request)
    except PassingError as error:
        if error.reason == "content_type":
            raise GadEndpointError(
                f"{endpoint.base_url} is no OpenAI-compatible API: {error}; the base URL usually ends in /v1"
            ) from None
    except RejectedError as error:
        # Some names of models are refused with 400. Without a list, or with another cause, the first prompts will tell.
        if models and "model" in str(error).lower():
            raise GadEndpointError(_unknown(endpoint, models)) from None
    except GadEndpointError:
        if models:
            raise GadEndpointError(_unknown(endpoint, models)) from None
        raise


def _unknown(endpoint: Endpoint, models: list[str]) -> str:
    shown, more = ", ".join(models[:SHOWN_MODELS]), len(models) - SHOWN_MODELS
    return f"{endpoint.base_url} has no model {endpoint.model!r}; it has {shown}" + f" and {more} more" * (more > 0)
