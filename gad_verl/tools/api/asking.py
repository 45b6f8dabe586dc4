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
"""Asks an API for the texts of some requests from code that goes on without those that it does not get."""

import logging
from collections.abc import Sequence

from gad_verl.errors import GadEndpointError
from gad_verl.tools.api.endpoint import Endpoint
from gad_verl.tools.api.requests import ChatRequest
from gad_verl.tools.api.store import AnswerStore

logger = logging.getLogger(__name__)


def ask_for_texts(endpoint: Endpoint, requests: Sequence[ChatRequest], store: AnswerStore) -> list[str | None]:
    """The text of each answer, from the store or new; None where the API gave none.

    An API that is down costs the answers of this call, not the caller: what came is in the store, and the next call
    asks for the rest again.

    Args:
        endpoint: Where to ask, and the limits to keep.
        requests: What to ask; two with the same key are asked once.
        store: Where the answers are and go; stays open.

    Raises:
        GadEndpointError: Not one of at least two requests has an answer: going on would be blind.
    """
    missing = [request for request in requests if request.key not in store]
    if missing:
        # Here and not above: what is in the store already needs no client.
        from gad_verl.tools.api.client import answer_all_sync

        failure: GadEndpointError | None = None
        try:
            summary = answer_all_sync(endpoint, missing, store, heard=len(missing) < len(requests))
            for reason, number in summary.failed.most_common():
                logger.warning("%d requests got no answer: %s", number, summary.last_faults.get(reason, reason))
        except GadEndpointError as error:
            failure = error
            logger.warning("%s", error)
        if len(requests) > 1 and all(request.key not in store for request in requests):
            raise failure or GadEndpointError(
                f"the model {endpoint.model!r} at {endpoint.base_url} answered none of {len(requests)} requests; the "
                "warnings above say why. The same call asks again"
            )
    answers = [store.get(request.key) for request in requests]
    return [None if answer is None else answer.text for answer in answers]
