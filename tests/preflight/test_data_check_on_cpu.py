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
"""What the check before a run sees of data files: what the run will see, by its reader and its template."""

import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from gad_verl import preflight
from gad_verl.config import load_gad_config
from gad_verl.data.dataset import GadDataset
from gad_verl.data.loaded import check_loaded
from gad_verl.data.schema import ROLES, check_file
from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.doctor.lengths import check_lengths

CHAT = [{"role": "user", "content": "hello"}]
# Renders system, user and assistant, and nothing of another role; refuses what two model families refuse.
LOSING = (
    "{% for m in messages %}{% if m['role'] in ('system', 'user', 'assistant') %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user and assistant') }}{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rows(count: int = 16, **replaced: Any) -> list[dict[str, Any]]:
    return [{"prompt": CHAT, "teacher_response": f"text {number}", **replaced} for number in range(count)]


def written(path: Path, content: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


@pytest.fixture
def checked(tiny_config: DictConfig) -> Callable[..., Any]:
    """The whole check of a run on some files, with a template of one's own."""

    def run(*train: str, template: str | None = None, **values: Any) -> Any:
        OmegaConf.update(tiny_config, "data.train_files", list(train))
        for key, value in values.items():
            OmegaConf.update(tiny_config, key.replace("__", "."), value, force_add=True)
        if template is not None:
            OmegaConf.update(tiny_config, "actor_rollout_ref.model.custom_chat_template", template, force_add=True)
        return preflight.run_preflight(tiny_config)

    return run


def refusal(check: Callable[..., Any], *arguments: Any, **more: Any) -> str:
    with pytest.raises((GadDataError, GadConfigError)) as error:
        check(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train_files", [], "data.train_files names no file"),
        ("train_files", None, "data.train_files names no file"),
        ("train_files", "", "data.train_files names no file"),
        ("val_files", None, "data.val_files names no file"),
        ("train_max_samples", None, "data.train_max_samples=None: a whole number is needed; -1 takes all rows"),
        ("train_max_samples", 2.5, "data.train_max_samples=2.5: a whole number is needed"),
        ("train_max_samples", True, "data.train_max_samples=True: a whole number is needed"),
        ("val_max_samples", None, "data.val_max_samples=None: a whole number is needed"),
    ],
)
def test_settings_of_the_data_that_are_none(tiny_config: DictConfig, key: str, value: Any, said: str) -> None:
    OmegaConf.update(tiny_config, f"data.{key}", value)
    gad_config = load_gad_config(tiny_config)
    assert said in refusal(preflight.check_data, tiny_config, gad_config)
    # What reads the rows before a run finds nothing, and says no more.
    if key == "train_files":
        assert check_lengths(tiny_config, gad_config.teacher_key) == []


class TestFiles:
    """Marks, broken lines and odd types: read, or named with file and row."""

    @pytest.mark.parametrize("suffix", ["json", "jsonl"])
    def test_a_mark_at_the_start(self, checked: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
        path = Path(written(tmp_path / f"train.{suffix}", rows()))
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert checked(str(path)).rows == 16

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ('{"prompt": [', "broken JSON"),
            ("[1]", "expected an object, got list"),
            ('{"prompt": [{"role": "user", "content": "\\ud800"}], "teacher_response": "a"}', "broken Unicode"),
            ('{"prompt": [{"role": "user", "content": "a"}], "teacher_response": "\\udfff"}', "broken Unicode"),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path: Path, line: str, said: str) -> None:
        path = tmp_path / "train.jsonl"
        good = json.dumps(rows(1)[0])
        path.write_text(f"{good}\n\n{good}\n{line}\n{good}\n", encoding="utf-8")
        message = refusal(check_file, path, "prompt", "teacher_response")
        assert f"{path}, row 2" in message and said in message

    def test_another_encoding_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "train.jsonl"
        path.write_bytes('{"prompt": "Müller"}\n'.encode("latin-1"))
        assert "line 1: not UTF-8" in refusal(check_file, path, "prompt", "teacher_response")

    def test_bytes_are_called_bytes(self, tmp_path: Path) -> None:
        path = written(tmp_path / "train.parquet", rows(2, teacher_response=b"text"))
        assert "got bytes" in refusal(check_file, path, "prompt", "teacher_response")

    @pytest.mark.parametrize("column", ["teacher_response", "prompt"])
    def test_texts_that_a_reader_takes_for_dates(
        self, checked: Callable[..., Any], tmp_path: Path, column: str
    ) -> None:
        dates = [f"2024-05-{day:02}" for day in range(1, 17)]
        content = rows()
        for row, date in zip(content, dates, strict=True):
            row[column] = date if column == "teacher_response" else [{"role": "user", "content": date}]
        path = written(tmp_path / "train.jsonl", content)
        message = refusal(checked, path)
        assert f"{path}, row 0, column '{column}'" in message and "got datetime" in message and "parquet" in message
        assert checked(written(tmp_path / "train.parquet", content)).rows == 16

    @pytest.mark.parametrize(
        ("first", "second", "column"),
        [
            ({}, {"teacher_response": ["a", "b"]}, "teacher_response"),
            ({"score": 1}, {"score": "good"}, "score"),
            ({"extra_info": {"a": 1}}, {"extra_info": {"a": "x"}}, "extra_info"),
        ],
    )
    def test_files_of_two_types(
        self, checked: Callable[..., Any], tmp_path: Path, first: dict[str, Any], second: dict[str, Any], column: str
    ) -> None:
        one, two = written(tmp_path / "one.parquet", rows(**first)), written(tmp_path / "two.parquet", rows(**second))
        message = refusal(checked, one, two)
        assert f"the column '{column}'" in message and one in message and two in message
        assert checked(one).rows == checked(two).rows == 16

    def test_columns_that_only_one_file_has_are_no_fault(self, checked: Callable[..., Any], tmp_path: Path) -> None:
        one, two = written(tmp_path / "one.parquet", rows(score=1)), written(tmp_path / "two.parquet", rows())
        assert checked(one, two).rows == 32

    def test_pandas_beside_another_library(self, checked: Callable[..., Any], tmp_path: Path) -> None:
        frame = pd.DataFrame(rows())
        frame["teacher_response"] = pd.array(frame["teacher_response"], dtype=pd.ArrowDtype(pa.large_string()))
        frame.to_parquet(tmp_path / "one.parquet")
        two = written(tmp_path / "two.parquet", rows())
        assert "large_string" in refusal(checked, str(tmp_path / "one.parquet"), two)


class TestRendering:
    """Every prompt of every file is rendered, and what is asked is in it."""

    def test_a_template_that_refuses_is_named_with_its_words(self, checked: Callable[..., Any], tmp_path: Path) -> None:
        for odd, words in (
            ([{"role": "system", "content": "Be brief."}, *CHAT], "System role not supported"),
            ([*CHAT, *CHAT], "Roles must alternate user and assistant"),
        ):
            path = written(tmp_path / "train.parquet", [*rows(20), *rows(1, prompt=odd), *rows(3)])
            message = refusal(checked, path, template=STRICT)
            assert f"{path}, row 20, column 'prompt': the chat template refuses the prompt: {words}" in message
            assert "actor_rollout_ref.model.custom_chat_template" in message

    def test_validation_files_are_rendered_too(self, checked: Callable[..., Any], tmp_path: Path) -> None:
        odd = [{"role": "system", "content": "Be brief."}, *CHAT]
        train = written(tmp_path / "train.parquet", rows())
        val = written(tmp_path / "val.parquet", [*rows(2), *rows(1, prompt=odd)])
        assert f"{val}, row 2" in refusal(checked, train, template=STRICT, data__val_files=val)

    def test_a_result_of_a_tool_may_be_shown_as_json(
        self, checked: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        said = [*CHAT, {"role": "tool", "content": '{"temp": 20}\nsunny, "très"'}]
        path = written(tmp_path / "train.parquet", rows(prompt=said))
        checked(path, template="{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}")
        assert not [record for record in caplog.records if "leaves messages" in record.getMessage()]

    @pytest.mark.parametrize("role", ["critic", "tool", "developer"])
    def test_a_last_message_that_vanishes_is_an_error(
        self, checked: Callable[..., Any], tmp_path: Path, role: str
    ) -> None:
        path = written(tmp_path / "train.parquet", rows(prompt=[{"role": role, "content": "name a colour"}]))
        message = refusal(checked, path, template=LOSING)
        assert "row 0, column 'prompt'" in message and f"leaves the last message (role '{role}') out" in message

    def test_an_earlier_message_that_vanishes_is_said_once(
        self, checked: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = written(tmp_path / "train.parquet", rows(prompt=[{"role": "developer", "content": "Be brief."}, *CHAT]))
        with caplog.at_level(logging.WARNING, "gad_verl"):
            assert checked(path, template=LOSING).rows == 16
        said = [
            record.getMessage() for record in caplog.records if "leaves messages of the role" in record.getMessage()
        ]
        assert len(said) == 1 and "'developer'" in said[0] and f"{path}, row 0" in said[0]

    def test_white_space_and_thoughts_of_earlier_turns_are_no_loss(
        self, checked: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        chat = [
            {"role": "user", "content": "  A?\n\n"},
            {"role": "assistant", "content": "<think>hm</think>B."},
            {"role": "user", "content": "\tC? "},
        ]
        template = LOSING.replace("m['content'] | trim", "m['content'].split('</think>')[-1] | trim")
        with caplog.at_level(logging.WARNING, "gad_verl"):
            assert checked(written(tmp_path / "train.parquet", rows(prompt=chat)), template=template).rows == 16
        assert "leaves messages" not in caplog.text

    @pytest.mark.parametrize("role", sorted({name for name in ROLES if ROLES[name] != name} - {"developer"} | {"User"}))
    def test_another_name_of_a_role_is_named_with_the_right_one(self, tmp_path: Path, role: str) -> None:
        path = written(tmp_path / "train.jsonl", rows(2, prompt=[{"role": role, "content": "hi"}, *CHAT]))
        message = refusal(check_file, path, "prompt", "teacher_response")
        assert f"row 0, column 'prompt': the role {role!r} is {ROLES[role.lower()]!r}" in message

    @pytest.mark.parametrize("role", [None, "", 3])
    def test_a_role_that_is_none(self, tmp_path: Path, role: Any) -> None:
        path = written(tmp_path / "train.jsonl", rows(2, prompt=[{"role": role, "content": "hi"}]))
        assert "the role of a message must be text" in refusal(check_file, path, "prompt", "teacher_response")


DATES = [f"2024-05-{day:02}" for day in range(1, 10)]
ODD = ["1.5", "null", "true", "{}", " a\n", "[1]", "\ufeffa", "2024-05-01T10:00:00", "\x00"]
# One pool a column: what a reader makes of a column depends on whether all of its values look alike.
POOLS = st.sampled_from([ODD, ["a", "b", *ODD], ["a", *DATES], DATES, ["a", "\ud800"]])


@st.composite
def files(draw: st.DrawFn) -> list[dict[str, Any]]:
    asked, told = draw(POOLS), draw(POOLS)
    teacher = st.sampled_from(told) if draw(st.booleans()) else st.lists(st.sampled_from(told), min_size=1, max_size=2)
    rare = st.sampled_from([None, 3, "", [], {}])
    content = []
    for _ in range(draw(st.integers(1, 3))):
        roles = draw(st.sampled_from([("user",), ("system", "user"), ("user", "assistant", "user")]))
        prompt = [{"role": role, "content": draw(st.sampled_from(asked))} for role in roles]
        answer = draw(teacher) if draw(st.integers(0, 9)) else draw(rare)
        content.append({"prompt": prompt, "teacher_response": answer})
    return content


def test_what_the_check_passes_the_run_loads_as_it_is(tokenizer: Any, tmp_path: Path) -> None:
    """The check's yes is a promise: the run's own data set has the same prompts and texts."""
    outcomes, numbers = [], itertools.count()

    @given(files(), st.sampled_from(["json", "jsonl"]))
    @settings(max_examples=60)
    def promise(content: list[dict[str, Any]], suffix: str) -> None:
        # A name of its own: datasets knows a file by its name and time.
        path = written(tmp_path / f"train{next(numbers)}.{suffix}", content)
        try:
            check_file(path, "prompt", "teacher_response")
            check_loaded([path], "prompt", "teacher_response")
        except GadDataError as error:
            assert path in str(error)
            outcomes.append(False)
            return
        options = {"max_prompt_length": 512, "max_response_length": 512, "filter_overlong_prompts": False}
        loaded = GadDataset(path, tokenizer, OmegaConf.create({**options, "return_raw_chat": True})).dataframe
        assert [list(prompt) for prompt in loaded["prompt"]] == [row["prompt"] for row in content]
        assert list(loaded["teacher_response"]) == [row["teacher_response"] for row in content]
        outcomes.append(True)

    promise()
    # Both answers were given.
    assert min(outcomes.count(True), outcomes.count(False)) >= 3


class TestSurroundings:
    """Loggers and the context: what would end the run after all models are loaded."""

    @pytest.fixture(autouse=True)
    def nobody_has_logged_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "SWANLAB_API_KEY", "SWANLAB_MODE", "WANDB_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        # All trackers are installed.
        monkeypatch.setattr("gad_verl.preflight.surroundings_check.importlib.util.find_spec", lambda name: object())

    @pytest.mark.parametrize(
        ("logger", "variables"),
        [
            ("wandb", "WANDB_API_KEY, or WANDB_MODE=offline"),
            ("swanlab", "SWANLAB_API_KEY, or SWANLAB_MODE=local"),
            ("vemlp_wandb", "VOLC_ACCESS_KEY_ID, VOLC_SECRET_ACCESS_KEY, MLP_TRACKING_REGION"),
        ],
    )
    def test_a_logger_without_its_key(self, checked: Callable[..., Any], logger: str, variables: str) -> None:
        message = refusal(checked, trainer__logger=["console", logger])
        assert f"trainer.logger names {logger}" in message and f"set {variables}" in message

    @pytest.mark.parametrize(
        ("logger", "name", "value"),
        [
            ("wandb", "WANDB_API_KEY", "k"),
            ("wandb", "WANDB_MODE", "offline"),
            ("swanlab", "SWANLAB_API_KEY", "k"),
            ("swanlab", "SWANLAB_MODE", "local"),
        ],
    )
    def test_a_logger_with_its_key_or_without_need(
        self, monkeypatch: pytest.MonkeyPatch, logger: str, name: str, value: str
    ) -> None:
        from gad_verl.preflight.surroundings_check import check_loggers

        monkeypatch.setenv(name, value)
        check_loggers(["console", logger])

    def test_somebody_who_has_logged_in(self, tmp_path: Path) -> None:
        from gad_verl.preflight.surroundings_check import check_loggers

        (tmp_path / ".netrc").write_text("machine other.invalid\n  login user\n  password k\n")
        assert "WANDB_API_KEY" in refusal(check_loggers, "wandb")
        (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password k\n")
        check_loggers("wandb")

    def test_a_logger_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, checked: Callable[..., Any]) -> None:
        assert "trainer.logger names 'wanbd'; verl knows wandb" in refusal(checked, trainer__logger=["wanbd"]).replace(
            "console, file, tensorboard, ", ""
        )
        monkeypatch.setattr("gad_verl.preflight.surroundings_check.importlib.util.find_spec", lambda name: None)
        assert "its package mlflow is not installed" in refusal(checked, trainer__logger=["mlflow"])

    def test_the_trackers_are_verls(self) -> None:
        from verl.utils.tracking import Tracking

        from gad_verl.preflight.surroundings_check import _TRACKERS

        assert set(_TRACKERS) == {*Tracking.supported_backend, "tracking"}

    def test_a_context_that_is_too_short(self, checked: Callable[..., Any]) -> None:
        more = {"data__max_prompt_length": 48, "data__max_response_length": 16}
        message = refusal(checked, actor_rollout_ref__rollout__max_model_len=63, **more)
        assert "max_model_len=63 is less than" in message and "48 + 16 = 64" in message


def test_a_context_of_just_enough(checked: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path / "train.parquet", rows())
    more = {"data__max_prompt_length": 48, "data__max_response_length": 16}
    assert checked(path, actor_rollout_ref__rollout__max_model_len=64, **more).rows == 16


def test_rows_are_counted_as_the_run_will_have_them(checked: Callable[..., Any], tmp_path: Path) -> None:
    long = {"prompt": [{"role": "user", "content": "hello " * 60}]}
    texts = [*rows(13), *rows(7, **long), *rows(5, teacher_response="much " * 80)]
    path = written(tmp_path / "rows.jsonl", texts)
    assert checked(path).rows == 25
    shorter = {"data__max_prompt_length": 40, "data__max_response_length": 40, "data__train_batch_size": 4}
    sizes = {"actor_rollout_ref__actor__ppo_mini_batch_size": 4}
    planned = checked(path, data__filter_overlong_prompts=True, **shorter, **sizes)
    assert (planned.rows, planned.steps_per_epoch) == (18, 4)
    assert checked(path, gad__teacher_overlong="drop").rows == 13
    assert checked(path, data__filter_overlong_prompts=False).rows == 20
    # verl chooses rows before it looks at their lengths.
    assert checked(path, data__train_max_samples=16, data__shuffle=False).rows == 16
    assert checked(path, data__train_max_samples=16, data__filter_overlong_prompts=True).rows == 13


def test_a_prompt_that_the_template_refuses_is_not_called_too_long(checked: Callable[..., Any], tmp_path: Path) -> None:
    # verl's filter passes over it, with a traceback.
    refused = [{"role": "system", "content": "x"}, *CHAT]
    path = written(tmp_path / "rows.jsonl", [*rows(12), *rows(4, prompt=refused)])
    with pytest.raises(GadDataError, match=r"rows\.jsonl, row 12.*System role not supported"):
        checked(path, template=STRICT, data__filter_overlong_prompts=True)


def test_too_few_rows_that_are_short_enough(checked: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [*rows(7), *rows(9, teacher_response="much " * 80)])
    with pytest.raises(GadDataError, match=r"gad\.teacher_overlong.* 7 rows, fewer than data\.train_batch_size=8"):
        checked(path, gad__teacher_overlong="drop", data__max_response_length=40, data__train_batch_size=8)
    with pytest.raises(GadDataError, match="row 7 .*rows.jsonl: the teacher text has"):
        checked(path, gad__teacher_overlong="error")
