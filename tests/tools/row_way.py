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
"""Which files of the package one step's rows pass on the driver, from the rollouts to the rewards.

    python tests/tools/row_way.py

Runs a whole run without Ray (fake_run.py) with ``gad=paper`` and watches the calls between verl's entry of the
reward stage and its end, in a step of the adversarial stage. Prints the files in the order in which they are entered,
with their code lines; ``core`` (mathematics on tensors), ``config`` and ``compat`` are left out.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "docs")]

import pytest  # noqa: E402
from fake_run import FakeRun  # noqa: E402
from house import code_line_numbers  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from tiny_model import build_all  # noqa: E402

import gad_verl  # noqa: E402

PACKAGE = Path(gad_verl.__file__).parent
LEFT_OUT = ("core", "config", "compat")


def files_of_a_step(folder: Path) -> list[Path]:
    """The files, relative to the package."""
    build_all(folder)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose(
            "gad_cpu",
            overrides=[
                "gad=paper",
                f"actor_rollout_ref.model.path={folder / 'model'}",
                f"data.train_files={folder / 'train.parquet'}",
                f"data.val_files={folder / 'val.parquet'}",
                f"trainer.default_local_dir={folder / 'checkpoints'}",
                "trainer.total_training_steps=2",
                "trainer.val_before_train=False",
                "trainer.save_freq=-1",
                "trainer.test_freq=-1",
                "gad.stage=gad",
            ],
        )
    found: dict[Path, int] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            found.setdefault(path.relative_to(PACKAGE), frame.f_lineno)

    with pytest.MonkeyPatch.context() as monkeypatch:
        run = FakeRun(config, monkeypatch)
        kind = type(run.trainer)
        stage = kind._compute_reward_colocate

        def watched(trainer: Any, batch: Any, metrics: dict | None = None) -> Any:
            if trainer.global_steps < 2:
                return stage(trainer, batch, metrics)
            sys.setprofile(watch)
            try:
                return stage(trainer, batch, metrics)
            finally:
                sys.setprofile(None)

        monkeypatch.setattr(kind, "_compute_reward_colocate", watched)
        run.fit()
    return [path for path in found if path.parts[0] not in LEFT_OUT]


def main() -> None:
    """The command."""
    with tempfile.TemporaryDirectory() as folder:
        files = files_of_a_step(Path(folder))
    lines = {path: len(code_line_numbers((PACKAGE / path).read_text(encoding="utf-8"))) for path in files}
    for path, count in lines.items():
        sys.stdout.write(f"{count:5d}  {path}\n")
    sys.stdout.write(f"{sum(lines.values()):5d}  code lines in {len(files)} files\n")


if __name__ == "__main__":
    main()
