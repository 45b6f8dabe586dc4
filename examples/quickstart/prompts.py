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
"""The 400 prompts of the quickstart, written for it, in a fixed split of 336 for training and 64 held out.

Eight kinds of request with fifty subjects each. A kind has a few wordings that take turns; a subject occurs once, so
that nothing of the held-out part is asked in the training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val"]

HELD_OUT_PER_KIND = 8

# kind -> (wordings, subjects separated by "|")
_KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "define": (
        ("What is {}?", "Explain what {} is.", "Can you tell me what {} is?", "Define {}."),
        "photosynthesis|an algorithm|inflation|a glacier|gravity|a black hole|a haiku|democracy|a virus|an eclipse|"
        "compost|a mortgage|jet lag|a palindrome|osmosis|a prime number|an index fund|plankton|a metaphor|static "
        "electricity|a fossil|the food chain|a monsoon|an enzyme|a constitution|a browser cookie|the ozone layer|"
        "yeast|a leap year|a symphony|friction|a delta|a query language|an atom|a placebo|a tariff|hibernation|a "
        "sonnet|the stock market|a tsunami|an alloy|sonar|a peninsula|a vaccine|origami|a neutron star|sourdough|"
        "a firewall in computing|an ecosystem|the greenhouse effect",
    ),
    "why": (
        ("Why {}?", "Why {}? Please explain.", "I have always wondered: why {}?"),
        "do leaves change colour in autumn|is the sea salty|do cats purr|does bread rise|is the sky blue|do we "
        "yawn|does ice float on water|do onions make people cry|does metal feel colder than wood|do birds migrate|"
        "do we dream|does the moon have phases|do bees make honey|does iron rust|do stars twinkle|do dogs wag their "
        "tails|is sleep important|do airplanes leave white trails|does popcorn pop|do people get hiccups|are "
        "flamingos pink|does thunder follow lightning|do mosquitoes bite|does milk turn sour|do muscles get sore|do "
        "camels have humps|is laughter contagious|do batteries run out|are bridges built with expansion joints|do "
        "owls hunt at night|does soap remove grease|do geckos stick to walls|are manhole covers round|do volcanoes "
        "erupt|does coffee keep us awake|do tides rise and fall|do cut apples turn brown|are deserts cold at night|"
        "do fingers wrinkle in water|do spiders spin webs|is the inside of the Earth hot|do languages change over "
        "time|do ears pop in an elevator|does a mirror fog up|is biodiversity useful|do salmon swim upstream|do "
        "wolves howl|does hot air rise|do some plants eat insects|is the Arctic warming quickly",
    ),
    "how": (
        ("How do I {}?", "What is the best way to {}?", "Tell me how to {}.", "How can someone {}?"),
        "boil an egg|tie a bow tie|change a flat tire|water a cactus|remove a coffee stain|write a cover letter|"
        "sharpen a kitchen knife|fold a fitted sheet|train a puppy to sit|save money on groceries|descale a kettle|"
        "start a vegetable garden|calm down before a speech|cook fluffy rice|patch a bicycle tube|learn to juggle|"
        "clean a keyboard|read a topographic map|back up a phone|whistle with two fingers|poach a pear|hang a "
        "picture straight|pack a suitcase efficiently|improve handwriting|make a paper plane|store fresh "
        "herbs|set up a tent|unclog a sink|memorize a poem|brew loose leaf tea|choose a ripe melon|wash a wool "
        "sweater|keep houseplants alive on holiday|introduce two friends|knead dough|take better photos at night|"
        "build a campfire|remove candle wax from a table|remember names at a party|polish leather shoes|plan a "
        "birthday picnic|proofread an essay|reduce screen time|sew on a button|make lemonade|ask for a raise|"
        "descend a steep trail safely|freeze leftover soup|tune a ukulele|attract butterflies to a balcony",
    ),
    "compare": (
        (
            "What is the difference between {}?",
            "Compare {}.",
            "How do {} differ?",
            "In what way are {} not the same?",
        ),
        "a crocodile and an alligator|weather and climate|jam and jelly|a comet and an asteroid|a violin and a "
        "viola|butter and margarine|a lake and a pond|debit and credit cards|a novel and a short story|speed and "
        "velocity|frogs and toads|a barometer and a thermometer|baking soda and baking powder|a moth and a "
        "butterfly|a simile and an analogy|renting and buying a home|a cold and the flu|rabbits and hares|stalactites "
        "and stalagmites|a turtle and a tortoise|cement and concrete|espresso and filter coffee|a canal and a "
        "river|empathy and sympathy|fog and mist|a donkey and a mule|a republic and a monarchy|hardware and "
        "software|mass and weight|a seal and a sea lion|yoga and pilates|a fruit and a vegetable|a hurricane and a "
        "tornado|nuts and seeds|broth and stock|an opera and a musical|an introvert and an extrovert|a physical "
        "and a chemical change|trams and trains|ravens and crows|a copyright and a patent|a dialect and an accent|"
        "solar and wind power|silk and cotton|a marathon and a triathlon|bacteria and fungi|checkers and chess|an "
        "acid and a base|emails and letters|dark and milk chocolate",
    ),
    "name": (
        ("Name three {}.", "List a few {}.", "Give me some examples of {}.", "Can you suggest three {}?"),
        "healthy breakfast foods|planets with rings|rivers in South America|string instruments|spices used in curry|"
        "animals that live in the tundra|famous painters|renewable energy sources|board games for families|trees "
        "that lose their leaves|kinds of pasta|sports played on ice|languages spoken in India|hobbies for rainy "
        "days|tools every home should have|marine mammals|musical genres|ways to save water|inventions of the "
        "nineteenth century|vegetables that grow underground|gifts for a gardener|capital cities in Africa|dances "
        "from Latin America|careers that involve numbers|breeds of sheep|mountains in Asia|insects that help "
        "farmers|types of clouds|ancient civilizations|cheeses from France|simple card games|precious stones|"
        "exercises without equipment|books for young readers|materials that conduct electricity|flowers that bloom "
        "in spring|kinds of bridges|island nations|sea birds|rules of good manners|programming languages|warm "
        "drinks without caffeine|fabrics for summer clothes|nocturnal animals|good habits for students|parts of a "
        "bicycle|types of maps|ways to greet people|crops grown in wet fields|materials for a birdhouse",
    ),
    "advice": (
        ("Give me a tip for {}.", "Any advice on {}?", "What would you recommend for {}?", "I need help with {}."),
        "staying focused while studying|sleeping better|making new friends in a new city|a first job interview|"
        "learning Spanish|drinking more water|writing a wedding toast|running a first race|living with a noisy "
        "neighbour|moving to a smaller flat|dealing with exam stress|keeping a diary|saying no politely|a long bus "
        "ride with children|cooking for one person|working from home|giving honest feedback|picking a new bicycle|"
        "growing tomatoes on a windowsill|reading more books|speaking up in meetings|getting over stage fright|"
        "organizing a messy desk|eating less sugar|adopting an older dog|a weekend in the mountains|planning a "
        "budget|resolving a quarrel with a sibling|starting to meditate|choosing a birthday present for my "
        "grandmother|keeping motivation in winter|waking up early|learning to swim as an adult|making a small room "
        "look bigger|avoiding back pain at a desk|hosting a dinner for vegetarians|finding a lost key|beginning to "
        "draw|preparing for a hot day outdoors|apologizing to a colleague|teaching a child to share|buying second "
        "hand furniture|writing clear emails|taking good notes|a healthy lunch at work|breaking a bad habit|"
        "caring for a bonsai|travelling with a small backpack|practising the piano|managing a group project",
    ),
    "describe": (
        ("Describe {}.", "Tell me about {}.", "What is {} like?", "Give me a picture of {} in words."),
        "a rainy morning in a city|the taste of a lemon|an old library|a typical day of a beekeeper|the surface of "
        "Mars|a busy train station|the smell of a bakery|a winter forest|a lighthouse in a storm|the life of a "
        "medieval farmer|a coral reef|a village market|the colour turquoise|a full orchestra on stage|a quiet "
        "beach at sunrise|the inside of a submarine|a mountain hut|an elephant family|a Japanese garden|a night "
        "under the stars|the work of a firefighter|an autumn walk|a thunderstorm over fields|the Sahara|a school "
        "playground|a workshop full of clocks|the first snow of the year|a harbour full of fishing boats|a "
        "rainforest|the northern lights|a chess tournament|the sound of a cello|a family kitchen on a holiday|an "
        "abandoned castle|the job of a nurse|a hot air balloon ride|a street musician|the bottom of the ocean|a "
        "penguin colony|a spaceship landing|a small bookshop|a mango|the view from an airplane window|a blacksmith "
        "at work|life on a houseboat|a vineyard in September|a museum of toys|an ant hill|a foggy bridge|a day "
        "without electricity",
    ),
    "purpose": (
        ("What is {} used for?", "What does {} do?", "What is the purpose of {}?", "Why would anyone need {}?"),
        "a compass|a stethoscope|the liver|a spreadsheet|a catalytic converter|a satellite|a passport|a thermostat|"
        "the heart|a microscope|an umbrella|a sundial|a password manager|a sewing machine|a pulley|the skin|a dam|a "
        "glossary|a seismograph|a greenhouse|an anchor|a fuse|a bibliography|a parachute|a notary|a printing "
        "press|the spine|a lever|a search engine|a metronome|a traffic light|a tripod|a periscope|an antenna|a "
        "spirit level|a rudder|a calendar|a telescope|the kidneys|a magnifying glass|a wind turbine|a syllabus|a "
        "sieve|a trade union|a corkscrew|a helmet|a logbook|a whisk|a weather balloon|a time capsule",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """One request of the quickstart."""

    index: int
    kind: str
    split: Split
    text: str


@dataclass(frozen=True)
class Subject:
    """What is asked about, and every request about it: one in each wording of its kind."""

    kind: str
    name: str
    texts: tuple[str, ...]


def load_subjects() -> list[Subject]:
    """All subjects in every wording, in the order of :func:`load_prompts`, which asks about each of them once."""
    return [
        Subject(kind, name, tuple(wording.format(name) for wording in wordings))
        for kind, (wordings, joined) in _KINDS.items()
        for name in joined.split("|")
    ]


def load_prompts(split: Split | None = None) -> list[Prompt]:
    """All prompts, or those of one split, always in the same order.

    The held-out prompts are spread evenly over the subjects of each kind, so that both parts have the same mixture.
    """
    prompts: list[Prompt] = []
    for kind in _KINDS:
        subjects = [subject for subject in load_subjects() if subject.kind == kind]
        held_out = {(2 * number + 1) * len(subjects) // (2 * HELD_OUT_PER_KIND) for number in range(HELD_OUT_PER_KIND)}
        for position, subject in enumerate(subjects):
            text = subject.texts[position % len(subject.texts)]
            part: Split = "val" if position in held_out else "train"
            prompts.append(Prompt(index=len(prompts), kind=kind, split=part, text=text))
    return [prompt for prompt in prompts if split is None or prompt.split == split]
