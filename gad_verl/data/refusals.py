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
"""Whether a text refuses: the phrases of OpenAI, Anthropic, Google, Meta, Mistral, Qwen and DeepSeek."""

import re

# A refusal is said at the beginning; further down the same words are mostly part of an answer.
_WINDOW = 300
_CANNOT = r"(?:can(?:no|')?t|can not|am unable to|'m unable to|am not able to|'m not able to|won'?t|will not)"
_DO = (
    r"(?:assist|help(?! but)|comply|fulfil?l?|provide|create|generate|write|answer|engage|support|continue|do that"
    r"|discuss|share|satisfy|accommodate|endorse|promote|participate|advise|respond|process|role-?play|condone|facilitate"
    r"|suggest|recommend(?![^.!?\n]*\b(?:enough|highly)\b))"
)
_AI = r"(?:AI|artificial intelligence|(?:large )?language model)"
_FIT = r"(?:appropriate|ethical|acceptable|responsible)"

# What may stand before it: an apology, thanks, a greeting.
_OPENING = (
    r"(?:(?:I(?: am|'m)(?: \w+){0,2} sorry|(?:I |my )?(?:sincere(?:ly)? )?apolog\w+|sorry|unfortunately|regrettably"
    r"|thank(?:s| you)|I (?:understand|appreciate)|hello|hi)\b(?:[^.!?,;:\n]{0,100}[.!,;:])?\s*"
    r"(?:(?:but|however|and)\b,?\s)?)*"
)
# Only where the text begins with it, behind such an opening: in a letter or a story it is somebody's line.
_AT_THE_BEGINNING = "|".join(
    (
        r"I (?:do not|don't) (?:actually |really )?feel (?:\w+ )?comfortable\b",
        r"I (?:do not|don't) (?:provide|create|generate|engage in)\b",
        r"I should(?: not|n't) (?!be\b|have\b)",
        r"I(?:'d| would)? (?:prefer|rather) not\b",
        r"I(?: am|'m) not (?:allowed|permitted|programmed|designed|authori[sz]ed|willing) ",
        rf"I(?: am|'m) (?:only|just) an? {_AI}\b",
        r"I(?: am|'m) (?:programmed|designed) (?:to be a harmless|solely)\b",
        r"I(?: must| have to| will have to|'ll have to| need to)?(?: respectfully| politely)? (?:decline|refuse) ",
        rf"it (?:(?:is|'s)(?: not|n't) {_FIT} for me to|would(?: not|n't) be {_FIT} (?:for me )?to)\b",
        r"(?:that|this)(?: is|'s)(?: beyond my (?:current )?scope|(?: not|n't) something I(?:'m| am| can| will)\b)",
        r"(?:that|this) isn't something I(?:'m| am| can| will)\b",
        r"I(?: am|'m) still learning how to answer this",
        # Qwen and DeepSeek in Chinese.
        "(?:\u4f60\u597d[^\u3002\uff01\uff1f\n]{0,8})?(?:\u5f88|\u975e\u5e38)?(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77)"
        "[^\u3002\uff01\uff1f\n]{0,30}(?:\u65e0\u6cd5|\u4e0d\u80fd|\u6ca1\u6cd5)",
        "(?:\u4f60\u597d[\uff0c,])?\u8fd9\u4e2a\u95ee\u9898\u6211(?:\u6682\u65f6)?\u65e0\u6cd5\u56de\u7b54",
    )
)
_PATTERN = re.compile(
    rf"\bI(?: really| simply| just)?(?: |(?='))(?:{_CANNOT}) (?:\w+ )?{_DO}\b"
    rf"|\b(?:sorry|apologi[sz]e|afraid|unfortunately)\b[^.!?\n]{{0,80}}\bI(?: |(?='))(?:{_CANNOT})\b"
    rf"|\bas an? {_AI}(?: language model| model| assistant)?\b[^.!?\n]{{0,80}}"
    rf"(?:{_CANNOT}|(?:do not|don't) (?:{_DO}|feel|engage)|not (?:able|capable|appropriate))\b"
    r"|\bI must (?:decline|refuse)\b|\bI(?:'m| am) (?:not (?:comfortable|going to)|obliged to decline)\b"
    rf"|\A{_OPENING}(?:{_AT_THE_BEGINNING})",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether the text begins like a refusal ("I'm sorry, but I can't help with that.")."""
    return _PATTERN.search(text.lstrip()[:_WINDOW].replace("\u2019", "'")) is not None
