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
"""Whether a text refuses to answer. Phrases, in English only: a help for counting, not a judge."""

import re

# A refusal is said at the beginning; further down the same words are mostly part of an answer.
_WINDOW = 250
_CANNOT = r"(?:can(?:no|')?t|can not|am unable to|'m unable to|am not able to|'m not able to|won'?t|will not)"
_DO = (
    r"(?:assist|help|comply|fulfill?|provide|create|generate|write|answer|engage|support|continue|do that|discuss|share)"
)
_PATTERN = re.compile(
    rf"\bI(?: really| simply| just)?(?: |(?='))(?:{_CANNOT}) (?:\w+ )?{_DO}\b"
    rf"|\b(?:sorry|apologi[sz]e|afraid|unfortunately)\b[^.!?\n]{{0,80}}\bI(?: |(?='))(?:{_CANNOT})\b"
    r"|\bas an? (?:AI|artificial intelligence)(?: language)? (?:model|assistant)\b[^.!?\n]{0,80}"
    rf"(?:{_CANNOT}|do not|don't|not (?:able|capable|appropriate))\b"
    r"|\bI must (?:decline|refuse)\b|\bI(?:'m| am) (?:not (?:comfortable|going to)|obliged to decline)\b",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether the text begins like a refusal ("I'm sorry, but I can't help with that.")."""
    return _PATTERN.search(text.lstrip()[:_WINDOW].replace("\u2019", "'")) is not None
