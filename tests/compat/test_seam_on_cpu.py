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
"""The list of what is used of verl against gad_verl's own code, both ways; and that such a comparison sees things."""

from pathlib import Path

import pytest
from seam import Seam
from seam_list import compare

import gad_verl
from gad_verl.compat import IMPLEMENTED, MEGATRON_USES, OVERRIDDEN, PACKAGES, REPLACED, VERL_USES, VerlUse
from gad_verl.compat.source import Sources, package_folder

TRAINER = "verl.trainer.ppo.v1.trainer_base"

# Files of a package that uses verl in every way, and what must be found of each.
MADE_UP = {
    "overrides.py": """
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

class Part:
    def get_llm_client(self): ...
    def of_ours(self): ...

class Step(Part, PPOTrainerSync):
    def on_init_end(self): ...
    def _init_dump_executor(self):
        return self._not_of_verl, self.local_trigger_step
""",
    "below.py": """
from made_up.overrides import Step

class Below(Step):
    _stop_rollout_profiling = None
""",
    "private.py": """
from verl.plugin.platform import platform_manager
from verl.single_controller.ray import RayWorkerGroup
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer as Buffer

def known(group: RayWorkerGroup, made=None):
    made = Buffer(trainer_mode="sync")
    return group._worker_names, made.pending_keys, platform_manager._create_platform, hasattr(group, "_dispatch_info")

def unknown(buffer, other):
    return buffer._evict_terminal_groups, other._of_somebody_else
""",
    "replacing.py": """
from unittest import mock
from verl.utils import distributed

def replace(engine, other):
    distributed.set_numa_affinity = None
    engine.train_batch = None
    other.of_somebody_else = None
    with mock.patch.object(distributed, "destroy_global_process_group", None):
        pass
""",
    "calls.py": """
import transfer_queue as tq
from wrapt import register_post_import_hook

def call(keys):
    from verl.utils.ulysses import ulysses_pad
    register_post_import_hook(call, "verl.workers.rollout.llm_server")
    return ulysses_pad(*keys, position_ids_rmpad=2), tq.kv_clear(keys, partition_id="train")

def by_name(engine):
    return [getattr(engine, name) for name in ("local_from_a_table", "not an identifier")]
""",
}

FOUND = {
    f"{TRAINER}.PPOTrainer.get_llm_client": (OVERRIDDEN, "(self)"),
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.on_init_end": (OVERRIDDEN, "(self)"),
    f"{TRAINER}.PPOTrainer._init_dump_executor": (OVERRIDDEN, "(self)"),
    f"{TRAINER}.PPOTrainer._stop_rollout_profiling": (OVERRIDDEN, "(self)"),
    f"{TRAINER}.PPOTrainer.local_trigger_step": ("used", ""),
    "verl.single_controller.ray.base.RayWorkerGroup._worker_names": ("used", ""),
    "verl.single_controller.base.worker_group.WorkerGroup._dispatch_info": ("used", ""),
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer": ("used", "(*, trainer_mode)"),
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.pending_keys": ("used", ""),
    "verl.plugin.platform.platform_manager._create_platform": ("used", ""),
    "?._evict_terminal_groups": ("used", ""),
    "verl.utils.distributed.set_numa_affinity": (REPLACED, ""),
    "verl.utils.distributed.destroy_global_process_group": (REPLACED, ""),
    "?.train_batch": (REPLACED, ""),
    "transfer_queue.kv_clear": ("used", "(keys, *, partition_id)"),
    "verl.utils.ulysses.ulysses_pad": ("used", "(input_ids_rmpad, *, position_ids_rmpad)"),
    "verl.workers.rollout.llm_server": ("used", ""),
}


def sources_with(name: str, folder: Path) -> Sources:
    return Sources({name: folder, **{package: package_folder(package) for package in PACKAGES}})


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Seam:
    folder = tmp_path_factory.mktemp("package") / "made_up"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    for name, code in MADE_UP.items():
        (folder / name).write_text(code, encoding="utf-8")
    return Seam(sources_with("made_up", folder), "made_up")


def entry(name: str, how: str, parameters: str) -> VerlUse:
    """An entry of the list for a name that was found."""
    parts = name.split(".")
    at = next((at for at, part in enumerate(parts) if part[0].isupper()), len(parts))
    if at == len(parts):
        # A function or a module by itself.
        is_module = name == "verl.workers.rollout.llm_server"
        return VerlUse(name, "", "") if is_module else VerlUse(name.rpartition(".")[0], parts[-1] + parameters, "", how)
    return VerlUse(".".join(parts[:at]), ".".join(parts[at:]) + parameters, "", how)


# What the list may call the names that are found without the type of their object.
UNTYPED = {
    "?._evict_terminal_groups": "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer._evict_terminal_groups",
    "?.train_batch": "verl.workers.engine.base.BaseEngine.train_batch",
}
FULL = tuple(entry(UNTYPED.get(name, name), *kind) for name, kind in FOUND.items())
# The imports of classes that are used in no other way are entries too.
CLASSES = (
    VerlUse("verl.single_controller.ray", "RayWorkerGroup", ""),
    VerlUse("verl.trainer.ppo.v1.trainer_sync", "PPOTrainerSync", ""),
)


def test_the_list_is_what_the_code_uses() -> None:
    seam = Seam(sources_with("gad_verl", Path(gad_verl.__file__).parent), "gad_verl")
    lines = compare(seam, VERL_USES + MEGATRON_USES)
    assert not lines, "change gad_verl/compat/uses/ so:\n" + "\n".join(lines)


def test_every_entry_says_why_and_stands_once() -> None:
    uses = VERL_USES + MEGATRON_USES
    assert all(use.why for use in uses)
    names = [f"{use.module}.{name}" for use in uses for name, _ in use.parts]
    assert sorted(names) == sorted(set(names))


def test_all_uses_of_a_package_are_found(made_up: Seam) -> None:
    found = {line.split(":")[0] for line in compare(made_up, ())}
    expected = {f"add {name}{parameters}" for name, (_, parameters) in FOUND.items()}
    assert expected <= found
    # Besides these, the imports of classes alone.
    assert {line.removeprefix("add ") for line in found - expected} <= {
        f"{use.module}.{name}" for use in CLASSES for name, _ in use.parts
    } | {f"{TRAINER}.PPOTrainer"}


def test_a_complete_list_is_accepted(made_up: Seam) -> None:
    assert compare(made_up, FULL + CLASSES) == []


@pytest.mark.parametrize("name", FOUND)
def test_each_missing_entry_is_named(made_up: Seam, name: str) -> None:
    rest = tuple(use for use, known in zip(FULL, FOUND, strict=True) if known != name)
    lines = compare(made_up, rest + CLASSES)
    # A class is covered by its member; its parameters are not.
    start = f"change {name}:" if name.endswith(".ReplayBuffer") else f"add {name}{FOUND[name][1]}: {FOUND[name][0]} in "
    assert len(lines) == 1 and lines[0].startswith(start) and ".py:" in lines[0]


def test_an_entry_too_many_is_named(made_up: Seam) -> None:
    more = (VerlUse(f"{TRAINER}:PPOTrainer", "_balance_batch(self, batch, metrics)", "test", OVERRIDDEN),)
    assert compare(made_up, FULL + CLASSES + more) == [f"remove {TRAINER}.PPOTrainer._balance_batch: not used"]


def test_names_from_a_table_count_as_used(made_up: Seam) -> None:
    more = (VerlUse(f"{TRAINER}:PPOTrainer", "local_from_a_table", "test"),)
    assert compare(made_up, FULL + CLASSES + more) == []


@pytest.mark.parametrize("how", [OVERRIDDEN, "used"])
def test_a_replacement_must_be_called_one(made_up: Seam, how: str) -> None:
    name = "verl.utils.distributed.set_numa_affinity"
    rest = tuple(use for use, known in zip(FULL, FOUND, strict=True) if known != name)
    (line,) = compare(made_up, (*rest, *CLASSES, entry(name, how, "")))
    assert line.startswith(f"change {name}: {how} in the list, {REPLACED} in replacing.py:6")


def test_other_parameters_are_named(made_up: Seam) -> None:
    name = "transfer_queue.kv_clear"
    rest = tuple(use for use, known in zip(FULL, FOUND, strict=True) if known != name)
    (line,) = compare(made_up, (*rest, *CLASSES, entry(name, "used", "(keys)")))
    assert line.startswith(f"change {name}: parameters (keys) in the list, (keys, *, partition_id) in code")


def test_an_implemented_interface_counts_as_overridden(made_up: Seam) -> None:
    name = f"{TRAINER}.PPOTrainer.get_llm_client"
    rest = tuple(use for use, known in zip(FULL, FOUND, strict=True) if known != name)
    assert compare(made_up, (*rest, *CLASSES, entry(name, IMPLEMENTED, "(self)"))) == []
