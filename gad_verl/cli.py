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
"""The command ``gad-verl``."""

import argparse
import atexit
import io
import logging
import os
import select
import sys
from collections.abc import Sequence

from gad_verl import __version__
from gad_verl.errors import USER_ERRORS, GadConfigError

# Commands and options that have another name.
RENAMED = {
    "check": "doctor",
    "data preflight": "data leaks",
    "doctor --dry-run": "doctor --one-step",
    "doctor --dry-run-timeout": "doctor --timeout",
}

# The shell's code of a process that Ctrl-C ended.
INTERRUPTED = 130
# As a shell says it of what SIGPIPE has ended.
NO_READER = 141


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    # Here and not above: Ctrl-C while these are read is caught by main.
    from gad_verl.tools.commands import compare, data, doctor, estimate, evaluate, export, guardian, report, teacher

    parser = argparse.ArgumentParser(prog="gad-verl", description="Tools around GAD training with verl.")
    parser.add_argument("--version", action="version", version=f"gad-verl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (teacher, data, export, evaluate, compare, guardian, report, estimate, doctor):
        module.add_to(commands)
    return parser


def _refuse_renamed(argv: Sequence[str]) -> None:
    for old, new in RENAMED.items():
        command, _, part = old.partition(" ")
        # A tool is the second word; an option may stand anywhere.
        words = [word.partition("=")[0] for word in argv[1:]] if part.startswith("-") else argv[1:2]
        if list(argv[:1]) == [command] and (not part or part in words):
            raise GadConfigError(f"gad-verl {old} is now gad-verl {new}")


def _has_no_reader() -> bool:
    """Whether who read the standard output has gone. Another pipe may break too: one to a process of ours that died."""
    watched = select.poll()
    try:
        watched.register(sys.stdout.fileno(), 0)
    except OSError:  # no file
        return False
    return any(event & select.POLLERR for _, event in watched.poll(0))


def _drop_output() -> None:
    """What the standard output did not take is tried, and complained of, once more when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for an error that the user can mend, 130 for Ctrl-C.

    141 is for a reader of the output that has gone, such as ``head``. A command may return a code of its own, such as 1
    for a threshold that was passed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files, and texts of a model, may be no text of the terminal's encoding. stderr does so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_renamed(sys.argv[1:] if argv is None else argv)
        arguments = build_parser().parse_args(argv)
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except USER_ERRORS as error:
        sys.stderr.write(f"gad-verl: {error}\n")
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            _drop_output()
            return NO_READER
        # No permission, no space left: for the user to mend.
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"gad-verl: {where}{' '.join(str(error.strerror or error).split())}\n")
        _drop_output()
        return 2
    except KeyboardInterrupt:
        # Libraries that were interrupted as they were loaded say things at the end of the process.
        atexit.register(logging.disable)
        sys.stderr.write("gad-verl: interrupted; the same command goes on where it stopped, where it stores progress\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
