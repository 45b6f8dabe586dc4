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
"""Writes the table of ``gad.*`` in docs/configuration.md from the comments of gad_verl/config/gad/gad.yaml.

python docs/make_configuration.py           # rewrites the table
python docs/make_configuration.py --check   # fails if the page is out of date
"""

import argparse
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

DOCS = Path(__file__).resolve().parent
GROUP = DOCS.parent / "gad_verl" / "config" / "gad"
SOURCE, RECOMMENDED = GROUP / "gad.yaml", GROUP / "recommended.yaml"
PAGE = DOCS / "configuration.md"
BEGIN = "<!-- BEGIN gad.yaml: written by docs/make_configuration.py, do not edit by hand -->"
END = "<!-- END gad.yaml -->"

_FIELD = re.compile(r"^( *)(\w+):(?: (.*))?$")


@dataclass(frozen=True)
class Field:
    """One key with its default and the comment above it; ``default`` is None where it holds other keys. ``paper`` is
    the value of the published method where the default is another."""

    key: str
    default: str | None
    meaning: str
    paper: str | None = None


def read_fields(text: str, prefix: str = "gad") -> list[Field]:
    """All keys of a YAML file in verl's format: a comment above each field, two spaces of indentation.

    Raises:
        ValueError: If a field has no comment.
    """
    fields: list[Field] = []
    parents: list[str] = []
    comments: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        match = _FIELD.match(line)
        if stripped.startswith("#"):
            comments.append(stripped.removeprefix("#").strip())
        elif match:
            indent, name, value = len(match[1]) // 2, match[2], match[3]
            parents = [*parents[:indent], name]
            if not comments:
                raise ValueError(f"line {number}: the field {name!r} has no comment above it")
            if name != "_target_":
                fields.append(Field(".".join([prefix, *parents]), value, " ".join(comments)))
            comments = []
        elif not stripped:
            # A comment that stands alone describes the file, not a field.
            comments = []
    return fields


def with_recommended(fields: list[Field], text: str) -> list[Field]:
    """The keys with the defaults of gad_trainer, which takes the recommended preset over them."""
    changed = {field.key.removeprefix("."): field.default for field in read_fields(text, prefix="")}
    found = []
    for field in fields:
        value = changed.get(field.key)
        found.append(field if value in (None, field.default) else replace(field, default=value, paper=field.default))
    return found


def make_table(fields: list[Field]) -> str:
    """The keys as a Markdown table."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for field in fields:
        default = "" if field.default is None else f"`{field.default}`"
        if field.paper is not None:
            default += f" (`gad=paper`: {field.paper})"
        name = f"`{field.key}`" if field.default is not None else f"`{field.key}.*`"
        meaning = field.meaning.replace("|", "\\|")
        rows.append(f"| {name} | {default} | {meaning} |")
    return "\n".join(rows)


def make_page(page: str, table: str) -> str:
    """The page with the table between the marks.

    Raises:
        ValueError: If a mark is missing.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE.name} must hold each of these marks once: {BEGIN} and {END}")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if the page is out of date")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    fields = read_fields(SOURCE.read_text(encoding="utf-8"))
    new = make_page(old, make_table(with_recommended(fields, RECOMMENDED.read_text(encoding="utf-8"))))
    if check and old != new:
        sys.stderr.write(f"{PAGE.name} is out of date: run python docs/{Path(__file__).name}\n")
        return 1
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
