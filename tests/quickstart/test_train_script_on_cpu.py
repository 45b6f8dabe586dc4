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
"""What train.sh starts."""

import subprocess
from pathlib import Path

import pytest
from fake_commands import FakeCommands
from hydra.core.override_parser.overrides_parser import OverridesParser

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "train.sh"


@pytest.mark.parametrize("name", ["quickstart-run", "Müller's run=1 (new), [x]"])
@pytest.mark.parametrize("method", ["gad", "seqkd"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str, method: str) -> None:
    fakes = FakeCommands(tmp_path / "fakes")
    fakes.add("python")
    run = tmp_path / name
    command = ["bash", str(SCRIPT), str(run / "student"), str(run / "data"), str(run / method), "a.b=1"]
    subprocess.run(command, env=fakes.environment({"METHOD": method}), check=True, timeout=20)
    (call,) = fakes.calls()
    assert call["arguments"][:4] == ["-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu"]
    given = OverridesParser.create().parse_overrides(call["arguments"][4:])
    values = {override.key_or_group: override.value() for override in given}
    assert values["actor_rollout_ref.model.path"] == str(run / "student")
    assert values["data.train_files"] == str(run / "data" / "train.parquet")
    assert values["data.val_files"] == str(run / "data" / "val.parquet")
    assert values["trainer.default_local_dir"] == str(run / method / "checkpoints")
    assert (run / method).is_dir() and values["a.b"] == 1
