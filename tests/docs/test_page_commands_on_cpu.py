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
"""Every command on the pages is one that exists: parsed by the real command line, composed by Hydra, or marked.

A block that no test can check carries a comment right above it, ``<!-- not run: needs several machines -->``, or begins
with the line ``# needs several machines``. What is known to the tests is looked at in such a block too.
"""

import ast
import contextlib
import functools
import importlib.util
import io
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from page_blocks import Block, commands, page_blocks

from gad_verl.cli import build_parser
from gad_verl.config import load_gad_config
from gad_verl.preflight.objective_check import check_objective

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "recipes" / "gad" / "README.md"]
BLOCKS = [block for page in PAGES for block in page_blocks(page)]

# Commands of every system, with nothing to check but their spelling.
HARMLESS = {"cat", "cd", "echo", "export", "for", "head", "ls", "mkdir", "tail", "touch"}
PROGRAMS = {"gad-verl", "python", "python3", "make", "pip", "bash", "sbatch", "ray"}
# Languages whose blocks are commands, and those that hold data, settings or what a command prints.
SHELL, PYTHON, DATA = {"bash", "sh", "shell", "console"}, {"python"}, {"json", "yaml"}
OTHER = {"text"}


def problem(words: list[str]) -> str | None:
    """What is wrong with a command; None if nothing is."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if not words:
        return None
    program, *arguments = words
    check = {
        "gad-verl": _gad_verl,
        "python": _python,
        "python3": _python,
        "make": _make,
        "pip": _pip,
        "bash": _script,
        "sbatch": _script,
        "ray": _ray,
    }.get(program)
    if check is not None:
        return check([word for word in arguments if word != "..."])
    return None if program in HARMLESS else f"{program} is no command that can be checked: mark the block"


def _gad_verl(arguments: list[str]) -> str | None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            build_parser().parse_args(arguments)
        except SystemExit as end:
            # --help and --version end with 0.
            return said.getvalue().splitlines()[-1] if end.code else None
    return None


def _python(arguments: list[str]) -> str | None:
    if arguments[:2] == ["-m", "verl.trainer.main_ppo"]:
        return _main_ppo(tuple(arguments[2:]))
    if arguments[0] == "-m":
        return None if importlib.util.find_spec(arguments[1]) else f"there is no module {arguments[1]}"
    if arguments[0] == "-c":
        ast.parse(arguments[1])
        return None
    script = ROOT / arguments[0]
    if not script.is_file():
        return f"there is no file {arguments[0]}"
    known = _options_of(script)
    # Behind -- there are no options.
    own = itertools.takewhile(lambda word: word != "--", arguments[1:])
    unknown = {word.partition("=")[0] for word in own if word.startswith("--")} - known
    return f"{arguments[0]} has no option {', '.join(sorted(unknown))}" if unknown else None


def _options_of(script: Path) -> set[str]:
    """Options that a script gives to argparse, read from its source and from that of the modules beside it."""
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    helpers = [path for name in names if (path := script.parent / f"{name}.py").is_file()]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    adding = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    return {"--help"}.union(*map(_options_of, helpers)) | {
        argument.value
        for call in adding
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


@functools.cache
def _main_ppo(arguments: tuple[str, ...]) -> str | None:
    options, overrides, rest = {}, [], list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("--config-name", "--config-path", "--cfg"):
            options[word] = rest.pop(0)
        elif word.startswith("-"):
            return f"main_ppo has no option {word}"
        else:
            overrides.append(word)
    if "--config-name" not in options:
        return "without --config-name verl trains by itself"
    folder = options.get("--config-path")
    opened = (
        initialize_config_module("verl.trainer.config", version_base=None)
        if folder is None
        else initialize_config_dir(str(ROOT / folder), version_base=None)
    )
    try:
        with opened:
            config = compose(options["--config-name"], overrides=overrides)
        custom = ("gad.discriminator_loss.custom", "gad.guardian.custom_rules", "gad.reward.group_function")
        if not any(word.startswith(custom) for word in overrides):
            check_objective(config, load_gad_config(config))
    except Exception as error:  # whatever Hydra and the check raise
        return f"{type(error).__name__}: {error}"
    return None


def _make(arguments: list[str]) -> str | None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    unknown = [word for word in arguments if "=" not in word and word not in targets]
    return f"the Makefile has no {', '.join(unknown)}" if unknown else None


def _pip(arguments: list[str]) -> str | None:
    known = set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE))
    for word in arguments[1:]:
        extras = re.fullmatch(r"(?:\.|gad-verl)\[([\w,]+)\]", word)
        if extras and set(extras[1].split(",")) - known:
            return f"setup.py has no extra {', '.join(sorted(set(extras[1].split(',')) - known))}"
        if word.startswith("gad-verl"):
            return "the package is in no registry yet: pip install '.[...]'"
        if word.endswith(".txt") and not (ROOT / word).is_file():
            return f"there is no file {word}"
    return None if arguments[0] == "install" else f"pip {arguments[0]} cannot be checked: mark the block"


def _script(arguments: list[str]) -> str | None:
    script = next((word for word in arguments if not word.startswith("-")), "")
    # What lies below build/ is a copy of a tool, made by a command above.
    if script.startswith("build/") and any((ROOT / "tools").glob(f"*/{Path(script).name}")):
        return None
    return None if (ROOT / script).is_file() else f"there is no script {script}"


def _ray(arguments: list[str]) -> str | None:
    import click
    from ray.scripts.scripts import cli

    command = cli.commands.get(arguments[0])
    if command is None:
        return f"ray has no command {arguments[0]}"
    try:
        command.make_context(arguments[0], list(arguments[1:]))
    except click.ClickException as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in SHELL], ids=str)
def test_commands_exist(block: Block) -> None:
    wrong = []
    for words in commands(block.text):
        program = next((word for word in words if not re.fullmatch(r"\w+=.*", word)), None)
        if block.not_run is not None and program not in PROGRAMS:
            continue
        if (what := problem(words)) is not None:
            wrong.append(f"{' '.join(words)}: {what}")
    assert wrong == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.language], ids=str)
def test_commands_in_indented_blocks_exist(block: Block) -> None:
    """Blocks without a language hold anything; lines that are commands are looked at."""
    text = block.text.replace("\\\n", " ")
    lines = [line for line in text.splitlines() if re.match(rf"({'|'.join(PROGRAMS)}) ", line)]
    found = [(words, problem(words)) for line in lines for words in commands(line)]
    assert [(words, what) for words, what in found if what is not None] == []


def test_every_block_says_what_it_is() -> None:
    """A language that no test knows would be a block that nobody checks."""
    known = SHELL | PYTHON | DATA | OTHER | {""}
    assert [str(block) for block in BLOCKS if block.language not in known] == []
    assert sum(block.language in SHELL for block in BLOCKS) > 20


def test_commands_do_not_hide_in_text() -> None:
    hidden = [
        f"{block}: {line}"
        for block in BLOCKS
        if block.language in OTHER
        for line in block.text.splitlines()
        if re.match(r"(gad-verl|python3? -m|make|pip install) ", line)
    ]
    assert hidden == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in DATA], ids=str)
def test_data_and_settings_can_be_read(block: Block) -> None:
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
        return
    try:
        assert json.loads(block.text)
    except json.JSONDecodeError:
        # Lines of JSONL.
        assert all(json.loads(line) for line in block.text.splitlines())


def test_commands_within_a_sentence_exist() -> None:
    wrong = []
    for page in PAGES:
        for words in re.findall(r"`gad-verl ((?:[a-z]+ ?)+)", page.read_text(encoding="utf-8")):
            command, *more = words.split()
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
                build_parser().parse_args([command, "--help"])
            if "invalid choice" in said.getvalue() or (
                more and command in ("data", "teacher") and more[0] not in said.getvalue()
            ):
                wrong.append(f"{page.name}: gad-verl {words}")
    assert wrong == []


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("gad-verl data split x.parquet --output y --no-such-option", "--no-such-option"),
        ("gad-verl nothing", "invalid choice"),
        ("python -m verl.trainer.main_ppo --config-name gad_cpu gad.no_such_key=1", "no_such_key"),
        ("python -m verl.trainer.main_ppo --config-name gad_cpu gad.stage=sometimes", "gad.stage must be one of"),
        ("python -m verl.trainer.main_ppo trainer.nnodes=1", "--config-name"),
        ("python examples/no_such_file.py", "no file"),
        ("python examples/gad_command.py --no-such-option 1", "--no-such-option"),
        ("make nothing", "Makefile"),
        ("pip install '.[nothing]'", "no extra"),
        ("ray start --no-such-option", "no-such-option"),
        ("bash recipes/gad/no_such_script.sh", "no script"),
        ("A=1 rocket --launch", "mark the block"),
    ],
)
def test_a_wrong_command_is_found(command: str, what: str) -> None:
    [words] = commands(command)
    assert what in (problem(words) or "")


def test_a_script_is_taken_apart() -> None:
    script = 'export A="${A:-2}"  # why\nfor x in a b; do\n    run --n "$((A + 1))" \\\n        "$x" > log 2>&1\n'
    script += "done && B=1 stop 'a>b'\n"
    assert list(commands(script)) == [
        ["export", "A=2"],
        ["for", "x", "in", "a", "b"],
        ["run", "--n", "1", "1"],
        ["B=1", "stop", "a>b"],
    ]
