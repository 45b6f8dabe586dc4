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
"""The documentation as a site: built without a warning, nothing loaded from a network, every link leads somewhere."""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Attributes of elements that a browser loads by itself. A link that a reader follows may lead anywhere.
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


@dataclass
class Page(HTMLParser):
    """What a page of the site loads, links to and can be linked to."""

    path: Path
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.classes |= set(values.get("class", "").split())
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag in LOADS and LOADS[tag] in values:
            self.loads.append(values[LOADS[tag]])
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    # A build that asked a network would have to go through this.
    environment |= {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_on_the_site(pages: dict[Path, Page], site: Path) -> None:
    built = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= built
    assert "source/recipes/gad/README" in built or "source/recipes/gad/index" in built
    assert len(built) > 20


def test_nothing_is_loaded_from_a_network(pages: dict[Path, Page], site: Path) -> None:
    loads = [(path.name, target) for path, page in pages.items() for target in page.loads]
    assert len(loads) > len(pages)
    assert [one for one in loads if urlsplit(one[1]).scheme not in ("", "data") or one[1].startswith("//")] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text) == [], sheet.name
    # The theme's script would fetch a library for diagrams of this class.
    assert [path.name for path, page in pages.items() if "mermaid" in page.classes] == []


def test_every_link_inside_the_site_leads_somewhere(pages: dict[Path, Page], site: Path) -> None:
    broken, seen = [], 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            seen += 1
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors | {"__top"}):
                broken.append(f"{path.name}: {link}")
    assert seen > 500
    assert broken == []


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    text = (site / "concepts.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20 and text.count('<div class="formula">') > 5
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text and "<merror" not in text, page.name


def test_the_page_of_the_api_has_every_public_name(pages: dict[Path, Page], site: Path) -> None:
    anchors = pages[site / "api.html"].anchors
    names = {anchor.rpartition(".")[2] for anchor in anchors if anchor.startswith("gad_verl.")}
    for module in ("gad_verl", "gad_verl.core", "gad_verl.config", "gad_verl.tools.api", "gad_verl.guardian"):
        public = {name for name in importlib.import_module(module).__all__ if not name.isupper()} - {"__version__"}
        assert public <= names, f"{module}: {sorted(public - names)}"


def test_the_search_finds_the_pages_and_not_the_sources(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"concepts.html", "configuration.html", "api.html"} <= places
    assert not any(place.endswith((".py.html", ".sh.html")) for place in places)


def test_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    """The test above can fail: strictness is on for links and anchors."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# One\n\n[nowhere](missing.md) [no anchor](index.md#none)\n", encoding="utf-8")
    validation = settings[settings.index("validation:") : settings.index("\nnav:")]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "Aborted with 2 warnings" in done.stdout + done.stderr
