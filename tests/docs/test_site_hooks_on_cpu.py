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
"""Hooks of the site: links out of docs/, marks, formulas, keys in tables."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rewritten(hooks: ModuleType, text: str, page: str = "data.md") -> str:
    return hooks.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)))


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("data.md", "../recipes/gad/README.md", "source/recipes/gad/README.md"),
        ("data.md", "../examples/gad_in_one_file.py", "source/examples/gad_in_one_file.py.md"),
        ("data.md", "../requirements", "source/requirements.md"),
        ("data.md", "concepts.md#the-objective", "concepts.md#the-objective"),
        ("data.md", "no_such_page.md", "no_such_page.md"),
        ("data.md", "https://arxiv.org/abs/2511.10643", "https://arxiv.org/abs/2511.10643"),
        ("data.md", "#a-row", "#a-row"),
        ("source/recipes/gad/README.md", "REQUIRED_VERL.txt", "REQUIRED_VERL.txt.md"),
        ("source/README.md", "docs/curves.md", "../curves.md"),
    ],
)
def test_links(hooks: ModuleType, page: str, link: str, expected: str) -> None:
    assert rewritten(hooks, f"see [it]({link})", page) == f"see [it]({expected})"


def test_code_is_left_alone_and_marks_are_shown(hooks: ModuleType) -> None:
    block = "```text\n[x](../README.md)\n<!-- not run: no mark -->\n```"
    shown = rewritten(hooks, f"<!-- not run: needs a network -->\n{block}\n[x](../README.md)\n")
    assert shown.startswith("*Not run here: needs a network.*\n")
    assert block in shown
    assert shown.endswith("[x](source/README.md)\n")


def test_formulas_and_keys(hooks: ModuleType) -> None:
    html = '<p><span class="arithmatex">\\(a &lt; b\\)</span></p><div class="arithmatex">\\[\nx^2\n\\]</div>'
    shown = hooks.on_page_content(html)
    assert shown.count("<math") == 2 and "arithmatex" not in shown and 'display="block"' in shown
    cells = "<table><td><code>gad.warmup_steps</code> 1.5 a.b</td></table><p><code>gad.warmup_steps</code></p>"
    shown = hooks.on_page_content(cells)
    assert shown.startswith("<table><td><code>gad.<wbr>warmup_<wbr>steps</code> 1.5 a.b</td>")
    assert shown.endswith("<p><code>gad.warmup_steps</code></p>")


def test_a_page_that_the_nav_forgets_is_not_lost(hooks: ModuleType) -> None:
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"More": [{"Rows": "data.md"}]}])
    [*_, added] = hooks.on_config(config).nav
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(added["More"]) == pages - {"index.md", "data.md"}
