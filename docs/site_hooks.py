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
"""Hooks of MkDocs: links to files outside of docs/ work on the site too, and formulas become MathML.

The pages are written for two readers: somebody who looks at them in the repository, and the site. A link such as
``../examples/gad_in_one_file.py`` is right in the repository. On the site each file that a page links to becomes a page
below ``source/``: Markdown as it is, anything else as a block of code.
"""

import posixpath
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "source"

# The target of a link in Markdown: a relative path, maybe with an anchor.
_LINK = re.compile(r"(\]\()(?!#|[a-z]+:)([^)#\s]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
_CODE = re.compile(r"(<code>)([^<]*)(</code>)")
# Above a block of code that no test runs or checks, with the reason; readers of the site see it.
_NOT_RUN = re.compile(r"^( *)<!-- not run: (.*?) -->$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".html": "html", ".json": "json"}


def outside_of_fences(text: str, change: Any) -> str:
    """The text with ``change`` applied to everything that is not in a fenced block."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def repository_path(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return src_uri.removeprefix(f"{SOURCE}/") if src_uri.startswith(f"{SOURCE}/") else f"docs/{src_uri}"


def site_path(path: str) -> str:
    """Where a file or folder of the repository lies among the pages of the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{SOURCE}/{path}.md"
    return f"{SOURCE}/{path}" if path.endswith(".md") else f"{SOURCE}/{path}.md"


def linked_files(path: str) -> Iterator[str]:
    """Files of the repository outside of docs/ that a page links to; what does not exist is left to MkDocs."""
    text = _FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))
    for link in _LINK.finditer(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[2]))
        if not target.startswith(("docs/", "..")) and (ROOT / target).exists():
            yield target


def as_page(path: str) -> str:
    """A file or folder of the repository as Markdown."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(child.name for child in file.iterdir() if not child.name.startswith(("_", ".")))
        body = "\n".join(f"- `{name}`" for name in names)
    else:
        body = f"``````{_LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}\n``````"
    # Found by links and not by a search, which would find little else.
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{body}\n"


def named_pages(nav: Any) -> set[str]:
    """All pages that a nav of mkdocs.yml names."""
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return set().union(*map(named_pages, parts))


def on_config(config: Any) -> Any:
    """A page of docs/ that the nav does not name yet is put at its end instead of being lost."""
    known = named_pages(config.nav)
    missing = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name not in known)
    if missing:
        config.nav = [*config.nav, {"More": missing}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to."""
    waiting = [repository_path(file.src_uri) for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        for target in linked_files(waiting.pop()):
            if target in seen:
                continue
            seen.add(target)
            src_uri = site_path(target)
            if target.endswith(".md"):
                files.append(File.generated(config, src_uri, abs_src_path=str(ROOT / target)))
                waiting.append(target)
            else:
                files.append(File.generated(config, src_uri, content=as_page(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository as links between pages of the site."""
    here = repository_path(page.file.src_uri)

    def relocate(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link[2]))
        if target.startswith("..") or not (ROOT / target).exists():
            return link.group()
        there = posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{link[1]}{there}{link[3]}"

    def change(text: str) -> str:
        return _NOT_RUN.sub(r"\1*Not run here: \2.*\n", _LINK.sub(relocate, text))

    return outside_of_fences(markdown, change)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw by themselves; keys in tables may break at dots and underscores."""

    def breakable(cell: re.Match[str]) -> str:
        return _CODE.sub(lambda code: code[1] + re.sub(r"([._/]+)(?=\w)", r"\1<wbr>", code[2]) + code[3], cell.group())

    def draw(formula: re.Match[str]) -> str:
        block = formula[1] == "div"
        mathml = convert(unescape(formula[2]).strip(), display="block" if block else "inline")
        return f'<div class="formula">{mathml}</div>' if block else mathml

    return _CELL.sub(breakable, _FORMULA.sub(draw, html))
