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
"""What the quickstart's comparison says, in two sentences.

python examples/quickstart/verdict.py evaluations/comparison/comparison.json
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

logger = logging.getLogger("quickstart.verdict")

# Lower is nearer to the teacher.
KLS = {"kl_student_teacher": "KL(S, T)", "kl_teacher_student": "KL(T, S)"}
OTHERS = {"after_warmup": "the student after the warmup", "seqkd": "SeqKD of as many updates"}


def interval(figure: dict[str, float]) -> str:
    """A difference with its interval."""
    return f"{figure['value']:+.2f} [{figure['low']:+.2f}, {figure['high']:+.2f}]"


def verdict(comparison: dict[str, Any]) -> str:
    """Of the paired differences, which are those of the others to the student after GAD."""
    lines, ahead = [], {}
    for name, title in OTHERS.items():
        # The other's less GAD's, turned round.
        found = {
            label: {"value": -other["value"], "low": -other["high"], "high": -other["low"]}
            for key, label in KLS.items()
            for other in [comparison["differences"][name][key]]
        }
        ahead[name] = [label for label, gad in found.items() if gad["high"] < 0]
        behind = [label for label, gad in found.items() if gad["low"] > 0]
        said = [f"nearer to the teacher in {' and '.join(ahead[name])}"] if ahead[name] else []
        said += [f"farther from the teacher in {' and '.join(behind)}"] if behind else []
        claim = f"GAD is {', '.join(said)}" if said else "no difference can be told"
        shown = ", ".join(f"{label} {interval(gad)}" for label, gad in found.items())
        lines.append(f"Against {title}: {claim} ({shown} nats an answer).")
    if not ahead["seqkd"]:
        lines.append(
            "So simple a style is learned from the texts alone: here SeqKD would have done, at a fraction of the cost. "
            "Where GAD is ahead: make demo, docs/studies.md."
        )
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logger.info("%s", verdict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
