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
"""verl's data set with what GAD needs: a unique index per row and teacher texts of a checked length."""

import logging
from typing import Any

import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

from gad_verl.data.endings import EXTRA_INFO, cut_texts, marks_of
from gad_verl.data.images import check_marks, decoded, image_file, image_files, image_values, with_images
from gad_verl.data.schema import teacher_texts
from gad_verl.data.trajectory_messages import trajectory_texts
from gad_verl.errors import GadDataError

_TEXTS = "gad_trajectories"

logger = logging.getLogger(__name__)


class GadDataset(RLHFDataset):
    """Rows of ``gad_verl.data.schema``, by ``data.custom_cls`` of ``gad_trainer.yaml``.

    Reads four more keys of the section ``data``, which follow ``gad``: ``teacher_key``, ``trajectories``,
    ``teacher_overlong`` and ``max_answer_length``.

    Raises:
        GadDataError: If a teacher text is too long under ``teacher_overlong=error``, or ``drop`` leaves no row.
    """

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset | None = None) -> datasets.Dataset:
        if self.config.get("trajectories", False):
            # The check before the run has looked at their lengths: with all that stands between turns.
            return super().maybe_filter_out_long_prompts(self._with_trajectories(dataframe))
        mode = self.config.get("teacher_overlong", "cut")
        if mode != "cut":
            # Before verl filters: the numbers of the rows are still those of the files.
            dataframe = self._check_teacher_lengths(dataframe, mode)
        return super().maybe_filter_out_long_prompts(dataframe)

    def _with_trajectories(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Trajectories as JSON texts, whatever form the files have: as text they travel with a row to its rollouts."""
        key = self.config.teacher_key

        def texts(row: dict[str, Any]) -> dict[str, Any]:
            return {_TEXTS: trajectory_texts(row[key], f"column {key!r}")}

        found = dataframe.map(texts, remove_columns=[key], desc="Reading trajectories")
        return found.rename_column(_TEXTS, key)

    def _check_teacher_lengths(self, dataframe: datasets.Dataset, mode: str) -> datasets.Dataset:
        key, longest_answer = self.config.get("teacher_key", "teacher_response"), self.config.get("max_answer_length")
        limit = self.config.max_response_length if longest_answer is None else longest_answer
        named = "data.max_response_length" if longest_answer is None else "gad.max_answer_length"

        def longest(row: dict[str, Any]) -> int:
            texts = teacher_texts(row[key], f"column {key!r}")
            encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            # One token is left for the EOS.
            return max(len(ids) for ids in encoded) + 1

        def was_cut(row: dict[str, Any]) -> bool:
            return any(cut_texts(row, len(teacher_texts(row[key], f"column {key!r}")), "a row"))

        if mode == "error":
            for number, row in enumerate(dataframe):
                where = f"row {number} of {', '.join(map(str, self.original_data_files))}"
                tokens = longest(row)
                if tokens > limit:
                    raise GadDataError(
                        f"{where}: the teacher text has {tokens} tokens with its EOS, more than "
                        f"{named}={limit}. Raise it, or set gad.teacher_overlong to cut or drop"
                    )
                if was_cut(row):
                    raise GadDataError(
                        f"{where}: the row says that the teacher text was cut when it was written. Collect it again "
                        "with a larger limit, or set gad.teacher_overlong to cut or drop"
                    )
            return dataframe
        whole = dataframe.filter(lambda row: not was_cut(row), desc="Dropping teacher texts that were cut")
        kept = whole.filter(lambda row: longest(row) <= limit, desc=f"Dropping teacher texts over {limit} tokens")
        logger.warning(
            "gad.teacher_overlong=drop: %d of %d rows dropped: teacher texts of %d were cut when they were written, "
            "those of %d exceed %d tokens",
            len(dataframe) - len(kept),
            len(dataframe),
            len(dataframe) - len(whole),
            len(whole) - len(kept),
            limit,
        )
        if len(kept) == 0:
            raise GadDataError(
                f"gad.teacher_overlong=drop leaves no row: every teacher text exceeds {limit} tokens, or was cut when "
                "it was written"
            )
        return kept

    def _build_messages(self, example: dict, key: str) -> list[dict[str, Any]]:
        """Images as the content of their files, read here: whoever rolls the row out needs no file of this machine."""
        where = f"a row of {', '.join(map(str, self.original_data_files))}"
        values = image_values(example.get(self.image_key), where)
        if not values:
            return super()._build_messages(example, key)
        check_marks(example[key], len(values), where)
        return with_images(example[key], [image_file(value, where) for value in values])

    @classmethod
    def _process_multi_modal_info(
        cls, messages: list[dict], image_patch_size: int, config: Any
    ) -> tuple[list[Any] | None, None, None]:
        """Images alone, and in the size in which they come: the processor makes it fit, for both sides."""
        images = [decoded(file) for file in image_files(messages)]
        return images or None, None, None

    def __getitem__(self, item: int) -> dict[str, Any]:
        row = super().__getitem__(item)
        # verl takes extra_info.index or 0; the order of a batch must not depend on that.
        row["index"] = item
        # It could name verl's single-turn agent loop alone, in whose place the run has its own.
        row.pop("agent_name", None)
        # In one place for those who read the row from TransferQueue, which need not know the columns of the file.
        row[EXTRA_INFO] = {**row[EXTRA_INFO], **marks_of(row)}
        return row
