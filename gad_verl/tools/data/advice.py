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
"""What to do about a surface feature that tells teacher from student, in words."""

from collections.abc import Sequence

from gad_verl.tools.data.separability import Accuracy, SingleFeature
from gad_verl.tools.data.surface import Feature

_NORMALIZE = "gad-verl data normalize"
_STUDENT_TEMPLATE = (
    "the student writes it: check its chat template and stop tokens, and generate with the settings of the training"
)
_WARMUP = "the warmup teaches such things: look again with texts of the warmed-up student before you worry"
_STUDENT_STYLE = f"the student's style: {_WARMUP}"

# By kind: what to do if the teacher's side has more of it, and if the student's has.
_BY_KIND: dict[str, tuple[str, str]] = {
    "white space around": (f"{_NORMALIZE} --strip-whitespace removes it from the teacher's texts", _STUDENT_TEMPLATE),
    "white space inside": (
        f"{_NORMALIZE} --strip-line-ends removes blanks before line ends and runs of empty lines",
        _STUDENT_STYLE,
    ),
    "repeated texts": (
        "the teacher gives one answer to many prompts: look at these rows, and leave them out unless the student shall "
        "answer so (teacher collect --drop duplicate-answer does it while collecting)",
        "the student gives one answer to many prompts: it has collapsed, or its settings of sampling are wrong",
    ),
    "template": (f"{_NORMALIZE} --strip-template removes it from the teacher's texts", _STUDENT_TEMPLATE),
    "thinking": (
        f"{_NORMALIZE} --strip-thinking removes the blocks; a student that shall not think must not see them",
        "the student thinks and the teacher's texts do not show it: set gad.thinking.mode=hidden, where its answers "
        "alone are read, or off, where it does not think",
    ),
    "refusals": (
        f"{_NORMALIZE} --drop-refusals leaves such rows out, unless the student shall learn to refuse like the teacher",
        "the student refuses more: look at these prompts; leave them out if its refusals are mistakes",
    ),
    "language": (
        "the sides write in different languages: check that the prompts are the same, and add to the system prompt "
        "which language to answer in",
        "the sides write in different languages: check that the prompts are the same, and add to the system prompt "
        "which language to answer in",
    ),
    "finish": (
        "teacher texts are cut: collect them again with a larger limit (teacher collect --max-tokens), or drop the "
        "long ones (gad.teacher_overlong=drop, or normalize --max-chars)",
        "the student does not finish: raise data.max_response_length, check its stop tokens, and let the warmup teach "
        "it to end",
    ),
    "length": (
        f"the teacher writes more: {_WARMUP}. Watch gad/length_ratio in the training",
        f"the student writes more: {_WARMUP}. Watch gad/length_ratio in the training",
    ),
    "markdown": (
        "a style that the student can learn. If you do not want it, ask the teacher for plain text by a system prompt "
        f"and collect again. Otherwise {_WARMUP}",
        f"a habit of the student: {_WARMUP}",
    ),
    "beginning": (
        "the teacher has a fixed opening, and D may look at nothing else. If you do not want it, ask the teacher for "
        f"answers without one and collect again. Otherwise {_WARMUP}",
        f"the student has a fixed opening: {_WARMUP}",
    ),
    "end": (
        "the teacher ends its texts in its own way. If texts break off, they were cut: collect again with a larger "
        f"limit. Otherwise {_WARMUP}",
        "the student ends its texts in its own way. If teacher texts break off, they were cut: collect again with a "
        f"larger limit. Otherwise {_WARMUP}",
    ),
    "characters": (
        f"{_NORMALIZE} --nfc composes Unicode. Quotes, dashes and emoji are the teacher's style: {_WARMUP}; check that "
        "the student's tokenizer knows these characters",
        _STUDENT_STYLE,
    ),
}


# What is done about a single feature, where that differs from the rest of its kind.
_BY_FEATURE: dict[str, tuple[str, str]] = {
    "carriage returns": (f"{_NORMALIZE} --strip-whitespace makes line ends of carriage returns", _STUDENT_TEMPLATE),
    "two blanks in a line": (f"two blanks in a line are the teacher's style: {_WARMUP}", _STUDENT_STYLE),
    "tabs": (f"tabs are the teacher's style: {_WARMUP}", _STUDENT_STYLE),
    "empty lines": (f"empty lines are the teacher's style: {_WARMUP}", _STUDENT_STYLE),
}


def _advice(feature: Feature, teacher_has_more: bool) -> str:
    return _BY_FEATURE.get(feature.name, _BY_KIND[feature.kind])[0 if teacher_has_more else 1]


def advice(singles: Sequence[SingleFeature]) -> str:
    """What to do about the features of a kind, in their order: the weaker ones may want something else."""
    # Where one side has more of one first token, the other has more of others: that is one finding, not two.
    wanted = [
        single for single in singles if not single.feature.is_value or (single.auc > 0.5) == (singles[0].auc > 0.5)
    ]
    return "; ".join(dict.fromkeys(_advice(single.feature, single.auc > 0.5) for single in wanted))


def teacher_advice(feature: Feature) -> str:
    """What to do about a feature of the teacher's side when there is no student to compare with."""
    return _advice(feature, teacher_has_more=True)


def headline(accuracy: Accuracy, findings: int) -> str:
    """What a held-out accuracy on surface features means, beside a number of findings on single features."""
    if accuracy.low <= 0.5:
        if accuracy.high > 0.65:
            return "the surface is not seen to tell the sides apart, but the interval is wide: compare more texts"
        if findings:
            return "the whole surface hardly tells the sides apart; a single feature does a little"
        return "the surface does not tell the sides apart: nothing to mend"
    if accuracy.value < 0.65:
        return "the surface gives little away: fine to start"
    if accuracy.value < 0.8:
        return "the surface gives some away: look at the findings"
    if accuracy.value < 0.95:
        return "the surface gives much away: D will look there first; mend what can be mended"
    return "the surface alone tells the sides apart: D needs not read the texts. Mend the findings before you train"
