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
"""The whole evaluation of one checkpoint, as ``gad-verl evaluate`` runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gad_verl.data.schema import teacher_texts
from gad_verl.data.trajectory_messages import trajectory_texts
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.record.files import check_apart
from gad_verl.tools.evaluation.engines import load_model
from gad_verl.tools.evaluation.figures import TWO_SAMPLE, measure
from gad_verl.tools.evaluation.generation import (
    Compute,
    GenerationSettings,
    build_sequences,
    find_thoughts,
    generate,
    remove_export,
    student_folder,
)
from gad_verl.tools.evaluation.judging import Judgement, find_opponent, judge_checkpoint
from gad_verl.tools.evaluation.open_teacher import OpenTeacher, TeacherOptions, open_teacher
from gad_verl.tools.evaluation.report import REPORT, write_evaluation
from gad_verl.tools.evaluation.responses import RESPONSES, SETTINGS, read_responses, read_settings
from gad_verl.tools.evaluation.results import PROMPTS, RESULTS, Evaluation
from gad_verl.tools.evaluation.rows import load_rows
from gad_verl.tools.evaluation.scored_texts import ScoredText, scored_texts
from gad_verl.tools.evaluation.scores import SCORES, STUDENT, Divergence
from gad_verl.tools.evaluation.two_sample import SPLITS
from gad_verl.tools.export.checkpoint import Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from gad_verl.tools.api import Endpoint
    from gad_verl.tools.evaluation.judge import JudgeSettings
    from gad_verl.tools.evaluation.tool_turns import ToolOptions

JUDGE_STORE = "judge.sqlite"


@dataclass(frozen=True)
class JudgeOptions:
    """The judge and what it compares.

    Args:
        endpoint: Where it is.
        settings: How it is asked.
        store: File of its replies; None takes ``judge.sqlite`` in the output folder.
        against: See :func:`gad_verl.tools.evaluation.judging.find_opponent`.
        with_teacher: Score the teacher's texts too.
    """

    endpoint: "Endpoint"
    settings: "JudgeSettings"
    store: Path | None = None
    against: Sequence[str] = ("teacher",)
    with_teacher: bool = False


@dataclass(frozen=True)
class DataOptions:
    """The data file.

    Args:
        path: Parquet, JSON or JSONL in the schema of :mod:`gad_verl.data.schema`.
        prompt_key: Column of the prompt.
        teacher_key: Column of the teacher's texts.
        limit: Only so many of the first rows.
        checks_key: Column of the checks; None makes none.
        image_key: Column of the images.
    """

    path: Path
    prompt_key: str = "prompt"
    teacher_key: str = "teacher_response"
    limit: int | None = None
    checks_key: str | None = None
    image_key: str = "images"


def evaluate(
    model: Path,
    data: DataOptions,
    output: Path,
    settings: GenerationSettings,
    compute: Compute | None = None,
    judge: JudgeOptions | None = None,
    features_model: Path | None = None,
    splits: int = SPLITS,
    teacher: TeacherOptions | None = None,
    tools: "ToolOptions | None" = None,
) -> Evaluation:
    """Generate what is missing, measure, ask the judge, and write the results into ``output``.

    Args:
        model: A checkpoint.
        data: The held-out prompts.
        output: Folder of this evaluation; the same call goes on in it.
        settings: What decides the responses.
        compute: How they are computed.
        judge: None for no judge.
        features_model: Model of the third two-sample test; None leaves it out.
        splits: Random halves of the two-sample tests.
        teacher: An open teacher, for both divergences; None leaves them out.
        tools: That the student may call; the rows hold trajectories then.

    Raises:
        GadDataError, GadConfigError, GadCheckpointError, GadEndpointError: One line each, with the remedy.
    """
    names = (RESPONSES, SETTINGS, PROMPTS, RESULTS, REPORT, SCORES)
    store = judge.store or output / JUDGE_STORE if judge else None
    check_apart(
        {f"--output: its {name}": output / name for name in names} | {"the judge's store": store},
        {
            "--data": data.path,
            "--teacher-context": teacher.context if teacher else None,
            "--tools": tools.path if tools else None,
        },
    )
    read_texts = teacher_texts if tools is None else trajectory_texts
    rows = load_rows(
        data.path, data.prompt_key, data.teacher_key, data.limit, data.checks_key, read_texts, data.image_key
    )
    checkpoint = find_checkpoint(model)
    if features_model is not None and not (features_model / "config.json").is_file():
        raise GadConfigError(f"--features-model {features_model}: no Hugging Face folder (it has no config.json)")
    compute = compute or Compute()
    builder = build_sequences(checkpoint, settings, compute.trust_remote_code)
    thoughts = find_thoughts(checkpoint, settings, builder)
    if thoughts is not None and teacher is not None:
        raise GadConfigError(
            f"--teacher-model with a student whose thoughts are hidden ({model}): its probability of an answer depends "
            "on thoughts that the teacher's text has none of. Leave the teacher out, or take --thinking none"
        )
    rolled = None
    if tools is not None:
        from gad_verl.tools.evaluation.engines import read_config
        from gad_verl.tools.evaluation.tool_turns import ToolTurns, check_alone

        check_alone(tools, thoughts, teacher)
        rolled = ToolTurns(tools, builder, read_config(checkpoint.config_folder).get("model_type"))
        rows, builder = rolled.described(rows), rolled.builder
    images = None
    if any(row.images for row in rows):
        from gad_verl.tools.evaluation.image_reading import check_text_only, open_image_prompts

        check_text_only(teacher, tools, thoughts)
        images = open_image_prompts(checkpoint, builder, settings)
    compared = None
    if teacher is not None:
        compared = open_teacher(teacher, checkpoint, builder, rows, settings, compute.trust_remote_code)
    opponents = [find_opponent(name, rows) for name in judge.against] if judge else []
    names = [opponent.name for opponent in opponents]
    if len(names) != len(set(names)):
        raise GadConfigError(f"--against names two opponents {names}: give them names of their own (NAME=PATH)")
    # A judge that cannot be reached shows before hours of generation, not after them, and so does its store.
    if store is not None:
        _check_store(store, output)
    if judge is not None and len(read_responses(output / RESPONSES)) < len(rows) * settings.samples:
        from gad_verl.tools.api import check_endpoint

        check_endpoint(judge.endpoint, judge.settings.sampling(1), judge.settings.optional)
    # Of a global_step_N the teacher's student is exported as well: once for both.
    kept = replace(compute, keep_export=compute.keep_export or compared is not None)
    noted = {"data": str(data.path)}
    responses = generate(checkpoint, rows, output, settings, kept, builder, noted, thoughts, rolled, images)
    divergence = None
    if compared is not None:
        texts = scored_texts(rows, responses, compared, builder)
        divergence = _divergence(texts, compared, checkpoint, output, compute)
    featurize = None
    if features_model is not None:
        from gad_verl.tools.evaluation.features import text_features

        featurize = partial(text_features, features_model, max_tokens=settings.max_response_length)
    figures = measure(rows, responses, builder, featurize, splits)
    if features_model is not None and TWO_SAMPLE[2] in figures.about:
        figures.about[TWO_SAMPLE[2]]["model"] = features_model.resolve().name
    judgement: Judgement | None = None
    if judge is not None and store is not None:
        from gad_verl.tools.api import AnswerStore
        from gad_verl.tools.evaluation.judge import Judge

        with AnswerStore(store) as replies:
            asker = Judge(judge.endpoint, replies, judge.settings)
            judgement = judge_checkpoint(asker, rows, responses, opponents, judge.with_teacher)
    evaluation = write_evaluation(output, rows, read_settings(output / SETTINGS), figures, judgement, divergence)
    if judgement is not None and judgement.is_empty:
        counts = asker.counts
        raise GadDataError(
            f"{output}: written, but without one judged prompt: {counts.unparsed} of {counts.ratings} ratings of "
            f"{judge.endpoint.model!r} could not be read, {counts.unanswered} requests got no answer, "
            f"{counts.cut_replies} replies were cut by their length. Look "
            "at the replies in the judge's store; take a larger --judge-rating-tokens, or another judge"
        )
    return evaluation


def _check_store(path: Path, output: Path) -> None:
    """Open a store and let it go: another evaluation may use it while this one generates."""
    from gad_verl.tools.api import AnswerStore

    # A new one in the folder of the evaluation waits until that folder is made.
    if path.exists() or output.absolute() not in path.absolute().parents:
        AnswerStore(path).close()


def _divergence(
    texts: Sequence[ScoredText], teacher: OpenTeacher, checkpoint: Checkpoint, output: Path, compute: Compute
) -> Divergence:
    from gad_verl.tools.evaluation.divergence import measure_divergence
    from gad_verl.tools.evaluation.scoring import LoadedModel

    def load(who: str) -> LoadedModel:
        trusted = compute.trust_remote_code
        folder = student_folder(checkpoint, output, trusted) if who == STUDENT else teacher.folder
        model = load_model(folder, teacher.settings["dtype"], trusted)
        return LoadedModel(model, teacher.readers[who], who)

    divergence = measure_divergence(texts, teacher, output, load)
    if not compute.keep_export:
        remove_export(checkpoint, output)
    return divergence
