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
"""Tokenizers and chat templates of student and discriminator, beyond what the check before a run refuses."""

import json
from pathlib import Path
from typing import Any

from gad_verl.data.tokenizer import load_tokenizer
from gad_verl.errors import GadConfigError
from gad_verl.preflight.size_check import longest_row, model_config, positions_of
from gad_verl.tools.doctor.finding import OK, Finding, error, ok, warning

_QUESTION = [{"role": "user", "content": "Which colour has the sky?"}]
_ANSWER = "Blue"


def _check_closing(check: str, key: str, tokenizer: Any, stops: set[str]) -> list[Finding]:
    """Whether the template closes an assistant's turn with a token that ends a response."""
    turn = [*_QUESTION, {"role": "assistant", "content": _ANSWER}]
    try:
        closed = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=False)
    except Exception as reason:
        text = f"{key}: the chat template refuses an assistant's turn ({reason})"
        return [warning(check, text, "Look at the chat template")]
    ends = closed.rpartition(_ANSWER)[2]
    if tokenizer.eos_token in ends:
        return []
    other = next((stop for stop in sorted(stops) if stop in ends), None)
    if other is not None:
        text = (
            f"{key}: the chat template closes an assistant's turn with {other!r}, a teacher's text ends with "
            f"{tokenizer.eos_token!r}: both end an answer"
        )
        return [ok(check, text)]
    return [
        warning(
            check,
            f"{key}: the chat template closes an assistant's turn with {ends!r}, the EOS is {tokenizer.eos_token!r}: a "
            "model that was trained on the template will not stop with it",
            "Set eos_token in tokenizer_config.json (or eos_token_id in generation_config.json) to that token",
        )
    ]


def check_tokenizer(
    name: str, key: str, tokenizer: Any, stop_texts: set[str] | None = None, generates: bool = True
) -> list[Finding]:
    """One tokenizer: EOS, padding, template, generation prompt, and whether a finished turn ends with the EOS.

    Args:
        name: Of the model, for the findings.
        key: Its configuration key.
        tokenizer: As transformers loads it.
        stop_texts: Further tokens that end a response (of the generation configuration).
        generates: Whether the model writes; a discriminator does not, and reads texts whose end gad_verl marks.
    """
    check = f"tokenizer of the {name}"
    if tokenizer.eos_token_id is None:
        return [error(check, f"{key}: no EOS token", "Set eos_token in its tokenizer_config.json")]
    if not getattr(tokenizer, "chat_template", None):
        remedy = f"Use an instruct model, or set {key}.custom_chat_template"
        return [error(check, f"{key}: no chat template", remedy)]
    plain = tokenizer.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=False)
    asked = tokenizer.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=True)
    found = []
    if _QUESTION[0]["content"] not in asked:
        found.append(
            error(check, f"{key}: the chat template leaves the user's text out", f"Mend {key}.custom_chat_template")
        )
    if asked == plain:
        found.append(
            warning(
                check,
                f"{key}: the chat template adds no generation prompt, so the student goes on with the user's turn",
                f"Set {key}.custom_chat_template to one that honours add_generation_prompt",
            )
        )
    if generates:
        found += _check_closing(check, key, tokenizer, {str(tokenizer.eos_token), *(stop_texts or set())})
    if any(finding.level != OK for finding in found):
        return found
    pad = "no padding token" if tokenizer.pad_token_id is None else f"pad {tokenizer.pad_token!r}"
    return [
        *found,
        ok(check, f"{len(tokenizer)} tokens, EOS {tokenizer.eos_token!r}, {pad}, chat template with generation prompt"),
    ]


def _stop_texts(model: Any, tokenizer: Any) -> set[str]:
    """Tokens that generation_config.json names as ends, for a model in a folder."""
    file = Path(str(model.path)).expanduser() / "generation_config.json"
    if not file.is_file():
        return set()
    ids = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return {str(token) for token in tokenizer.convert_ids_to_tokens(ids) if token}


def check_tokenizers(config: Any, has_discriminator: bool) -> list[Finding]:
    """Student and discriminator, and whether they read the same tokens."""
    student_model, judge_model = config.actor_rollout_ref.model, config.discriminator.model
    student = load_tokenizer("actor_rollout_ref.model", student_model)
    stops = _stop_texts(student_model, student)
    found = check_tokenizer("student", "actor_rollout_ref.model", student, stops)
    if not has_discriminator:
        return found
    if str(judge_model.path) == str(student_model.path):
        return [*found, ok("tokenizer of the discriminator", "the student's")]
    try:
        judge = load_tokenizer("discriminator.model", judge_model)
    except GadConfigError as reason:
        remedy = "Give the folder of a model with its tokenizer, or a name that the hub knows"
        return [*found, error("tokenizer of the discriminator", str(reason), remedy)]
    found += check_tokenizer("discriminator", "discriminator.model", judge, generates=False)
    same = student.get_vocab() == judge.get_vocab()
    text = (
        "the student's vocabulary"
        if same
        else "another vocabulary: both sides are encoded anew from text, as it should"
    )
    return [*found, ok("vocabulary of the discriminator", text)]


def check_positions(config: Any, has_discriminator: bool) -> list[Finding]:
    """Whether the models can read the longest row, as far as a config.json here tells."""
    models = {"student": ("actor_rollout_ref.model", config.actor_rollout_ref.model)}
    if has_discriminator:
        models["discriminator"] = ("discriminator.model", config.discriminator.model)
    found = []
    for name, (key, model) in models.items():
        known = model_config(model)
        positions = None if known is None else positions_of(config, key, known)
        if positions is None:
            continue
        longest, limits = longest_row(config, key)
        text = f"{limits}, {key} reads {positions} tokens"
        if longest > positions:
            found.append(error(f"length of the {name}", text, "Lower the limits, or take another model"))
        else:
            found.append(ok(f"length of the {name}", text))
    return found
