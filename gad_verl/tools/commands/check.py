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
"""``gad-verl check``: the installed verl against what gad_verl uses of it."""

import argparse
import sys


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser("check", help="check the installed verl against what gad_verl uses of it")
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> None:
    import verl
    from verl.plugin.platform import get_platform

    from gad_verl import __version__, compat

    compat.check()
    sys.stdout.write(
        f"gad_verl {__version__} with verl {verl.__version__} on {get_platform().device_name}: everything that is "
        "used of verl is there\n"
    )
