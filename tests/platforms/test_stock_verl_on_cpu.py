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
"""What the plug-in changes of verl: on another platform than the CPU nothing but entries of registries."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

# Imports verl and prints every function and class attribute of some of its modules, by the content of its code.
MODES = ("'gad_sync'", "'gad_colocate_async'", "'gad_separate_async'")
FINGERPRINT = """
import functools, hashlib, importlib, inspect, json, sys, types
import torch

MODULES = '''
verl.trainer.main_ppo verl.trainer.ppo.v1 verl.trainer.ppo.v1.trainer_base verl.trainer.ppo.v1.trainer_sync
verl.trainer.ppo.v1.replay_buffer verl.workers.engine_workers verl.workers.engine.base
verl.workers.engine.fsdp.transformer_impl verl.workers.rollout.replica verl.workers.rollout.base
verl.utils.distributed verl.utils.model verl.utils.tensordict_utils verl.workers.utils.losses
verl.utils.checkpoint.checkpoint_manager verl.plugin.platform.platform_manager
'''.split()


def code_hash(code):
    digest = hashlib.sha256(code.co_code + repr((code.co_filename, code.co_firstlineno, code.co_names)).encode())
    for constant in code.co_consts:
        digest.update((code_hash(constant) if isinstance(constant, types.CodeType) else repr(type(constant))).encode())
    return digest.hexdigest()[:16]


def describe(value):
    if isinstance(value, (staticmethod, classmethod)):
        return type(value).__name__ + " " + describe(value.__func__)
    if isinstance(value, property):
        return "property " + " ".join(describe(f) for f in (value.fget, value.fset) if f is not None)
    if isinstance(value, functools.partial):
        return "partial " + describe(value.func)
    if inspect.isfunction(value):
        wrapped = getattr(value, "__wrapped__", None)
        inner = "" if wrapped is None else " of " + describe(wrapped)
        return f"{value.__module__}.{value.__qualname__} {code_hash(value.__code__)} {value.__defaults__!r:.0}{inner}"
    if inspect.isclass(value) or inspect.ismodule(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    return type(value).__qualname__


found, registries = {}, {}
for name in MODULES:
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if key.startswith("__"):
            continue
        found[f"{name}.{key}"] = describe(value)
        if inspect.isclass(value) and value.__module__ == name:
            for attribute, member in vars(value).items():
                found[f"{name}.{key}.{attribute}"] = describe(member)
        for path, table in [(key, value)] + (list(vars(value).items()) if inspect.isclass(value) else []):
            if type(table) is dict:
                registries[f"{name}.{key}.{path}"] = sorted(map(repr, table))
for name, value in {
    "pin_memory": torch.Tensor.pin_memory,
    "check": importlib.import_module("torch.distributed.fsdp._init_utils")._check_module_states_for_sync_module_states,
}.items():
    found[name] = describe(value) if inspect.isfunction(value) else repr(value)
from verl.plugin.platform import get_platform

json.dump(
    {
        "found": found,
        "registries": registries,
        "platform": get_platform().device_name,
        "gad_verl": sorted(name for name in sys.modules if name == "gad_verl" or name.startswith("gad_verl.")),
        "trainers": sorted(importlib.import_module("verl.trainer.ppo.v1.trainer_base").TRAINER_REGISTRY),
    },
    sys.stdout,
)
"""

CPU = """
import json, os, sys
import torch
import verl.utils.distributed as distributed
import verl.utils.model as model
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_id, get_device_name, get_torch_device
from gad_verl.cpu.register import is_cpu_platform

index, module = get_device_id(), get_torch_device()
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
rank = distributed.initialize_global_process_group()
total = torch.tensor([3.0])
torch.distributed.all_reduce(total)
state = module.get_rng_state()
first = torch.rand(2)
module.set_rng_state(state)
print(json.dumps({
    "platform": get_platform().device_name,
    "name": get_device_name(),
    "is_cpu_platform": is_cpu_platform(),
    "device": str(torch.device(index)),
    "moved": str(torch.zeros(1).to(index).device),
    "formatted": f"{index}",
    "count": module.device_count(),
    "rank": rank,
    "backend": torch.distributed.get_backend().rpartition(":")[2],
    "sum": total.item(),
    "rng": torch.equal(first, torch.rand(2)),
    "memory": 0 < module.memory_allocated() <= 4 * module.max_memory_allocated(),
    "loader": model.load_valuehead_model.__module__,
    "pinned": torch.zeros(1).pin_memory().item(),
    "trainer": "gad_verl.trainer.modes" in sys.modules,
}))
"""


# Imports what verl imports, none of verl itself, and goes on in one fork per job: three times the imports of verl, once
# those of torch and its like. Arguments: triples of environment (JSON), code, file for the output.
PARENT = """
import importlib, json, os, sys, traceback

for name in (
    "torch.distributed.fsdp", "transformers", "tensordict", "transfer_queue", "hydra", "datasets", "peft", "ray",
    "torchdata.stateful_dataloader", "rouge_score.rouge_scorer", "fastapi", "uvicorn", "aiohttp", "vllm",
    "torch._dynamo",
):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

assert not {"verl", "gad_verl"} & set(sys.modules)
children = []
for environment, code, output in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    child = os.fork()
    if child == 0:
        try:
            os.environ.update(json.loads(environment))
            sys.stdout = open(output, "w")
            exec(compile(code, "<job>", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """verl on the NVIDIA platform without and with the plug-in, and on the CPU platform with it."""
    folder = tmp_path_factory.mktemp("answers")
    jobs = [
        ({"VERL_PLATFORM": "nvidia", "VERL_USE_EXTERNAL_PLUGINS": "none"}, FINGERPRINT),
        ({"VERL_PLATFORM": "nvidia", "VERL_USE_EXTERNAL_PLUGINS": "auto"}, FINGERPRINT),
        ({"VERL_PLATFORM": "cpu"}, CPU),
    ]
    arguments = []
    for number, (environment, code) in enumerate(jobs):
        arguments += [json.dumps(environment), code, str(folder / f"{number}.json")]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT, *arguments],
        env={key: value for key, value in os.environ.items() if not key.startswith("VERL_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    texts = [(folder / f"{number}.json").read_text(encoding="utf-8") for number in range(len(jobs))]
    return [json.loads(text[text.index("{") :]) for text in texts]


@pytest.fixture(scope="module")
def processes(answers: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Without and with the plug-in."""
    return answers[0], answers[1]


def test_every_function_of_verl_is_the_stock_one(processes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    without, with_plugin = processes
    assert without["gad_verl"] == [] and "gad_verl.plugin" in with_plugin["gad_verl"]
    assert len(without["found"]) > 500
    different = {
        key: (without["found"].get(key), with_plugin["found"].get(key))
        for key in without["found"].keys() | with_plugin["found"].keys()
        if without["found"].get(key) != with_plugin["found"].get(key)
    }
    assert different == {}


def test_only_entries_of_registries_are_added(processes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    without, with_plugin = processes
    added = {}
    for key in without["registries"].keys() | with_plugin["registries"].keys():
        before, after = set(without["registries"].get(key, [])), set(with_plugin["registries"].get(key, []))
        assert before <= after, f"{key} lost {before - after}"
        if after - before:
            added[key] = after - before
    entries = set().union(*added.values())
    assert entries <= {*MODES, "('hf', 'async')", "'hf'", "'cpu'", "'gad_discriminator'"}
    assert {*MODES, "('hf', 'async')", "'hf'", "'cpu'"} <= entries
    assert set(with_plugin["trainers"]) - set(without["trainers"]) == {mode.strip("'") for mode in MODES}


def test_no_patch_on_another_platform(processes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for process in processes:
        assert process["platform"] == "cuda"
        assert "gad_verl.cpu.patches" not in process["gad_verl"]
        assert process["found"]["verl.utils.model.load_valuehead_model"].startswith("verl.utils.model.")


def test_cpu_platform(answers: list[dict[str, Any]]) -> None:
    assert answers[2] == {
        "platform": "cpu",
        "name": "cpu",
        "is_cpu_platform": True,
        "device": "cpu",
        "moved": "cpu",
        "formatted": "0",
        "count": 1,
        "rank": [0, 0, 1],
        "backend": "gloo",
        "sum": 3.0,
        "rng": True,
        "memory": True,
        "loader": "gad_verl.cpu.patches",
        "pinned": 0.0,
        # A process that does not ask for the trainer does not pay for it.
        "trainer": False,
    }
