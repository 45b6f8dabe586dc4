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
"""``import gad_verl`` is cheap."""

import ast
import subprocess
import sys


def run(code: str) -> str:
    """Standard output of a fresh interpreter."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys
import gad_verl
print(sorted(name for name in ("torch", "verl", "ray", "hydra", "transformers", "pandas") if name in sys.modules))
print(gad_verl.Phase.WARMUP.value, set(gad_verl.__all__) - {"__version__"} == set(gad_verl._PUBLIC))
try:
    gad_verl.nonsense
except AttributeError as error:
    print(error)
"""
    heavy, public, error = run(code).splitlines()
    assert heavy == "[]" and public == "1 True" and "nonsense" in error


def test_the_plugin_brings_no_trainer_into_a_process_that_does_not_train() -> None:
    code = """
import os, sys
os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"
import verl
before = set(sys.modules)
import gad_verl.plugin
new = {name for name in set(sys.modules) - before}
print(sorted({name.split(".")[0] for name in new}))
print(sorted(name for name in new if name.startswith(("gad_verl.trainer", "gad_verl.discriminator", "gad_verl.data"))))
"""
    tops, ours = run(code).splitlines()[-2:]
    # psutil is Ray's too; wrapt waits for the import of verl's registries.
    assert set(ast.literal_eval(tops)) <= {"gad_verl", "wrapt", "psutil", "verl", "resource"}
    assert ours == "[]"
