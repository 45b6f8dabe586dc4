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
"""What a student that thinks learns the teacher's text behind.

The teacher shows no thoughts. Its text behind a bare prompt would teach the student not to think, and one in thoughts
that the prompt has opened would teach it never to close them.
"""

from dataclasses import dataclass

from gad_verl.config.thinking import OWN_THOUGHTS
from gad_verl.data.thoughts import ThoughtReader
from gad_verl.data.tokens import EncodedResponse
from gad_verl.trainer.rollouts import RolloutGroup
from gad_verl.trainer.supervised import SupervisedRow, supervised_row_of


@dataclass(frozen=True)
class ThinkingRows:
    """Supervised rows of a student that thinks: prompt, thoughts without a loss, the teacher's text.

    Args:
        reader: Of the student's thoughts.
        warmup: ``gad.thinking.warmup``.
        max_response_length: Longest row without its prompt, in tokens: what the student can write.
    """

    reader: ThoughtReader
    warmup: str
    max_response_length: int

    def row(self, group: RolloutGroup, text: EncodedResponse) -> SupervisedRow:
        """The row of a prompt with rollouts.

        Behind the thoughts of the first rollout that came to an answer, if it had any: so the student goes on to think
        as often as it does. Their closing mark has no loss either: learned where it stands and nowhere unlearned, it
        would come earlier and earlier.
        """
        if self.warmup == OWN_THOUGHTS:
            room = self.max_response_length - len(text.token_ids)
            for session in group.sessions:
                if session is None or session.read is None or session.read.answer_ids is None:
                    continue
                if session.read.lead <= room:
                    return supervised_row_of(group.prompt_ids, text, session.response_ids[: session.read.lead])
        return self.behind_empty_block(group.prompt_ids, text)

    def behind_empty_block(self, prompt_ids: list[int], text: EncodedResponse) -> SupervisedRow:
        """The row behind thoughts of nothing, as far as the prompt does not hold them already."""
        return supervised_row_of(prompt_ids, text, self.reader.empty_block(prompt_ids))
