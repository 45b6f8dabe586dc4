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
"""Token sequences for both sides, built from TEXT by one function.

The discriminator would learn any difference of encoding between teacher and student that has nothing to do with the
text: sampled ids are often not what the tokenizer yields for the same text, an EOS on one side only, a cut on one side
only. So both sides pass through :meth:`SequenceBuilder.response`, and identical texts give identical ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gad_verl.errors import GadConfigError, GadDataError

_REPLACEMENT_CHARACTER = "\ufffd"
# A character has at most four bytes: so many tokens of one byte each may be there of one that is not whole.
_MOST_BYTES_OF_A_BROKEN_CHARACTER = 3

Messages = Sequence[Mapping[str, Any]]


def stop_token_ids(tokenizer: Any, generation_config: Any | None = None) -> frozenset[int]:
    """Ids that end a response: the tokenizer's EOS and those of the generation config (Llama-3 has three).

    Raises:
        GadConfigError: If the tokenizer has no EOS.
    """
    if tokenizer.eos_token_id is None:
        raise GadConfigError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', 'the model')!r} has no EOS token: a finished "
            "response cannot be told from a cut one. Set eos_token in its tokenizer_config.json"
        )
    ids = {int(tokenizer.eos_token_id)}
    more = getattr(generation_config, "eos_token_id", None)
    if more is not None:
        ids.update(int(token) for token in (more if isinstance(more, list | tuple) else [more]))
    return frozenset(ids)


@dataclass(frozen=True)
class EncodedResponse:
    """A response as token ids.

    Args:
        token_ids: The text's ids, then one EOS if (and only if) the text was not cut.
        finished: Whether its author ended it, within the limit of the student's answers.
        cut: Whether it ends without EOS: its author was stopped, or a limit of tokens cut it. A finished text can be
            cut by the limit of a reader whose tokenizer spells it in more tokens.
    """

    token_ids: list[int]
    finished: bool
    cut: bool

    @property
    def own_ids(self) -> list[int]:
        """What its author wrote: all of it, but for trajectories (:mod:`gad_verl.data.trajectories`)."""
        return self.token_ids


class SequenceBuilder:
    """Builds prompt and response ids for one tokenizer.

    Args:
        tokenizer: Tokenizer of the model that reads the sequences (student or discriminator).
        max_prompt_length: Longest prompt; longer ones lose tokens on the LEFT.
        max_response_length: Longest response, its EOS included.
        stop_ids: Ids that end a response of the STUDENT; see :func:`stop_token_ids`.
        chat_template_kwargs: verl's ``data.apply_chat_template_kwargs``.

    Raises:
        GadConfigError: If the tokenizer has no EOS or no chat template.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_prompt_length: int,
        max_response_length: int,
        stop_ids: frozenset[int] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_prompt_length = max_prompt_length
        self.max_response_length = max_response_length
        own_stop_ids = stop_token_ids(tokenizer)
        self.stop_ids = own_stop_ids if stop_ids is None else stop_ids
        self.eos_token_id = int(tokenizer.eos_token_id)
        if not getattr(tokenizer, "chat_template", None):
            raise GadConfigError(
                f"the tokenizer of {getattr(tokenizer, 'name_or_path', 'the model')!r} has no chat template, so chat "
                "messages cannot be rendered. Use an instruct model or set model.custom_chat_template"
            )
        self._chat_template_kwargs = {
            key: value
            for key, value in (chat_template_kwargs or {}).items()
            if key not in ("tokenize", "return_dict", "return_tensors", "add_generation_prompt")
        }

    def with_option(self, name: str, value: Any) -> "SequenceBuilder":
        """The same with one more option of the chat template."""
        return SequenceBuilder(
            self.tokenizer,
            self.max_prompt_length,
            self.max_response_length,
            self.stop_ids,
            self._chat_template_kwargs | {name: value},
        )

    @property
    def chat_template_kwargs(self) -> dict[str, Any]:
        """What the template is given besides the messages."""
        return dict(self._chat_template_kwargs)

    def render(self, messages: Messages) -> str:
        """A chat as text, with the generation prompt.

        Raises:
            GadDataError: The chat template refuses it; with the template's own words.
        """
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=True,
                tokenize=False,
                **self._chat_template_kwargs,
            )
        except Exception as error:
            # Jinja's, and whatever a template raises.
            raise GadDataError(f"the chat template refuses the prompt: {error}") from error

    def prompt(self, messages: Messages) -> list[int]:
        """Token ids of a chat with the generation prompt, cut from the left to ``max_prompt_length``.

        Raises:
            GadDataError: The chat template refuses it, or the rendered prompt has no token.
        """
        ids = self.marked_ids(self.render(messages))
        if not ids:
            raise GadDataError(f"the chat template renders no token for the prompt {messages!r}")
        return ids[-self.max_prompt_length :]

    def response(self, text: str, finished: bool = True, limit: int | None = None) -> EncodedResponse:
        """Encode a response text; the one function for teacher and student.

        Args:
            text: The text without its end-of-text token.
            finished: Whether the author ended it there. An unfinished text gets no EOS.
            limit: Room for it in tokens; None means ``max_response_length``.
        """
        limit = self.max_response_length if limit is None else limit
        ids = self.text_ids(text)
        if finished and len(ids) < limit:
            return EncodedResponse([*ids, self.eos_token_id], finished=True, cut=False)
        # A cut may fall into a character of several tokens: decoding gives a replacement character then, and only the
        # side that was decoded before would show it. Both sides lose it here.
        kept = self.decode_cut(ids[:limit])
        ids = self.text_ids(kept)
        # What is left may be spelled by other tokens than it was in the whole text, and by more of them.
        while len(ids) > limit:
            kept, longer = self.decode_cut(ids[:limit]), kept
            if len(kept) >= len(longer):
                ids = ids[:limit]
                break
            ids = self.text_ids(kept)
        return EncodedResponse(ids, finished=False, cut=True)

    def response_for(self, reader: "SequenceBuilder | None", text: str, finished: bool = True) -> EncodedResponse:
        """Encode a text of teacher or student for a reader, which may have another tokenizer.

        This builder's limit comes first, for both sides: the student cannot write more, whatever the reader's tokens.

        Args:
            reader: Builder of the reader's tokenizer; None means this one.
            text, finished: See :meth:`response`.
        """
        own = self.response(text, finished)
        if reader is None or reader is self:
            return own
        left = self.decode(own.token_ids) if own.cut else text
        return replace(reader.response(left, own.finished), finished=own.finished)

    def student_response(self, token_ids: Sequence[int], reader: "SequenceBuilder | None" = None) -> EncodedResponse:
        """Re-encode sampled ids through their text.

        Args:
            token_ids: Ids as the rollout returned them, of THIS builder's tokenizer.
            reader: See :meth:`response_for`.
        """
        return self.response_for(reader, *self.student_text(token_ids))

    def student_text(self, token_ids: Sequence[int]) -> tuple[str, bool]:
        """Text of sampled ids without its end-of-text token, and whether it is finished."""
        ids = list(token_ids)
        finished = bool(ids) and ids[-1] in self.stop_ids
        return self.decode(ids[:-1]) if finished else self.decode_cut(ids), finished

    def decode_cut(self, token_ids: Sequence[int]) -> str:
        """Text of ids that may end inside a character, without what is there of that character."""
        # Byte-level tokenizers show a broken character as one replacement character. Those that fall back to bytes
        # show ALL bytes around it so, as far as they have no other token in between: without the tokens of the broken
        # character the others are a text again.
        ids = list(token_ids)
        text = self.decode(ids)
        if not text.endswith(_REPLACEMENT_CHARACTER):
            return text
        fewer = [ids[: max(0, len(ids) - count)] for count in range(1, _MOST_BYTES_OF_A_BROKEN_CHARACTER + 1)]
        return max((one.rstrip(_REPLACEMENT_CHARACTER) for one in [text, *map(self.decode, fewer)]), key=len)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids; special tokens inside a text stay visible, as text, on both sides."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def marked_ids(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are themselves, as in what a template renders."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text. One that spells a special token stays text: an EOS in the middle would mark the teacher's."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
