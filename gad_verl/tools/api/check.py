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
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import openai

from gad_verl.errors import GadEndpointError
from gad_verl.tools.api.connection import connection_detail, open_client
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.faults import PassingError, RejectedError, status_error
from gad_verl.tools.api.manner import Manner
from gad_verl.tools.api.requests import ChatRequest
from gad_verl.tools.api.transport import ask_once

# A check is for a person who waits.
TIMEOUT_S = 30.0
SHOWN_MODELS = 8
_MODEL_CODES = ("model_not_found", "invalid_model", "model_not_exist", "DeploymentNotFound")
_MODEL_WORDS = re.compile(
    r"\bmodel\b[^.]{0,80}\b(?:does not exist|not exist|not found|not available|is unknown|is invalid)"
    r"|\b(?:unknown|invalid|no such) model\b|\bnot a valid model\b",
    re.IGNORECASE,
)


def check_endpoint(endpoint: Endpoint, sampling: Mapping[str, Any] | None = None, optional: Sequence[str] = ()) -> None:
    """Ask the API for its models, and where that is not conclusive for a one-token answer.

    Args:
        endpoint: Where to ask, and how.
        sampling: As the run will ask; see :class:`gad_verl.tools.api.requests.ChatRequest`.
        optional: Of these, what may be left out.

    Raises:
        GadEndpointError: Unreachable, unauthorised, an unknown model, or no OpenAI-compatible API; one line each.
        GadConfigError: The key's variable is not set, or the environment names an unusable proxy or certificate.
    """
    asyncio.run(_check(endpoint, _short_request(sampling or {}, optional)))


def _short_request(sampling: Mapping[str, Any], optional: Sequence[str]) -> ChatRequest:
    limit = "max_completion_tokens" if "max_completion_tokens" in sampling else "max_tokens"
    return ChatRequest("check", ({"role": "user", "content": "Hi"},), {**sampling, limit: 1}, tuple(optional))


async def _check(endpoint: Endpoint, request: ChatRequest) -> None:
    async with open_client(endpoint) as client:
        models = await _models(client, endpoint)
        if models is None or endpoint.model not in models:
            # Not every API lists its models, and some know them by more names than they list.
            await _probe(client, endpoint, request, models or [])


async def _models(client: openai.AsyncOpenAI, endpoint: Endpoint) -> list[str] | None:
    """Names of the models; None where the API does not tell."""
    try:
        raw = await client.models.with_raw_response.list(timeout=min(TIMEOUT_S, endpoint.timeout_s))
        return [str(model["id"]) for model in json.loads(raw.content)["data"]]
    except openai.APIConnectionError as error:
        raise GadEndpointError(
            f"{endpoint.base_url} cannot be reached ({connection_detail(endpoint, error)}); check --base-url and that "
            "the server runs"
        ) from None
    except openai.APIStatusError as error:
        meaning = status_error(endpoint, error)
        # An API without this list knows no such path.
        if isinstance(meaning, GadEndpointError) and error.status_code != 404:
            raise meaning from None
        return None
    except (ValueError, KeyError, TypeError, RecursionError, openai.APIError):
        return None


async def _probe(client: openai.AsyncOpenAI, endpoint: Endpoint, request: ChatRequest, models: list[str]) -> None:
    """Ask for one token; an answer of any kind is enough, and so is a fault that may pass."""
    patient = replace(endpoint, timeout_s=min(TIMEOUT_S, endpoint.timeout_s))
    try:
        await ask_once(client, patient, request, Manner(endpoint.stream))
    except PassingError as error:
        if error.reason == "content_type":
            raise GadEndpointError(
                f"{endpoint.base_url} is no OpenAI-compatible API: {error}; the base URL usually ends in /v1"
            ) from None
    except RejectedError as error:
        # Some names of models are refused with 400. What else is refused, the first prompts will tell.
        if error.param == "model" or error.code in _MODEL_CODES or _MODEL_WORDS.search(str(error)):
            raise GadEndpointError(f"{_unknown(endpoint, models)}: {error}") from None
    except GadEndpointError as error:
        if models and "(404)" in str(error):
            raise GadEndpointError(f"{_unknown(endpoint, models)}: {error}") from None
        raise


def _unknown(endpoint: Endpoint, models: list[str]) -> str:
    shown, more = endpoint.scrub(", ".join(models[:SHOWN_MODELS])), len(models) - SHOWN_MODELS
    has = f"; it has {shown}" + f" and {more} more" * (more > 0) if models else ""
    return f"{endpoint.base_url} has no model {endpoint.model!r}{has}"
