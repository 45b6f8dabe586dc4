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
"""Whether a chat template lets a student think before it answers, and the switch that turns it off."""

from gad_verl.data.tokens import SequenceBuilder
from gad_verl.errors import GadDataError

# What templates call the switch: Qwen3 and its kin; DeepSeek, Granite.
SWITCHES = ("enable_thinking", "thinking")
_OPEN_TAGS = ("<think>", "<thinking>", "<thought>", "<|START_THINKING|>", "[THINK]")
CHAT = ({"role": "user", "content": "Why?"},)


def opens_thoughts(rendered: str) -> bool:
    """Whether a rendered prompt ends in thoughts that the answer goes on with (DeepSeek-R1 and others)."""
    return rendered.rstrip().endswith(_OPEN_TAGS)


def thinking_switch(builder: SequenceBuilder) -> str | None:
    """Name of a switch that would turn thinking off where the builder's options leave it on; None if there is none."""
    try:
        rendered = builder.render(CHAT)
        named = [name for name in SWITCHES if name in str(builder.tokenizer.chat_template)]
        return next((name for name in named if builder.with_option(name, False).render(CHAT) != rendered), None)
    except GadDataError:
        # A template that refuses this chat is judged by the prompts of the data.
        return None
