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
"""Short instructions with several valid answers: the task of ``lm_language.py``, its teacher and its oracle.

Eight kinds of instructions, each with three valid answers ("phrasings"). Two of them are rewritings that a small model
can learn; the third asks for more (arithmetic, a day of the week, letters of a word). The teacher picks one with
:data:`SHARES`, whatever the instruction. An answer is valid if it is one of the three, character by character.
"""

import calendar
import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHARES = (0.3, 0.3, 0.4)

FRUITS = (
    "apple apricot banana blackberry cherry coconut currant date fig grape guava kiwi lemon lime mango melon nectarine "
    "olive orange papaya peach pear pineapple plum quince raspberry strawberry tangerine"
).split()
PEOPLE = "Anna Boris Clara David Ellen Felix Greta Henry Irene Jonas Karen Louis Maria Nadia Oscar Paula Robert".split()
TRADES = "actor baker builder clerk cook doctor driver farmer guard judge lawyer miner nurse pilot sailor".split()
CITIES = "Athens Berlin Cairo Delhi Dublin Lima London Madrid Moscow Oslo Paris Prague Rome Sydney Tokyo".split()
WORDS = (
    "arm bag ball bird boat bone book cake card cat corn cup desk dog door duck farm fire fish flag gate gold hand "
    "hill iron king lamp leaf milk moon nail nest pipe rain ring road rock roof room rope salt sand ship snow star "
    "tree wall wind wolf wood"
).split()


@dataclass(frozen=True)
class Instruction:
    """A prompt and what may be said to it.

    Args:
        kind: One of :data:`KINDS`.
        prompt: The user's message.
        valid: The three valid answers, in the order of :data:`SHARES`.
        phrasing: Which of them the teacher gave.
    """

    kind: str
    prompt: str
    valid: tuple[str, ...]
    phrasing: int

    @property
    def teacher(self) -> str:
        """The teacher's text."""
        return self.valid[self.phrasing]

    def judge(self, answer: str) -> int | None:
        """Which phrasing an answer is; None for an answer that is not valid."""
        return self.valid.index(answer) if answer in self.valid else None


Drawn = tuple[str, tuple[str, str, str]]


def _clock(random_: random.Random) -> Drawn:
    hour, minute = random_.randrange(24), random_.randrange(1, 60)
    part = ("at night", "in the morning", "in the afternoon", "in the evening")[hour // 6]
    twelve, following = (hour - 1) % 12 + 1, hour % 12 + 1
    spoken = f"{minute} past {twelve} {part}" if minute <= 30 else f"{60 - minute} to {following} {part}"
    short = f"{twelve}:{minute:02} {'am' if hour < 12 else 'pm'}"
    return f"What time is {hour:02}:{minute:02}?", (short, spoken, f"{60 * hour + minute} minutes after midnight")


def _date(random_: random.Random) -> Drawn:
    day = datetime.date(2000, 1, 1) + datetime.timedelta(days=random_.randrange(9000))
    month, weekday = calendar.month_name[day.month], calendar.day_name[day.weekday()]
    plain = f"{day.day} {month} {day.year}"
    return f"Write out {day.isoformat()}.", (plain, f"{month} {day.day}, {day.year}", f"{weekday}, {plain}")


def _sort(random_: random.Random) -> Drawn:
    fruits = random_.sample(FRUITS, 3)
    first, second, third = sorted(fruits)
    backwards = f"From the end: {third}, {second}, {first}"
    return f"Sort {', '.join(fruits)}.", (f"{first}, {second}, {third}", f"{first} < {second} < {third}", backwards)


def _person(random_: random.Random) -> Drawn:
    name, age, trade, city = (
        random_.choice(PEOPLE),
        random_.randrange(20, 80),
        random_.choice(TRADES),
        random_.choice(CITIES),
    )
    record = f'{{"city": "{city}", "born": {2020 - age}}}'
    return f"Where does {name} live? {name}, {age}, {trade}, {city}.", (city, f"{name} lives in {city}.", record)


def _digits(random_: random.Random) -> Drawn:
    number = str(random_.randrange(1000, 10000))
    backwards = number[::-1]
    total = f"{number} + {backwards} = {int(number) + int(backwards)}"
    return f"Reverse {number}.", (backwards, " ".join(backwards), total)


def _letters(random_: random.Random) -> Drawn:
    first, second = random_.sample(WORDS, 2)
    spelled = f"{'-'.join(first)} {'-'.join(second)}"
    return f"Spell {first} {second}.", (spelled, spelled.upper(), f"{second[::-1]} {first[::-1]}")


def _money(random_: random.Random) -> Drawn:
    dollars, cents = random_.randrange(2, 100), random_.randrange(2, 99)
    change = f"${100 - dollars - 1}.{100 - cents:02} less than $100"
    words = f"{dollars} dollars and {cents} cents"
    return f"How much is ${dollars}.{cents:02}?", (words, f"{100 * dollars + cents} cents", change)


def _sum(random_: random.Random) -> Drawn:
    first, second = random_.randrange(11, 100), random_.randrange(11, 100)
    total = first + second
    product = f"{first} * 2 + {second} = {total + first}"
    return f"Add {first} and {second}.", (str(total), f"{first} + {second} = {total}", product)


KINDS: dict[str, Callable[[random.Random], Drawn]] = {
    "clock": _clock,
    "date": _date,
    "sort": _sort,
    "person": _person,
    "digits": _digits,
    "letters": _letters,
    "money": _money,
    "sum": _sum,
}


@dataclass(frozen=True)
class Splits:
    """Instructions of a seed; no prompt stands in two of them, or twice in one."""

    train: Sequence[Instruction]
    validation: Sequence[Instruction]
    test: Sequence[Instruction]


def make_splits(train: int, validation: int, test: int, seed: int) -> Splits:
    """Instructions of all kinds in turn, with the teacher's texts."""
    random_, seen, made = random.Random(seed), set(), []
    kinds = list(KINDS)
    while len(made) < train + validation + test:
        kind = kinds[len(made) % len(kinds)]
        prompt, valid = KINDS[kind](random_)
        if prompt not in seen:
            seen.add(prompt)
            made.append(Instruction(kind, prompt, valid, random_.choices(range(len(SHARES)), SHARES)[0]))
    return Splits(made[:train], made[train : train + validation], made[train + validation :])
