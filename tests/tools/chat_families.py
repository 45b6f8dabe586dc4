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
"""Small tokenizers and chat templates in the manner of the families that people train; written for the tests.

Each has what makes its family special: how turns begin and end, what becomes of a system message, what the prompt for
an answer is, which tokens end a response, and a switch for thinking where there is one.
"""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class ChatFamily:
    """A tokenizer's manner.

    Args:
        template: Of chats, in Jinja.
        eos: The tokenizer's own end of text.
        stops: All tokens of the generation configuration, ``eos`` among them or not.
        special: Further special tokens.
        begins: What a rendered prompt begins with.
        ends: What a rendered prompt ends with.
        switches: Arguments of the template, and what the prompt ends with under them.
        takes_system: Whether a system message may be there.
        spaces: Whether words begin with a mark for their space (SentencePiece); else bytes.
    """

    template: str
    eos: str
    stops: tuple[str, ...]
    special: tuple[str, ...] = ()
    begins: str = ""
    ends: str = ""
    switches: tuple[tuple[dict[str, Any], str], ...] = ()
    takes_system: bool = True
    spaces: bool = False


_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
CHAT_FAMILIES = {
    "thinking switch": ChatFamily(
        _CHATML + "{{ '' if enable_thinking | default(true) else '<think>\n\n</think>\n\n' }}{% endif %}",
        "<|im_end|>",
        ("<|im_end|>", "<|endoftext|>"),
        ("<|im_start|>",),
        "<|im_start|>",
        "<|im_start|>assistant\n",
        (({"enable_thinking": False}, "<think>\n\n</think>\n\n"), ({"enable_thinking": True}, "assistant\n")),
    ),
    "thinking switch in the system message": ChatFamily(
        "{% set given = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% set thinks = '/no_think' not in given and reasoning | default(true) %}"
        "<|im_start|>system\nMode: {{ '/think' if thinks else '/no_think' }}\n{{ given }}<|im_end|>\n"
        "{% for message in messages if message.role != 'system' %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{{ '' if thinks else '<think>\n\n</think>\n' }}{% endif %}",
        "<|im_end|>",
        ("<|im_end|>",),
        ("<|im_start|>",),
        "<|im_start|>system\nMode: ",
        "<|im_start|>assistant\n",
        (({"reasoning": False}, "</think>\n"),),
    ),
    "headers, three stop tokens": ChatFamily(
        "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
        "{{ message.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
        ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        "<|begin_of_text|>",
        "<|end_header_id|>\n\n",
    ),
    "turns end otherwise than texts": ChatFamily(
        "<bos>{% if messages[0].role == 'system' %}{% set first = messages[0].content ~ '\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
        "{% for message in turns %}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
        "{{ first if loop.first }}{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<eos>",
        ("<eos>", "<end_of_turn>"),
        ("<bos>", "<start_of_turn>"),
        "<bos><start_of_turn>",
        "<start_of_turn>model\n",
    ),
    "no system message": ChatFamily(
        "<bos>{% for message in messages %}"
        "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<eos>",
        ("<eos>", "<end_of_turn>"),
        ("<bos>", "<start_of_turn>"),
        "<bos>",
        "<start_of_turn>model\n",
        takes_system=False,
    ),
    "instructions in brackets": ChatFamily(
        "<s>{% set given = messages[0].content ~ '\n\n' if messages[0].role == 'system' else '' %}"
        "{% for message in messages if message.role != 'system' %}{% if message.role == 'user' %}"
        "[INST] {{ given if loop.first }}{{ message.content }} [/INST]{% else %} {{ message.content }}</s>{% endif %}"
        "{% endfor %}",
        "</s>",
        ("</s>",),
        ("<s>", "[INST]", "[/INST]"),
        "<s>[INST]",
        "[/INST]",
        spaces=True,
    ),
    "channels": ChatFamily(
        "<|start|>system<|message|>Reasoning: {{ reasoning_effort | default('medium') }}<|end|>"
        "{% for message in messages %}<|start|>"
        "{{ 'developer' if message.role == 'system' else message.role }}<|message|>"
        "{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        "<|return|>",
        ("<|return|>", "<|endoftext|>", "<|call|>"),
        ("<|start|>", "<|message|>", "<|end|>", "<|channel|>"),
        "<|start|>system<|message|>",
        "<|start|>assistant",
        (({"reasoning_effort": "low"}, "<|start|>assistant"),),
    ),
    "the next turn ends the answer": ChatFamily(
        "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "<|endoftext|>",
        ("<|endoftext|>", "<|user|>", "<|observation|>"),
        ("[gMASK]", "<sop>", "<|system|>", "<|assistant|>"),
        "[gMASK]<sop>",
        "<|assistant|>\n",
    ),
    "thinking begins in the prompt": ChatFamily(
        "<｜begin▁of▁sentence｜>{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}"
        "{% elif message.role == 'user' %}<｜User｜>{{ message.content }}"
        "{% else %}<｜Assistant｜>{{ message.content }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        "<｜end▁of▁sentence｜>",
        ("<｜end▁of▁sentence｜>",),
        ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜begin▁of▁sentence｜>",
        "<think>\n",
    ),
    "two tokens a turn": ChatFamily(
        "<BOS_TOKEN>{% for message in messages %}<|START_OF_TURN_TOKEN|><|{{ message.role | upper }}_TOKEN|>"
        "{{ message.content }}<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        "<|END_OF_TURN_TOKEN|>",
        ("<|END_OF_TURN_TOKEN|>", "<EOS_TOKEN>"),
        ("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        "<BOS_TOKEN>",
        "<|CHATBOT_TOKEN|>",
    ),
}


def build_chat_tokenizer(family: ChatFamily) -> PreTrainedTokenizerFast:
    """Bytes as tokens, or words whose space is a mark, with every byte to fall back to; and the special tokens."""
    if family.spaces:
        vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
        for piece in ("▁", *"abcdefghijklmnopqrstuvwxyz", "▁the", "th", "▁t", "▁th", "▁a", "he", "▁the"):
            vocabulary.setdefault(piece, len(vocabulary))
        merges = [("▁", "t"), ("▁t", "h"), ("t", "h"), ("h", "e"), ("▁th", "e"), ("▁", "a")]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in dict.fromkeys((*family.special, *family.stops)) if token != family.eos]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=family.eos, pad_token="<pad>", additional_special_tokens=special
    )
    fast.chat_template = family.template
    return fast
