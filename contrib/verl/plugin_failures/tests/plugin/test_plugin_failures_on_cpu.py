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
"""A plugin that fails to load is told of, and is an error if it was asked for by its name."""

import importlib
import logging
import sys
from importlib.metadata import EntryPoint

import pytest

import verl

POLICY = "VERL_USE_EXTERNAL_PLUGINS"


@pytest.fixture
def load_plugins(monkeypatch, tmp_path, caplog):
    """Imports verl anew with two installed plugins, of which one cannot be imported."""
    (tmp_path / "good_verl_plugin.py").write_text("loaded = True\n")
    (tmp_path / "broken_verl_plugin.py").write_text("raise RuntimeError('no such accelerator')\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = [EntryPoint(name=name, value=f"{name}_verl_plugin", group="verl.plugins") for name in ("broken", "good")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: plugins if group == "verl.plugins" else [])

    def load(policy: str | None) -> list[logging.LogRecord]:
        for name in ("good_verl_plugin", "broken_verl_plugin"):
            sys.modules.pop(name, None)
        if policy is None:
            monkeypatch.delenv(POLICY, raising=False)
        else:
            monkeypatch.setenv(POLICY, policy)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            importlib.reload(verl)
        return [record for record in caplog.records if "plugin" in record.getMessage()]

    yield load
    monkeypatch.undo()
    monkeypatch.setenv(POLICY, "none")
    importlib.reload(verl)


@pytest.mark.parametrize("policy", [None, "auto"])
def test_a_broken_plugin_is_told_of_with_its_reason(load_plugins, policy):
    (record,) = load_plugins(policy)
    assert record.levelno == logging.WARNING
    assert "broken" in record.getMessage() and "broken_verl_plugin" in record.getMessage()
    assert "no such accelerator" in str(record.exc_info[1])
    # The others are loaded all the same.
    assert "good_verl_plugin" in sys.modules


@pytest.mark.parametrize("policy", ["broken", "good, broken"])
def test_a_broken_plugin_that_was_asked_for_is_an_error(load_plugins, policy):
    with pytest.raises(ImportError, match="'broken' .*no such accelerator"):
        load_plugins(policy)


def test_a_plugin_that_is_not_installed_is_an_error(load_plugins):
    with pytest.raises(ImportError, match=r"\['gone'\].*'broken', 'good'"):
        load_plugins("good,gone")


@pytest.mark.parametrize(("policy", "loaded"), [("good", True), ("none", False)])
def test_what_loads_or_is_not_asked_for_says_nothing(load_plugins, policy, loaded):
    assert load_plugins(policy) == []
    assert ("good_verl_plugin" in sys.modules) is loaded
    assert "broken_verl_plugin" not in sys.modules
