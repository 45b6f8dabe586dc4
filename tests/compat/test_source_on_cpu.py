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
"""Names, members and signatures are read from sources."""

import textwrap
from pathlib import Path

import pytest

from gad_verl.compat.source import Signature, Sources, package_folder

FILES = {
    "__init__.py": "from . import parts\nfrom .parts import *\nfrom outside import Foreign",
    "parts.py": """
        import a.b, c as d
        from e import f as g, h
        try:
            one = two = 1
            (three, four) = 1, 2
        except ImportError:
            five: int = 5
        else:
            six = 6
        if one:
            class K:
                x: int = 1
                if x:
                    def m(self, first, /, second=2, *rest, third, fourth=4, **others):
                        hidden = 1
                        self.made = 1
                        other.not_made = 2
                async def n(self): self.late: int = 3
        with open("x") as y:
            def seven(): ...
    """,
    "deep/__init__.py": "from ..parts import K as Base",
    "deep/below.py": """
        from . import Base
        from outside import Foreign
        try:
            from outside import Twice
        except ImportError:
            class Twice: ...
        class Fields:
            a: int
            b: str = ""
        class More(Fields):
            c: float
        class Left(Base): ...
        class Right(Base):
            def m(self, other): ...
        class Diamond(Left, Right[int], Foreign): ...
        class Made:
            def __init__(self, size): ...
    """,
}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return Sources({"package": tmp_path})


def test_names_at_the_top_of_a_module(sources: Sources) -> None:
    assert set(sources.module("package.parts").names) == set("a d g h one two three four five six K seven".split())
    assert sources.module("package.nothing") is None and sources.module("elsewhere") is None


@pytest.mark.parametrize("name", ["K.x", "K.m", "K.n", "K.made", "K.late", "seven", "one", "g"])
def test_found(sources: Sources, name: str) -> None:
    for module in ("package", "package.parts"):
        assert sources.find(module, name).module.name == "package.parts"


@pytest.mark.parametrize("name", ["hidden", "K.hidden", "K.not_made", "y.x", "Foreign.x", "K.m.made"])
def test_not_found(sources: Sources, name: str) -> None:
    assert sources.find("package.parts", name) is None


def test_imports_and_bases_are_followed(sources: Sources) -> None:
    assert sources.find("package", "parts").module.name == "package.parts"
    assert sources.find("package.deep", "Base").name == "K"
    assert sources.find("package", "Foreign").module.name == "package"
    found = sources.find("package.deep.below", "Left.made")
    assert (found.module.name, found.name) == ("package.parts", "K.made")
    # As Python looks it up: what stands above two classes comes behind both.
    assert sources.find("package.deep.below", "Diamond.m").name == "Right.m"
    # A definition goes before an import that may fail.
    assert sources.find("package.deep.below", "Twice").module.name == "package.deep.below"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Right.m", "(self, other)"),
        ("Left.m", "(self, first, second, *rest, third, fourth, **others)"),
        ("More", "(a, b, c)"),
        ("Made", "(size)"),
    ],
)
def test_signatures(sources: Sources, name: str, text: str) -> None:
    assert str(sources.signature(sources.find("package.deep.below", name))) == text


def test_optional_parameters(sources: Sources) -> None:
    method = sources.signature(sources.find("package.parts", "K.m"))
    assert method.optional == {"second", "fourth"}
    assert sources.signature(sources.find("package.deep.below", "More")).optional == {"b"}


@pytest.mark.parametrize("text", ["", "self", "a, b", "*, a", "a, *, b, c", "a, *rest, b, **others", "a, **others"])
def test_notation_is_read_as_it_is_written(text: str) -> None:
    assert str(Signature.parse(text)) == f"({text})"


@pytest.mark.parametrize(
    ("theirs", "call", "fits"),
    [
        ("a, b=1", "a", True),
        ("a, b=1", "a, *, b", True),
        ("b, a", "*, a, b", True),
        ("a, **rest", "a, *, c", True),
        ("a, *, b=1", "a", True),
        ("b, a", "a, b", False),
        ("a, b", "a", False),
        ("a, *, b", "a", False),
        ("a", "a, *, c", False),
        ("a", "a, b", False),
    ],
)
def test_a_call_fits_or_not(theirs: str, call: str, fits: bool) -> None:
    """The same as Python says of a function with these parameters."""
    wanted = Signature.parse(call)
    difference = Signature.parse(theirs).difference(wanted, exact=False)
    assert (difference is None) is fits
    namespace: dict = {}
    exec(f"def function({theirs}): ...", namespace)  # noqa: S102
    try:
        namespace["function"](*wanted.positional, **dict.fromkeys(wanted.keywords))
    except TypeError:
        assert not fits
    else:
        # By place, Python does not look at the names.
        assert fits or Signature.parse(theirs).positional[: len(wanted.positional)] != wanted.positional


@pytest.mark.parametrize("theirs", ["self", "self, b", "self, a, c", "self, *, a", "self, a, **rest", "a, self"])
def test_an_override_has_the_same_parameters(theirs: str) -> None:
    wanted = Signature.parse("self, a")
    assert Signature.parse(theirs).difference(wanted, exact=True) == f"takes ({theirs}), not (self, a)"
    assert Signature.parse("self, a=1").difference(wanted, exact=True) is None


def test_installed_packages_are_found() -> None:
    assert (package_folder("verl") / "protocol.py").is_file()
    assert package_folder("no_such_package") is None
