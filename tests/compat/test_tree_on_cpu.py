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
"""The list against another verl's sources: what is gone, changed, or no longer read; one readable line each."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gad_verl.compat import MEGATRON_USES, OVERRIDDEN, REPLACED, VERL_USES, VerlUse, tree_findings
from gad_verl.compat.source import package_folder
from gad_verl.errors import GadCompatError

TRAINER = "trainer/ppo/v1/trainer_base.py"
Change = Callable[..., None]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the verl that is installed."""
    root = tmp_path_factory.mktemp("verl")

    def other_files(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not name.endswith(".py") and not Path(folder, name).is_dir()]

    shutil.copytree(package_folder("verl"), root / "verl", ignore=other_files)
    return root


@pytest.fixture
def change(checkout: Path) -> Iterator[Change]:
    """Replaces a pattern in a file of the checkout, until the end of the test."""
    before: dict[Path, str] = {}

    def replace(file: str, pattern: str, new: str) -> None:
        path = checkout / "verl" / file
        text = path.read_text(encoding="utf-8")
        changed, count = re.subn(pattern, new, text)
        assert count > 0, f"{pattern} is not in {file}"
        before.setdefault(path, text)
        path.write_text(changed, encoding="utf-8")

    yield replace
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


def test_the_same_verl_has_everything(checkout: Path) -> None:
    assert tree_findings(checkout) == []
    assert tree_findings(checkout / "verl") == []


def test_a_folder_without_verl_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GadCompatError, match="holds no verl: give a checkout"):
        tree_findings(tmp_path)
    (tmp_path / "__init__.py").touch()
    with pytest.raises(GadCompatError, match=re.escape(str(tmp_path))):
        tree_findings(tmp_path)


def test_nothing_is_imported(checkout: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from gad_verl.compat import tree_findings
assert tree_findings(Path({str(checkout)!r})) == []
print(sorted(name for name in sys.modules if name.split(".")[0] in ("verl", "transfer_queue", "torch", "ray")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# What verl might do, and what is said of it: file, pattern, replacement, beginnings of the lines.
CHANGES = {
    "a method is renamed": (
        TRAINER,
        r"\bstep\(self, metrics|self\.step\(metrics",
        lambda found: found[0].replace("step", "one_step"),
        ["verl.trainer.ppo.v1.trainer_base.PPOTrainer.step is gone (guardian and stop file"],
    ),
    "a method is no longer called": (
        TRAINER,
        r"self\.step\(",
        "self.one_step(",
        ["verl.trainer.ppo.v1.trainer_base.PPOTrainer.step is no longer read in verl.trainer.ppo.v1.trainer_base ("],
    ),
    "a call of another object is no call": (
        "trainer/main_ppo.py",
        r"trainer\.init\(\)",
        "trainer.begin()",
        ["verl.trainer.ppo.v1.trainer_base.PPOTrainer.init is no longer read in verl.trainer.main_ppo ("],
    ),
    "an override gets a parameter": (
        TRAINER,
        r"def _validate\(self\b",
        "def _validate(self, every=None",
        ["verl.trainer.ppo.v1.trainer_base.PPOTrainer._validate takes (self, every), not (self) ("],
    ),
    "a parameter of an override is renamed": (
        TRAINER,
        r"def _fetch_one_gen_batch\(self\b",
        "def _fetch_one_gen_batch(self, *, session, **options",
        [
            "verl.trainer.ppo.v1.trainer_base.PPOTrainer._fetch_one_gen_batch takes (self, *, session, **options), not "
            "(self) ("
        ],
    ),
    "a call may ignore an optional parameter": (
        "utils/py_functional.py",
        r"def rename_dict\(([^)]*)\)",
        r"def rename_dict(\1, new=None)",
        [],
    ),
    "a call needs one more": (
        "utils/py_functional.py",
        r"def rename_dict\(([^)]*)\)",
        r"def rename_dict(\1, *, new)",
        ["verl.utils.py_functional.rename_dict takes (data, prefix, *, new), and is called as (data, prefix) ("],
    ),
    "the order of a call changes": (
        "utils/seqlen_balancing.py",
        r"def get_seqlen_balanced_partitions\([^)]*\)",
        "def get_seqlen_balanced_partitions(k_partitions, seqlen_list, equal_size)",
        ["verl.utils.seqlen_balancing.get_seqlen_balanced_partitions takes (k_partitions, seqlen_list, equal_size), "],
    ),
    "what makes an object loses a parameter": (
        "workers/rollout/replica.py",
        r"stop_reason: ",
        "why_it_stopped: ",
        ["verl.workers.rollout.replica.TokenOutput takes (token_ids, log_probs, "],
    ),
    "a function becomes something else": (
        "utils/py_functional.py",
        r"def convert_to_regular_types\(",
        "convert_to_regular_types = lambda obj: obj\ndef _convert(",
        ["verl.utils.py_functional.convert_to_regular_types is no function any more ("],
    ),
    "an attribute of an object is renamed": (
        "trainer/ppo/v1/replay_buffer.py",
        r"self\.finished_keys\b",
        "self.done_keys",
        ["verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.finished_keys is gone (signs of life"],
    ),
    "a replacement is no longer read: a pool": (
        TRAINER,
        r"\.create_resource_pool\(",
        ".create_pools(",
        ["verl.single_controller.ray.base.ResourcePoolManager.create_resource_pool is no longer read in verl.trainer."],
    ),
    "a replacement is no longer read: sharding": (
        "workers/engine/fsdp/transformer_impl.py",
        r"\bapply_fsdp2\((?=module)",
        "shard(",
        ["verl.workers.engine.fsdp.transformer_impl.apply_fsdp2 is no longer read in "],
    ),
    "a replacement is bound before it is made": (
        "workers/engine/fsdp/transformer_impl.py",
        r"        from torch.distributed.fsdp import CPUOffload, MixedPrecision\n",
        "",
        ["torch.distributed.fsdp.MixedPrecision is no longer read in verl.workers.engine.fsdp.transformer_impl:FSDP"],
    ),
    "an interface asks for more": (
        "plugin/platform/platform_base.py",
        r"( +)@abc.abstractmethod\n +def empty_cache",
        r"\1@abc.abstractmethod\n\1def memory_pool(self): ...\n\n\1@abc.abstractmethod\n\1def empty_cache",
        ["verl.plugin.platform.platform_base.PlatformBase.memory_pool is a new abstract method (the CPU platform"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_one_line(checkout: Path, change: Change, what: str) -> None:
    file, pattern, new, expected = CHANGES[what]
    change(file, pattern, new)
    # What has to do with the file: the whole list takes a second each time.
    module = f"verl.{file.removesuffix('.py').replace('/', '.')}"
    uses = tuple(use for use in VERL_USES if module in (use.module, use.read_in.split(":")[0]))
    lines = tree_findings(checkout, uses)
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start) and line.endswith(")") and "\n" not in line


def test_a_module_is_named_once(checkout: Path) -> None:
    path = checkout / "verl" / "trainer/ppo/v1/replay_buffer.py"
    moved = path.with_name("buffers.py")
    path.rename(moved)
    try:
        (line,) = tree_findings(checkout)
    finally:
        moved.rename(path)
    assert line.startswith("verl.trainer.ppo.v1.replay_buffer is gone (") and "dead workers; signs of life" in line


def test_what_moves_to_a_base_class_is_found(checkout: Path, change: Change) -> None:
    change("trainer/ppo/v1/utils.py", r"\Z", "\n\nclass Reads:\n    def get_reward_handles(self): ...\n")
    change(TRAINER, r"def get_reward_handles\(self\)", "def handles(self)")
    change(TRAINER, r"class PPOTrainer\(ABC\)", "class PPOTrainer(Reads, ABC)")
    change(TRAINER, r"(from verl.trainer.ppo.v1.utils import )", r"\1Reads, ")
    assert tree_findings(checkout) == []


def test_every_override_and_replacement_of_the_trainer_must_be_read(checkout: Path, change: Change) -> None:
    uses = tuple(
        use
        for use in VERL_USES
        if use.how in (OVERRIDDEN, REPLACED) and use.module == "verl.trainer.ppo.v1.trainer_base" and not use.read_in
    )
    names = [name for use in uses for name, _ in use.parts if not name.endswith("__")]
    assert len(names) > 20
    for name in names:
        # Assignments stay: the name is there, and nobody reads it.
        change(TRAINER, rf"self\.{name.split('.')[1]}\b(?!(: [^=\n]+)? = )", "self.other_name")
    lines = tree_findings(checkout, uses)
    assert [line.split()[0] for line in lines] == [f"verl.trainer.ppo.v1.trainer_base.{name}" for name in names]
    assert all("is no longer read in" in line for line in lines)


def test_transfer_queue_is_checked_as_it_is_installed(checkout: Path) -> None:
    uses = (VerlUse("transfer_queue", "kv_batch_get(*, keys, partition_id, select_fields) kv_read", "a test"),)
    assert tree_findings(checkout, uses) == ["transfer_queue.kv_read is gone (a test)"]
    elsewhere = (VerlUse("package_that_is_not_installed.part", "name", "a test"),)
    assert tree_findings(checkout, elsewhere) == []


def test_megatron_is_part_of_the_tree(checkout: Path, change: Change) -> None:
    change("utils/megatron_utils.py", r"import freeze_moe_router, make_value_model\b", "import freeze_moe_router")
    (line,) = tree_findings(checkout, MEGATRON_USES)
    assert line.startswith("verl.models.mcore.bridge.make_value_model is no longer read in verl.utils.megatron_utils:")
