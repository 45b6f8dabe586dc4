# Copyright 2025 Individual Contributor: The gad_verl Authors
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
"""``VERL_PLATFORM=cpu``: verl's own process group, FSDP2 engine and checkpoints without an accelerator.

verl resolves its platform once a process, so that these tests ask a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import verl
from verl.plugin.platform.platform_manager import PlatformRegistry, _detect_platform_name

MODEL = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

def make_model(folder):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model
"""
ENGINE = """
import os
import sys
from functools import partial

from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import sft_loss

(folder,) = sys.argv[1:]
os.environ["DIST_INIT_METHOD"] = f"file://{folder}/store"
initialize_global_process_group_ray()
expected_model = make_model(folder)

def make_engine(strategy):
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=strategy,
        model_config=HFModelConfig(
            path=folder,
            load_tokenizer=False,
            use_remove_padding=False,
            override_config={"attn_implementation": "eager"},
        ),
        engine_config=FSDPEngineConfig(
            strategy=strategy,
            use_torch_compile=False,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        ),
        optimizer_config=FSDPOptimizerConfig(lr=0.1, optimizer="SGD", weight_decay=0.0, clip_grad=1e9,
                                             betas=None, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine

engine = make_engine("fsdp2")
lengths = [7, 4, 9]
rows = [torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(length)) for length in lengths]

def nested(tensors):
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)

data = tu.get_tensordict(
    {
        "input_ids": nested(rows),
        "position_ids": nested([torch.arange(length) for length in lengths]),
        # Of each row all but its first two tokens are learnt.
        "loss_mask": nested([(torch.arange(length) > 1).float() for length in lengths]),
    },
    {
        "temperature": 1.0,
        "use_remove_padding": False,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": 1,
    },
)
with engine.train_mode():
    output = engine.train_batch(data, loss_function=partial(sft_loss, None))

# The same step by hand.
optimizer = torch.optim.SGD(expected_model.parameters(), lr=0.1)
total, count = 0.0, sum(length - 2 for length in lengths)
for row in rows:
    log_probs = expected_model(input_ids=row[None]).logits[0, :-1].log_softmax(-1)
    total = total - log_probs.gather(-1, row[1:, None])[1:].sum()
loss = total / count
loss.backward()
grad_norm = torch.nn.utils.get_total_norm([p.grad for p in expected_model.parameters()])
optimizer.step()
torch.testing.assert_close(torch.tensor(sum(output["loss"])), loss.detach(), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(torch.tensor(float(output["metrics"]["grad_norm"])), grad_norm, rtol=1e-4, atol=1e-5)

def weights(engine):
    return {name: weight for name, weight in engine.get_per_tensor_param()[0]}

for name, weight in expected_model.state_dict().items():
    torch.testing.assert_close(weights(engine)[name], weight, rtol=1e-4, atol=1e-5)

engine.save_checkpoint(f"{folder}/checkpoint", global_step=1)
other = make_engine("fsdp2")
other.load_checkpoint(f"{folder}/checkpoint")
for name, weight in weights(engine).items():
    torch.testing.assert_close(weights(other)[name], weight, rtol=0, atol=0)
print("trained as by hand")
"""


DEVICE = """
from verl.utils import device
from verl.utils.memory_utils import aggressive_empty_cache
assert device.get_device_name() == "cpu" and device.get_process_group_backend() == "cpu:gloo"
assert device.get_current_torch_device() == torch.device("cpu")
assert torch.zeros(1, device=device.get_device_id()).device.type == "cpu"
module = device.get_torch_device()
module.manual_seed(3)
state, first = module.get_rng_state(), torch.rand(4)
module.set_rng_state(state)
assert torch.equal(torch.rand(4), first)
assert 0 < module.max_memory_allocated() and 0 <= module.mem_get_info()[0] <= module.mem_get_info()[1]
aggressive_empty_cache(force_sync=True)
print("devices have names")
"""
FSDP1 = """
try:
    make_engine("fsdp")
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """What the three parts print, in one process: importing verl is what costs."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(verl.__file__).parents[1]),
        "VERL_USE_EXTERNAL_PLUGINS": "none",
        "VERL_PLATFORM": "cpu",
    }
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        MODEL + DEVICE + ENGINE + FSDP1,
        str(tmp_path_factory.mktemp("cpu")),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_devices_have_names_that_torch_knows(output):
    assert "devices have names" in output


def test_fsdp2_engine_trains_saves_and_loads(output):
    assert "trained as by hand" in output


def test_fsdp1_says_what_to_set(output):
    assert "set strategy=fsdp2 where VERL_PLATFORM=cpu" in output


def test_nobody_gets_it_without_asking(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    assert PlatformRegistry.get("cpu") is not None
    assert not PlatformRegistry.get("cpu")().is_platform_available(use_smi_check=True)
    assert _detect_platform_name() != "cpu"
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert _detect_platform_name() == "cpu"
