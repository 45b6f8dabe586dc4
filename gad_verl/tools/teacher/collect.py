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
"""The run: plan, ask, ask again, write."""

import asyncio
import logging
from collections.abc import Container
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError, GadDataError, GadEndpointError
from gad_verl.tools.api.check import check_endpoint
from gad_verl.tools.api.client import Stop, Summary, answer_all, first_leaf
from gad_verl.tools.api.requests import answer_limit, estimate_prompt_tokens
from gad_verl.tools.api.store import AnswerStore
from gad_verl.tools.teacher.output import write_output
from gad_verl.tools.teacher.plan import Plan
from gad_verl.tools.teacher.progress import CollectProgress
from gad_verl.tools.teacher.settings import Teacher

logger = logging.getLogger(__name__)


def store_path(output: Path) -> Path:
    """Where the answers of an output are kept."""
    return output.with_name(f"{output.name}.answers.sqlite")


@dataclass
class Estimate:
    """What is to be asked of one teacher, before it is.

    Attributes:
        wanted: Answers in all.
        stored: Of these, in the store already.
        prompt_tokens: Of the ones to ask, roughly (four bytes a token).
    """

    wanted: int = 0
    stored: int = 0
    prompt_tokens: int = 0

    @property
    def to_ask(self) -> int:
        """Answers that are not stored."""
        return self.wanted - self.stored


def estimate(plan: Plan, path: Path) -> dict[str, Estimate]:
    """Read every prompt once, which checks them all, and count. The keys are the teachers' names.

    Args:
        plan: What to ask.
        path: The store, which need not be there; it is not made.
    """
    with AnswerStore(path, plan.settings.identity()) if path.exists() else nullcontext({}) as stored:
        return {teacher.name: _estimate_of(plan, teacher, stored) for teacher in plan.settings.teachers}


def _estimate_of(plan: Plan, teacher: Teacher, stored: Container[str]) -> Estimate:
    one = Estimate()
    for request in plan.requests(teacher):
        one.wanted += 1
        if request.key in stored:
            one.stored += 1
        else:
            one.prompt_tokens += estimate_prompt_tokens(request.messages)
    return one


def dry_run(plan: Plan, output: Path) -> str:
    """What a run would ask and cost, in words. Nothing is asked and nothing is written."""
    estimates = estimate(plan, store_path(output))
    duplicates = sum(1 for prompt in plan.prompts if prompt.occurrence)
    dropped = "left out" if "duplicate-prompt" in plan.settings.drop else "asked again"
    lines = [f"{plan.prompts.source.name}: {sum(1 for _ in plan.prompts)} prompts, {duplicates} duplicates ({dropped})"]
    for teacher in plan.settings.teachers:
        one, limit = estimates[teacher.name], answer_limit(teacher.sampling)
        lines.append(
            f"{teacher.name}: {one.wanted} answers wanted, {one.stored} stored, {one.to_ask} to ask; about "
            f"{one.prompt_tokens} tokens of prompts and at most {limit * one.to_ask} of answers"
        )
        if teacher.price is not None:
            lines.append(f"{teacher.name}: at most about {teacher.cost(one.prompt_tokens, limit * one.to_ask):.4f}")
    lines.append("nothing was asked")
    return "\n".join(lines)


def collect(plan: Plan, output: Path, *, overwrite: bool = False, allow_missing: bool = False) -> dict[str, Any]:
    """Ask for everything that is missing and write the file.

    Args:
        plan: What to ask.
        output: Parquet file to write. The answers are kept beside it, so that an interruption loses none.
        overwrite: Replace a file of this name that was not made here.
        allow_missing: Write the file even if answers are missing.

    Returns:
        The card.

    Raises:
        GadConfigError, GadDataError, GadEndpointError: One line each. Answers that were given are kept.
        FileExistsError: The output exists and its answers are not beside it.
    """
    path = check_output(output, overwrite)
    # All prompts are read, and every teacher is there, before anything is written.
    estimates = estimate(plan, path)
    for teacher in plan.settings.teachers:
        if estimates[teacher.name].to_ask:
            check_endpoint(teacher.endpoint, teacher.sampling)
    with AnswerStore(path, plan.settings.identity()) as store:
        summary = Summary()
        with closing(CollectProgress(sum(one.wanted for one in estimates.values()))) as progress:
            for attempt in range(plan.settings.ask_again_times + 1):
                summary += asyncio.run(_ask_all(plan, store, attempt, progress))
        _report(summary)
        return write_output(plan, store, output, allow_missing)


def check_output(output: Path, overwrite: bool) -> Path:
    """The path of the store, after a look at where the output is to go.

    Raises:
        GadConfigError: It is no name of a parquet file.
        FileExistsError: It exists and was not made by a collection.
    """
    if output.suffix != ".parquet":
        raise GadConfigError(f"--output {output}: the name must end in .parquet")
    if output.is_dir():
        raise GadDataError(f"{output} is a folder: name a file to write")
    path = store_path(output)
    if output.exists() and not path.exists() and not overwrite:
        raise FileExistsError(f"{output} exists and was not collected here: choose another name or add --overwrite")
    return path


async def _ask_all(plan: Plan, store: AnswerStore, attempt: int, progress: CollectProgress) -> Summary:
    """One attempt of every teacher, all teachers at the same time; where one has to stop, all do."""
    stop = Stop()

    async def ask(teacher: Teacher) -> Summary:
        requests = plan.requests(teacher, attempt, store)
        shown = progress.of(teacher, is_extra=attempt > 0)
        try:
            # From the second attempt on, what was answered before is asked again.
            heard = attempt > 0
            return await answer_all(teacher.endpoint, requests, store, progress=shown, stop=stop, heard=heard)
        except GadEndpointError:
            # Raised when the others have ended too: the group would cancel them, and their answers are paid for.
            return Summary()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(teacher)) for teacher in plan.settings.teachers]
    except BaseExceptionGroup as errors:
        raise first_leaf(errors) from None
    if stop.error is not None:
        raise stop.error
    return sum((task.result() for task in tasks), Summary())


def _report(summary: Summary) -> None:
    logger.info(
        "%d answers were stored, %d are new, from %d requests (%d of them again%s)",
        summary.stored,
        summary.answered,
        summary.attempts,
        summary.retries,
        "".join(f"; {reason} {number}" for reason, number in summary.faults.most_common()),
    )
    for reason, number in summary.failed.most_common():
        logger.warning(
            "%d requests have no answer: %s; the last fault: %s", number, reason, summary.last_faults[reason]
        )
    if summary.thoughts_alone:
        logger.warning(
            "%d answers have no text, but thoughts in a field of their own (reasoning): raise --max-tokens, or ask the "
            "model to think less (--extra-body)",
            summary.thoughts_alone,
        )
