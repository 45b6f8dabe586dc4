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
"""The failure gallery: five ways in which GAD goes wrong, provoked, seen by the guardian or preflight, and cured.

    python examples/studies/gallery.py                     # all runs

A small language: the prompt is three letters, the teacher answers with one of three words made of them, mostly said
twice. The student (a GRU) is first taught by cross-entropy; then come 30 steps of the discriminator alone and 60
adversarial ones (``examples/gad_in_one_file.py``). Every arm breaks one thing, its cure mends that thing with a tool of
this package. The metrics of the adversarial steps are in the rows; the tables are the verdict of today's guardian, with
its default thresholds, on them. Seeds below 100 were looked at while arms and thresholds were chosen and are reported
apart.
"""

import copy
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from study_common import Row, Rows, Run, arguments, run_all, table
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import GenerationConfig

# isort: split
from gad_in_one_file import Example, Gad, Settings
from token_rows import sample_responses
from variants import VariantGad, VariantSettings

from gad_verl.config import GuardianConfig
from gad_verl.core.gating import GateOptions, UpdateGate
from gad_verl.core.pair_loss import PairLossOptions
from gad_verl.data.tokens import EncodedResponse
from gad_verl.guardian import Event, Guardian
from gad_verl.tools.data.cleaning import clean
from gad_verl.tools.data.leaks import compare
from gad_verl.tools.data.two_sides import Side

NAME = "gallery"
CHOSEN_SEEDS, FIRST_SEED = (1,), 100

EOS, LETTERS = 0, "abcdefgh"
ALPHABET = ["", *LETTERS, *"HME> "]
IDS = {character: number for number, character in enumerate(ALPHABET)}
PROMPTS, PROMPT_LETTERS, TWICE = 1500, 2, 0.7

DISCRIMINATOR_STEPS, ADVERSARIAL_STEPS = 30, 60
BASE = VariantSettings(
    total_steps=DISCRIMINATOR_STEPS + ADVERSARIAL_STEPS,
    warmup_steps=DISCRIMINATOR_STEPS,
    discriminator_only_steps=DISCRIMINATOR_STEPS,
    batch_size=16,
    n=4,
    max_response_length=24,
    temperature=1.0,
    actor_lr=2e-3,
    discriminator_lr=3e-3,
    clip_grad=1.0,
    micro_batch=1024,
)
# Steps of cross-entropy, of 64 rows each, and of the terse text after it.
TAUGHT, HARDLY_TAUGHT, MADE_TERSE = 250, 3, 30

# What the guardian reads, and the share of valid answers for us.
VALID = "valid"
RECORDED = (
    "disc/accuracy",
    "disc/saturated_fraction",
    "disc/no_spread_fraction",
    "disc/num_pairs",
    "disc/loss",
    "disc/margin_mean",
    "disc/grad_norm",
    "disc/skipped_steps",
    "disc/teacher_score_mean",
    "disc/student_score_mean",
    "gad/stage",
    "gad/prompts",
    "gad/length_ratio",
    "gad/score_length_correlation",
    "gad/student_finished_rate",
    "gad/teacher_finished_rate",
    "gad/nonfinite_scores",
    "gad/self_bleu",
    "gad/distinct_2",
    "gad/repetition",
    "gad/teacher_repetition",
    "actor/loss",
    "actor/kl_loss",
    "actor/entropy",
    "actor/grad_norm",
    VALID,
)


# ------------------------------------------------ language and models ------------------------------------------------


def words(letters: str) -> dict[str, float]:
    """The three right words for a prompt, with the teacher's probabilities."""
    return {"H" + letters[::-1]: 0.5, "M" + letters[:2]: 0.3, "E" + letters[0] * 2 + letters[1] * 2: 0.2}


def is_valid(letters: str, text: str) -> bool:
    """Whether a text says a right word, once or several times, and nothing else; blanks do not matter."""
    said = text.split()
    return bool(said) and said[0] in words(letters) and set(said) == {said[0]}


def encode(text: str) -> list[int]:
    return [IDS[character] for character in text]


def decode(ids: Sequence[int]) -> str:
    return "".join(ALPHABET[token] for token in ids)


class Student(nn.Module):
    """A GRU of 32 units: too little for the language to be learned at once."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.reads = nn.Embedding(len(ALPHABET), 16), nn.GRU(16, 32, batch_first=True)
        self.says = nn.Linear(32, len(ALPHABET))
        self.generation_config = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.says(self.reads(self.tokens(input_ids))[0])

    @property
    def device(self) -> torch.device:
        return self.says.weight.device

    @torch.no_grad()
    def generate(self, input_ids: Tensor, generation_config: "GenerationConfig", **_: Any) -> SimpleNamespace:
        """As transformers' ``generate`` for prompts of one length: it goes on from the GRU's state."""
        said, state, rows = input_ids, None, [input_ids]
        do_sample, temperature = generation_config.do_sample, generation_config.temperature
        done = torch.zeros(len(input_ids), dtype=torch.bool)
        for _step in range(generation_config.max_new_tokens):
            hidden, state = self.reads(self.tokens(said), state)
            logits = self.says(hidden[:, -1])
            likely = logits.argmax(-1)
            chosen = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0] if do_sample else likely
            chosen = torch.where(done, EOS, chosen)
            rows.append(chosen[:, None])
            done |= chosen == EOS
            if bool(done.all()):
                break
            said = rows[-1]
        return SimpleNamespace(sequences=torch.cat(rows, dim=1))


class Discriminator(nn.Module):
    """A causal transformer of two layers and width 48, without positions: it can read texts longer than any it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(ALPHABET), 48)
        layer = nn.TransformerEncoderLayer(48, 2, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.reads = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.score = nn.LayerNorm(48), nn.Linear(48, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        later = torch.full((length, length), -torch.inf).triu(1)
        return self.score(self.norm(self.reads(self.tokens(input_ids), mask=later))).squeeze(-1)


@dataclass(frozen=True)
class Written:
    """How a teacher's text reaches the discriminator: changed text, and whether its end is marked."""

    change: Callable[[str], str] = str
    end: bool = True


def teacher_rows(seed: int, written: Written, once: bool = False) -> list[Example]:
    """Prompts with the teacher's texts; ``once`` leaves the second time away."""
    rng = random.Random(seed)
    rows = []
    for index in range(PROMPTS):
        letters = "".join(rng.sample(LETTERS, PROMPT_LETTERS))
        right = words(letters)
        word = rng.choices(list(right), weights=list(right.values()))[0]
        twice = rng.random() < TWICE and not once
        ids = encode(written.change(f"{word} {word}" if twice else word))
        text = EncodedResponse(ids + [EOS] if written.end else ids, finished=written.end, cut=not written.end)
        rows.append(Example(index, encode(letters + ">"), [text]))
    return rows


def teach(student: nn.Module, rows: list[Example], steps: int, seed: int) -> None:
    """Cross-entropy on the teacher's texts."""
    seqkd = Settings(
        stage="seqkd", total_steps=steps, batch_size=64, warmup_actor_lr=3e-3, clip_grad=1.0, seed=seed, micro_batch=64
    )
    Gad(student, nn.Linear(1, 1), rows, seqkd, frozenset({EOS})).run()


@lru_cache(maxsize=3)
def taught(seed: int, kind: str) -> nn.Module:
    """A student: ``taught``, ``hardly`` (a sixth of the steps) or ``terse`` (taught, then says every word once)."""
    torch.manual_seed(seed)
    if kind == "terse":
        student = copy.deepcopy(taught(seed, "taught"))
        teach(student, teacher_rows(seed, Written(), once=True), MADE_TERSE, seed)
        return student
    student = Student()
    teach(student, teacher_rows(seed, Written()), HARDLY_TAUGHT if kind == "hardly" else TAUGHT, seed)
    return student


# ------------------------------------------------- arms -------------------------------------------------


def _gated(gad: Gad) -> None:
    """A discriminator that waits while it is ahead, and is never quite sure."""
    gad.gate = UpdateGate(GateOptions(accuracy_below=0.85))
    gad.pair_loss = PairLossOptions(label_smoothing=0.1)


@dataclass(frozen=True)
class Arm:
    """A way to go wrong, or its cure.

    Args:
        what: In words.
        rules: Rules of the guardian of which one must see it; none for a healthy run.
        settings: Changes of :data:`BASE`.
        written: How the teacher's texts come in.
        student: See :func:`taught`.
        tool: Sets options of the discriminator.
        cures: Name of the arm that it cures.
    """

    what: str
    rules: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: Written = field(default_factory=Written)
    student: str = "taught"
    tool: Callable[[Gad], None] | None = None
    cures: str | None = None


def _longer_alone(steps: int) -> dict[str, int]:
    """More steps of the discriminator alone."""
    return {
        "total_steps": steps + ADVERSARIAL_STEPS,
        "warmup_steps": steps,
        "discriminator_only_steps": steps,
    }


def _trailing_blank(text: str) -> str:
    return text + " "


def _normalized(text: str) -> str:
    """As ``gad-verl data normalize`` cleans it."""
    return clean(_trailing_blank(text), ("whitespace",)).text


ARMS = {
    "healthy": Arm("nothing is broken"),
    "EOS leak": Arm("the end-of-text token of the teacher is lost", ("end_of_text",), written=Written(end=False)),
    "white space": Arm("the teacher's texts end with a blank", ("saturated",), written=Written(_trailing_blank)),
    "saturated D": Arm(
        "the student was hardly taught, D trains alone for 80 steps and is then updated twice a step",
        ("saturated",),
        settings=_longer_alone(80) | {"discriminator_updates": 2},
        student="hardly",
    ),
    "frozen D": Arm(
        "D is frozen after it has learned that a terse student's texts are short",
        ("length", "score_length"),
        settings={"discriminator_frozen": True},
        student="terse",
    ),
    "identical rollouts": Arm("temperature 0.05", ("no_spread", "collapse"), settings={"temperature": 0.05}),
    "EOS leak, cured": Arm("both sides are encoded by one function", cures="EOS leak"),
    "white space, cured": Arm(
        "gad-verl data normalize (strips white space)", written=Written(_normalized), cures="white space"
    ),
    "saturated D, cured": Arm(
        "D at a third of the rate, one update, only below accuracy 0.85, label smoothing 0.1",
        settings=_longer_alone(80) | {"discriminator_lr": 1e-3},
        student="hardly",
        tool=_gated,
        cures="saturated D",
    ),
    "frozen D, cured": Arm("D is updated in every step", student="terse", cures="frozen D"),
    "identical rollouts, cured": Arm("temperature 1", cures="identical rollouts"),
}
SICK = [name for name, arm in ARMS.items() if arm.rules]
CURES = [name for name, arm in ARMS.items() if arm.cures]
# These are the healthy run by another name: what the cure undoes is all that was broken.
SAME_AS_HEALTHY = ("EOS leak, cured", "white space, cured", "identical rollouts, cured")


def preflight(rows: Sequence[Example], student: nn.Module, seed: int) -> dict[str, Any]:
    """What ``gad-verl data leaks`` says to 100 texts of each side before the run."""
    chosen = list(rows[:100])
    torch.manual_seed(seed)
    sampled = sample_responses(student, [row.prompt_ids for row in chosen], 32, frozenset({EOS}), 1.0)
    prompts = [decode(row.prompt_ids) for row in chosen]
    numbers = list(range(len(chosen)))
    teachers = [row.teachers[0] for row in chosen]
    teacher = Side(
        [decode(one.token_ids) for one in teachers], prompts, numbers, [not one.finished for one in teachers]
    )
    answers = Side([decode(ids) for ids in sampled], prompts, numbers, [ids[-1] != EOS for ids in sampled])
    report = compare(teacher, answers, seed=seed)
    assert report.accuracy is not None
    features = [single.feature.name for finding in report.findings for single in finding.features]
    return {"accuracy": report.accuracy.value, "features": features[:3]}


def run(name: str, seed: int) -> dict[str, Any]:
    """One run; returns its row."""
    arm = ARMS[name]
    student = copy.deepcopy(taught(seed, arm.student))
    rows = teacher_rows(1000 + seed, arm.written)
    before = preflight(rows, student, seed)
    torch.manual_seed(2000 + seed)
    settings = replace(BASE, **arm.settings, seed=seed)
    gad = VariantGad(student, Discriminator(), rows, settings, frozenset({EOS}))
    if arm.tool is not None:
        arm.tool(gad)
    stream: dict[str, list[float | None]] = {metric: [] for metric in RECORDED}

    def record(step: int, metrics: dict[str, float], gad: Gad) -> None:
        if step <= settings.warmup_steps:
            return
        answers = [
            is_valid(decode(group.prompt_ids[:-1]), decode(one.token_ids))
            for group in gad.groups
            for one in group.students
            if one is not None
        ]
        known = metrics | {VALID: sum(answers) / len(answers)}
        for metric, values in stream.items():
            values.append(float(f"{known[metric]:.4g}") if metric in known else None)

    gad.run([record])
    return {
        "arm": name,
        "seed": seed,
        "first_step": settings.warmup_steps + 1,
        "preflight": before,
        "stream": {metric: values for metric, values in stream.items() if any(one is not None for one in values)},
    }


# ------------------------------------------------- the verdict -------------------------------------------------


def metrics_of(row: Row) -> list[tuple[int, dict[str, float]]]:
    """Step and metrics of a row's stream."""
    stream = row["stream"]
    count = len(next(iter(stream.values())))
    return [
        (
            row["first_step"] + place,
            {name: values[place] for name, values in stream.items() if values[place] is not None},
        )
        for place in range(count)
    ]


def verdict(row: Row) -> list[Event]:
    """What the guardian, with its default settings, says to a run; conditions that have passed are left out."""
    guardian = Guardian(GuardianConfig())
    events = [event for step, metrics in metrics_of(row) for event in guardian.observe(step, metrics)]
    return [event for event in events if event.action != "info"]


def detected(row: Row) -> int | None:
    """Adversarial step in which one of the arm's own rules spoke first; None if none did."""
    steps = [event.step for event in verdict(row) if event.rule in ARMS[row["arm"]].rules]
    return min(steps) - row["first_step"] + 1 if steps else None


def _begins(row: Row, metric: str) -> float:
    """Mean of the first ten steps."""
    return statistics.fmean(row["stream"][metric][:10])


def _ends(row: Row, metric: str) -> float:
    """Mean of the last ten steps."""
    return statistics.fmean(row["stream"][metric][-10:])


def _middle(values: Sequence[float], digits: int = 2) -> str:
    """Median with lowest and highest."""
    if not values:
        return "–"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _spoken(rows: Sequence[Row]) -> str:
    """Rules that spoke, with the number of runs."""
    counts: dict[str, int] = {}
    for row in rows:
        for rule in {event.rule for event in verdict(row)}:
            counts[rule] = counts.get(rule, 0) + 1
    return (
        ", ".join(f"{rule} {count}" for rule, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))) or "–"
    )


def _detections(rows: Sequence[Row]) -> str:
    lines = []
    for name in ["healthy", *SICK]:
        mine = [row for row in rows if row["arm"] == name]
        steps = [step for step in map(detected, mine) if step is not None]
        alarms = sum(bool(verdict(row)) for row in mine)
        lines.append(
            [
                name,
                ARMS[name].what,
                ", ".join(ARMS[name].rules) or "none",
                f"{len(steps)} of {len(mine)}" if name in SICK else f"{alarms} false alarms in {len(mine)} runs",
                _middle(steps, 0),
                _spoken(mine),
                _middle([100 * _begins(row, VALID) for row in mine], 0),
                _middle([100 * _ends(row, VALID) for row in mine], 0),
            ]
        )
    heads = ["arm", "what is broken", "rules made for it", "seen", "adversarial step", "all that spoke (runs)"]
    return table([*heads, "valid %, first ten steps", "last ten"], lines)


def _cures(rows: Sequence[Row]) -> str:
    lines = []
    for name in CURES:
        sick = ARMS[name].cures
        source = "healthy" if name in SAME_AS_HEALTHY else name
        mine, ill = [row for row in rows if row["arm"] == source], [row for row in rows if row["arm"] == sick]
        gone = sum(not {event.rule for event in verdict(row)} & set(ARMS[sick].rules) for row in mine)
        lines.append(
            [
                str(sick),
                ARMS[name].what,
                f"{gone} of {len(mine)}",
                _spoken(mine),
                _middle([_ends(row, "disc/accuracy") for row in ill]),
                _middle([_ends(row, "disc/accuracy") for row in mine]),
                _middle([100 * _ends(row, VALID) for row in ill], 0),
                _middle([100 * _ends(row, VALID) for row in mine], 0),
            ]
        )
    heads = ["arm", "cure", "silent", "what still speaks", "accuracy, sick", "cured", "valid %, sick", "cured"]
    return table(heads, lines)


def _before(rows: Sequence[Row]) -> str:
    lines = []
    for name in ["healthy", *SICK]:
        mine = [row for row in rows if row["arm"] == name]
        firsts = [row["preflight"]["features"][0] for row in mine if row["preflight"]["features"]]
        named = statistics.mode(firsts) if firsts else "nothing"
        lines.append(
            [
                name,
                _middle([row["preflight"]["accuracy"] for row in mine]),
                named,
                f"{firsts.count(named)} of {len(mine)}",
            ]
        )
    return table(["arm", "accuracy on the surface alone", "first finding", "in"], lines)


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: detections on fresh seeds, on the seeds that were looked at, cures, preflight."""
    fresh, chosen = ([row for row in rows if (row["seed"] >= FIRST_SEED) == new] for new in (True, False))
    minutes = sum(row["cpu_s"] for row in rows) / 60
    seeds = sorted({row["seed"] for row in fresh})
    note = f"\nSeeds {seeds[0]} to {seeds[-1]}; all {len(rows)} runs took {minutes:.0f} minutes of one core.\n"
    return [_detections(fresh) + note, _detections(chosen), _cures(fresh), _before(fresh)]


def main() -> int:
    options = arguments(__doc__, NAME, seeds=5).parse_args()
    torch.set_num_threads(1)
    fresh = range(FIRST_SEED, FIRST_SEED + options.seeds)
    cures = [name for name in CURES if name not in SAME_AS_HEALTHY]
    order = [(seed, name) for seed in fresh for name in ["healthy", *SICK]]
    order += [(seed, name) for seed in fresh for name in cures]
    order += [(seed, name) for seed in CHOSEN_SEEDS for name in ["healthy", *SICK, *cures]]
    runs = [Run(f"{name}/seed={seed}", lambda name=name, seed=seed: run(name, seed)) for seed, name in order]
    return 0 if run_all(Rows(options.rows), runs, options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
