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
"""``separate_async`` comes up without hybrid replicas: a logger takes no ``flush``, which only ``print`` has."""

import ast
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

import verl
import verl.trainer.ppo.v1.trainer_separate_async as trainer_module
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_separate_async import HybridEngineMode, PPOTrainerSeparateAsync

LOGGER_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGGER_KEYWORDS = {"exc_info", "stack_info", "stacklevel", "extra", "msg"}


class _Manager:
    def __init__(self, num_replicas: int):
        self.rollout_replicas = ["replica"] * num_replicas
        self.server_addresses = []

    def get_replicas(self):
        return self.rollout_replicas


def _trainer(monkeypatch, hybrid: bool) -> PPOTrainerSeparateAsync:
    monkeypatch.setattr(PPOTrainer, "_setup", lambda self: None)
    monkeypatch.setattr(trainer_module.LLMServerManager, "create", lambda **_: _Manager(2))
    monkeypatch.setattr(trainer_module, "omega_conf_to_dataclass", lambda config: config)
    monkeypatch.setattr(trainer_module, "CheckpointEngineManager", lambda **kwargs: SimpleNamespace(**kwargs))
    monkeypatch.setattr(PPOTrainerSeparateAsync, "add_replicas_to_balancer", lambda self: None)
    trainer = PPOTrainerSeparateAsync.__new__(PPOTrainerSeparateAsync)
    trainer.config = OmegaConf.create(
        {"actor_rollout_ref": {"rollout": {"prometheus": {"enable": False}, "checkpoint_engine": {}}}}
    )
    trainer.llm_server_manager = _Manager(1 if hybrid else 0)
    trainer.actor_rollout_wg = None
    trainer._enable_hybrid_replicas = hybrid
    return trainer


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
@pytest.mark.parametrize("hybrid", [False, True])
def test_setup_with_and_without_hybrid_replicas(monkeypatch, caplog, hybrid, level):
    trainer = _trainer(monkeypatch, hybrid)

    with caplog.at_level(level, logger=trainer_module.logger.name):
        trainer._setup()

    assert trainer.current_mode == (HybridEngineMode.ROLLOUT if hybrid else HybridEngineMode.TRAINER)
    told = "rollout served by 2 standalone replicas only" in caplog.text
    assert told == (not hybrid and level == logging.INFO)


def test_no_logger_call_has_a_keyword_that_loggers_lack():
    wrong = []
    root = Path(verl.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            is_logger = isinstance(owner, ast.Name) and owner.id in ("logger", "logging", "log")
            if is_logger and node.func.attr in LOGGER_METHODS:
                keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
                if keywords - LOGGER_KEYWORDS:
                    wrong.append(f"{path.relative_to(root)}:{node.lineno}: {sorted(keywords - LOGGER_KEYWORDS)}")
    assert wrong == []
