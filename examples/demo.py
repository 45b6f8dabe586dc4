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
"""See GAD work in three minutes: one process, no verl, no Ray, a language whose truth is known.

    make demo            # or: python examples/demo.py --output demo-run

A teacher answers a prompt of five letters in one of three ways. A small student first learns its texts by SeqKD, and
the best likelihood within 1,600 updates is kept. Then it goes on three times from there: by SeqKD for as many updates
as GAD has, by SeqKD ten times as fast for as long as GAD takes, and by GAD with the objective of ``gad=recommended``
(``gad_in_one_file.py``). An oracle says how many answers to prompts that nobody has seen are ones that the teacher
could have given.
"""

import argparse
import copy
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gad_in_one_file import Gad, Settings
from token_rows import sample_responses
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent / "studies"))
from language import BestLikelihood
from oracle_language import (
    BEGIN,
    LETTERS,
    STOP_IDS,
    CausalTransformer,
    Corpus,
    RecurrentStudent,
    judge,
    longest_answer,
    make_corpus,
    valid_answers,
)

from gad_verl.errors import GadConfigError
from gad_verl.record import RunRecord, Sample

logger = logging.getLogger(__name__)

MORE, LONGER = "SeqKD, as many updates", "SeqKD at 3e-2, as long"
LENGTH, TEXTS, VALIDATION, TEST = 5, 1000, 250, 300


@dataclass(frozen=True)
class Plan:
    """How long everything takes.

    Args:
        seqkd: Most updates until the common start; every ``look`` of them the likelihood is taken.
        alone, adversarial: Steps of the discriminator alone, and of GAD.
    """

    seqkd: int = 1600
    look: int = 100
    alone: int = 150
    adversarial: int = 300


def letters(ids: Sequence[int]) -> str:
    """Tokens in a form that can be read: letters, and a number for the way to answer."""
    shown = (chr(ord("a") + one) if one < LETTERS else f"{one - LETTERS + 1}:" for one in ids if one < BEGIN)
    return "".join(shown)


def seqkd(corpus: Corpus, student: nn.Module, steps: int, rate: float, seed: int, until_s: float | None = None) -> None:
    """Cross-entropy on the teacher's texts, for so many updates or so many seconds of the process."""
    settings = Settings(stage="seqkd", total_steps=steps, batch_size=64, actor_lr=rate, clip_grad=1.0, seed=seed)
    gad, end = Gad(student, nn.Linear(1, 1), corpus.train, settings, STOP_IDS), time.process_time() + (until_s or 0.0)
    while gad.steps_done < steps and (until_s is None or time.process_time() < end):
        gad.step()


def common_start(corpus: Corpus, plan: Plan, seed: int) -> nn.Module:
    """The student that SeqKD makes, at its best likelihood on validation texts within the plan."""
    torch.manual_seed(seed)
    student: nn.Module = RecurrentStudent(32, 16)
    settings = Settings(stage="seqkd", total_steps=plan.seqkd, batch_size=64, actor_lr=3e-3, clip_grad=1.0, seed=seed)
    gad = Gad(student, nn.Linear(1, 1), corpus.train, settings, STOP_IDS)
    best = BestLikelihood(student, corpus, plan.look)
    with tqdm(total=plan.seqkd, desc="SeqKD until the common start", unit="update") as bar:
        gad.run([best, lambda *_: bar.update()])
    return best.student


def gad_stage(corpus: Corpus, student: nn.Module, plan: Plan, seed: int, folder: Path) -> None:
    """GAD as ``gad=recommended`` has it, with a record for the report."""
    torch.manual_seed(seed + 1)
    discriminator = CausalTransformer(64, 2, 2, 1)
    settings = Settings(
        total_steps=plan.alone + plan.adversarial,
        warmup_steps=plan.alone,
        discriminator_only_steps=plan.alone,
        batch_size=32,
        n=4,
        max_response_length=longest_answer(LENGTH),
        temperature=1.0,
        actor_lr=1e-3,
        warmup_actor_lr=3e-3,
        discriminator_lr=1e-3,
        clip_grad=1.0,
        norm_adv_by_std=False,
        held_out_fraction=0.125,
        otherwise="supervised",
        seed=seed,
    )
    gad = Gad(student, discriminator, corpus.train, settings, STOP_IDS)
    record = RunRecord.open(folder, resume_step=None)
    record.write_run(vars(settings), folder / "metrics.jsonl")
    bar = tqdm(total=settings.total_steps, desc="GAD", unit="step")

    def watch(step: int, metrics: dict[str, float], gad: Gad) -> None:
        bar.set_postfix({"f": f"{gad.knowledge:.2f}", "D": f"{metrics['disc/accuracy']:.2f}"}, refresh=False)
        bar.update()
        phase = gad.schedule.phase(step).name.lower()
        record.scores(step, phase, gad.scores[:, 0].tolist(), gad.scores[:, 1:].flatten().tolist())
        if step % 50 == 0 or step == 1:
            record.samples(step, "train", [sample_of(gad, number) for number in range(4)])

    gad.run([watch], folder / "metrics.jsonl")
    bar.close()
    record.finish()


def sample_of(gad: Gad, number: int) -> Sample:
    """A group of the last step for the report."""
    group = gad.groups[number]
    return Sample(
        index=number,
        prompt=letters(group.prompt_ids),
        teacher=letters(group.teacher.token_ids),
        students=[letters(ids) for ids in group.sampled if ids is not None],
        teacher_score=gad.scores[number, 0].item(),
        student_scores=gad.scores[number, 1:].tolist(),
    )


def side_by_side(before: nn.Module, after: nn.Module, prompts: Sequence[list[int]], seed: int) -> list[str]:
    """Answers of two students to some prompts; one that the teacher would not give has a cross."""
    lines = [f"{'prompt':<8}{'before':<16}{'after GAD':<16}"]
    asked = [[*prompt, BEGIN] for prompt in prompts]
    answers = []
    for student in (before, after):
        torch.manual_seed(seed)
        answers.append(sample_responses(student, asked, longest_answer(LENGTH), STOP_IDS, temperature=1.0))
    for prompt, *pair in zip(prompts, *answers, strict=True):
        cells = [letters(ids) + ("" if ids in valid_answers(prompt) else "  x") for ids in pair]
        lines.append(f"{letters(prompt):<8}{cells[0]:<16}{cells[1]:<16}")
    return lines


def run(folder: Path, seed: int, plan: Plan) -> list[tuple[str, dict[str, float]]]:
    """All of it; returns the oracle's figures of each student."""
    corpus = make_corpus(LENGTH, TEXTS, VALIDATION, TEST, seed)
    start = common_start(corpus, plan, seed)
    students: dict[str, nn.Module] = {"SeqKD, where all start": start}

    def going_on(name: str, train: Callable[[nn.Module], Any]) -> float:
        students[name] = copy.deepcopy(start)
        begin = time.process_time()
        train(students[name])
        return time.process_time() - begin

    seconds = going_on("GAD, recommended", lambda student: gad_stage(corpus, student, plan, seed, folder))
    logger.info("GAD took %.0f s of the processor; SeqKD goes on for as many updates, then for as long", seconds)
    going_on(MORE, lambda student: seqkd(corpus, student, plan.adversarial, 3e-3, seed))
    going_on(LONGER, lambda student: seqkd(corpus, student, 10**9, 3e-2, seed, seconds))
    figures = []
    for name, student in students.items():
        torch.manual_seed(seed)
        figures.append((name, judge(student, corpus.test, 4)))
    for line in side_by_side(start, students["GAD, recommended"], corpus.test[:6], seed):
        logger.info("%s", line)
    return figures


def table(figures: Sequence[tuple[str, dict[str, float]]]) -> list[str]:
    """The oracle's figures, and what they say of this one seed."""
    heads = f"answers to {TEST} prompts", "valid at temp. 1", "greedy"
    lines = ["", f"{heads[0]:<26}{heads[1]:>18}{heads[2]:>12}"]
    lines += [f"{name:<26}{found['valid']:>18.1%}{found['greedy']:>12.1%}" for name, found in figures]
    valid = {name: found["valid"] for name, found in figures}
    more, longer = (100 * (valid["GAD, recommended"] - valid[name]) for name in (MORE, LONGER))
    lines.append(
        f"GAD is {more:+.0f} points against SeqKD of as many updates, {longer:+.0f} against SeqKD of equal time"
    )
    if longer < 0:
        lines.append(
            "and a higher rate: passes over the texts are cheap with so small a model. Try SeqKD longer first."
        )
    return lines


def main(argv: Sequence[str] | None = None, plan: Plan | None = None) -> int:
    """Returns the exit code: 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(description="GAD on a language whose truth is known", allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path("demo-run"), help="new folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of data, models and draws (default: %(default)s)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    try:
        if options.output.exists():
            raise GadConfigError(f"--output {options.output} exists; name a new folder, or remove it")
        options.output.mkdir(parents=True)
        figures = run(options.output, options.seed, plan or Plan())
    except (GadConfigError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"demo: interrupted; {options.output} is not whole, remove it\n")
        return 130
    for line in table(figures):
        logger.info("%s", line)
    logger.info("the curves: gad-verl report %s", options.output)
    logger.info("more seeds and regimes, with intervals, and where GAD loses: docs/studies.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
