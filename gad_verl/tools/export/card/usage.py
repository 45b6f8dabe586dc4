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
"""How to load what was exported: the code blocks of a card. A test runs them as they stand."""

import json

from gad_verl.tools.export.reward_model import Scoring

# What stands for the folder in every block; it is run inside of it.
FOLDER = "."


def _block(language: str, code: str) -> str:
    return f"```{language}\n{code.strip()}\n```"


def student(adapter: bool, template: dict[str, object]) -> list[str]:
    """Blocks for a student.

    Args:
        adapter: Whether it is an adapter of LoRA alone.
        template: ``data.apply_chat_template_kwargs`` of the run.
    """
    options = "".join(f", {name}={value!r}" for name, value in template.items())
    load = (
        "from peft import AutoPeftModelForCausalLM\n\n"
        "# Reads the base that adapter_config.json names (base_model_name_or_path).\n"
        "model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)"
        if adapter
        else "model = AutoModelForCausalLM.from_pretrained(FOLDER)"
    )
    imports = "AutoTokenizer" if adapter else "AutoModelForCausalLM, AutoTokenizer"
    python = f"""
from transformers import {imports}

FOLDER = "{FOLDER}"  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
{load}

chat = [{{"role": "user", "content": "Why is the sky blue?"}}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False{options})
ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
answer = model.generate(**ids, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
"""
    blocks = [_block("python", python)]
    if not adapter:
        blocks += ["Behind an OpenAI-compatible API:", _block("bash", f"vllm serve {FOLDER}")]
    return blocks


def _sequence(scoring: Scoring) -> str:
    """Python that builds the tokens of a sequence as the trainer does, without gad_verl."""
    options = "".join(f", {name}={value!r}" for name, value in scoring.chat_template_kwargs.items())
    prompt_cut = "[-MAX_PROMPT:]" if scoring.max_prompt_length else ""
    limits = []
    if scoring.max_prompt_length:
        limits.append(f"MAX_PROMPT = {scoring.max_prompt_length}  # tokens; longer prompts lose their beginning")
    if scoring.max_response_length:
        limits.append(f"MAX_RESPONSE = {scoring.max_response_length}  # tokens, the end-of-text token included")
    if scoring.max_response_length:
        ending = """    if finished and len(answer) < MAX_RESPONSE:
        return ids + answer + [tokenizer.eos_token_id]
    # A cut may fall into a character; what is left of it goes.
    kept = tokenizer.decode(answer[:MAX_RESPONSE], clean_up_tokenization_spaces=False).rstrip("\\ufffd")
    return ids + encode(kept)[:MAX_RESPONSE]"""
    else:
        ending = "    return ids + answer + [tokenizer.eos_token_id] * finished"
    return f"""
from transformers import AutoTokenizer

FOLDER = "{FOLDER}"  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
{chr(10).join(limits)}


def encode(text):
    # A text that spells a special token stays text.
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def scored_ids(chat, response, finished=True):
    \"\"\"Prompt and response as in the training; finished=False for a response that a limit stopped.\"\"\"
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False{options})
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]{prompt_cut}
    answer = encode(response)
{ending}


chat = [{{"role": "user", "content": "Why is the sky blue?"}}]
rows = [scored_ids(chat, answer) for answer in ("Air scatters blue light more than red.", "It just is.")]
"""


def reward_model(scoring: Scoring, one_at_a_time: bool) -> list[str]:
    """Blocks for a discriminator that loads as a sequence classifier.

    Args:
        scoring: How sequences are made.
        one_at_a_time: Whether nothing can pad.
    """
    if one_at_a_time:
        compute = """with torch.no_grad():
    # One row at a time: this vocabulary has no token that could pad.
    scores = [model(input_ids=torch.tensor([row])).logits[0, 0].item() + SCORE_BIAS for row in rows]
print(scores)"""
    else:
        compute = """batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
with torch.no_grad():
    scores = (model(**batch).logits[:, 0] + SCORE_BIAS).tolist()
print(scores)"""
    python = f"""
import torch
from transformers import AutoModelForSequenceClassification

# transformers leaves the bias of the head out (it warns of score.bias). It is the same for every text.
SCORE_BIAS = {scoring.score_bias!r}
# float32: in bfloat16 many scores are equal.
model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()

{compute}
"""
    vllm = """
from vllm import LLM

llm = LLM(FOLDER, runner="pooling", convert="classify", dtype="float32")
outputs = llm.classify([{"prompt_token_ids": row} for row in rows], use_tqdm=False)
scores = [output.outputs.probs[0] for output in outputs]  # vLLM's name; no activation is applied
print(scores)
"""
    request = json.dumps({"model": FOLDER, "input": [[1, 2, 3]]})
    server = f"""
vllm serve {FOLDER} --runner pooling --convert classify --dtype float32

curl http://localhost:8000/classify -H "Content-Type: application/json" -d '{request}'
"""
    return [
        "First the tokens, exactly as the trainer made them:",
        _block("python", _sequence(scoring)),
        "Then the scores, by transformers:",
        _block("python", python),
        "Or by vLLM:",
        _block("python", vllm),
        'Or by vLLM\'s server; `input` takes lists of token ids, the scores are in `data[...]["probs"]`. Do not '
        "send texts or "
        "chats: they would be put into tokens in another way.",
        _block("bash", server),
    ]


def token_classifier(scoring: Scoring, adapter: bool) -> list[str]:
    """Blocks for a discriminator that is a token classifier alone, or an adapter of one."""
    if adapter:
        load = """from peft import AutoPeftModelForTokenClassification

# Reads the base that adapter_config.json names (base_model_name_or_path).
model = AutoPeftModelForTokenClassification.from_pretrained(FOLDER, num_labels=1, dtype=torch.float32).eval()"""
    else:
        load = """from transformers import AutoModelForTokenClassification

model = AutoModelForTokenClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()"""
    python = f"""
import torch
{load}

with torch.no_grad():
    # The value at the last token is the score.
    scores = [model(input_ids=torch.tensor([row])).logits[0, -1, 0].item() for row in rows]
print(scores)
"""
    return [
        "First the tokens, exactly as the trainer made them:",
        _block("python", _sequence(scoring)),
        "Then the scores:",
        _block("python", python),
    ]
