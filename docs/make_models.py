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
"""Measures which families can be student and discriminator, and writes docs/models.md.

python docs/make_models.py                      # measures every family (minutes), writes docs/models.json and the page
python docs/make_models.py --families llama     # measures some and puts them into the rows
python docs/make_models.py --rollouts           # measures vLLM's rollout of the families in ROLLOUTS, a process each
python docs/make_models.py --page               # writes the page from the rows
python docs/make_models.py --families llama --rows FILE   # writes rows elsewhere and no page

Tiny random models (tests/tools/tiny_families.py), real workers of one rank on a CPU, one process for all.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROWS, PAGE = DOCS / "models.json", DOCS / "models.md"
BEGIN = "<!-- BEGIN families: written by docs/make_models.py, do not edit by hand -->"
END = "<!-- END families -->"
_TESTS = DOCS.parent / "tests"
HEAD = {
    "name": "family",
    "model_type": "`model_type`",
    "form": "discriminator",
    "attention": "attention",
    "student": "student learns",
    "discriminator": "scores and gradient",
    "layers": "first layers",
    "packed": "packed rows",
    "shared": "shared prompt",
    "shared_flash": "shared, flash attention",
    "resume": "save and load",
    "export": "export",
    "lora": "LoRA",
    "vllm": "in vLLM's list",
    "rollout": "vLLM's rollout",
}
# Families whose rollout by vLLM's CPU build is measured; the others are looked up in its list.
ROLLOUTS = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "qwen3_5",
    "gemma3",
    "gemma3_text",
    "olmo2",
    "granite",
    "gpt_oss",
    "smollm3",
)
NOT_RUN = "not run"
_ROLLOUT_TIMEOUT_S = 600


def measure_families(names: list[str]) -> dict[str, dict[str, str]]:
    """Rows of the page by model_type."""
    sys.path[:0] = [str(_TESTS / folder) for folder in ("tools", "discriminator")]
    import family_probe
    from tiny_families import FAMILIES, build_family

    family_probe.prepare_process()
    archs = vllm_architectures()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="families_") as root:
        for name in names or list(FAMILIES):
            family = FAMILIES[name]
            # verl prints.
            with contextlib.redirect_stdout(io.StringIO()):
                folder = build_family(family, Path(root) / name)
                row = {"name": family.name, "model_type": name, **describe(folder)}
                row |= family_probe.measure(folder)
            architecture = row.pop("architecture")
            row["vllm"] = "yes" if architecture in archs else "no"
            rows[name] = row
            print(name, {key: value for key, value in row.items() if value != "yes"}, file=sys.stderr, flush=True)
    return rows


def measure_rollouts(names: list[str]) -> dict[str, str]:
    """What vLLM on this CPU does after two updates of the weights, by model_type."""
    sys.path[:0] = [str(_TESTS / folder) for folder in ("tools", "discriminator")]
    import family_probe
    import vllm_probe
    from tiny_families import FAMILIES

    family_probe.prepare_process()
    found = {}
    for name in names or ROLLOUTS:
        with tempfile.TemporaryDirectory(prefix="rollout_") as root:
            # verl prints.
            with contextlib.redirect_stdout(io.StringIO()):
                folders = [
                    vllm_probe.build_vllm_family(FAMILIES[name], Path(root) / str(seed), seed) for seed in (0, 1)
                ]
                sent = [vllm_probe.sent_weights(folder) for folder in folders]
            found[name] = vllm_probe.measure(folders, sent, Path(root), _ROLLOUT_TIMEOUT_S)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def describe(folder: Path) -> dict[str, str]:
    """Form of the discriminator, attention where SDPA is asked for, and the student's class."""
    from transformers import AutoConfig

    from gad_verl.discriminator.form import attention_for, discriminator_form, language_model_class

    config = AutoConfig.from_pretrained(folder)
    form = discriminator_form(config)
    return {
        "form": "token classifier" if form.is_classifier else "LM head",
        "attention": str(attention_for(form.model_class, "sdpa")),
        "architecture": language_model_class(config).__name__,
    }


def vllm_architectures() -> set[str]:
    """Classes that the installed vLLM knows by name; nothing is run."""
    from vllm.model_executor.models.registry import ModelRegistry

    return set(ModelRegistry.get_supported_archs())


def make_table(rows: dict[str, dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEAD.values()) + " |", "|" + "---|" * len(HEAD)]
    for row in rows.values():
        cells = [f"`{row[key]}`" if key == "model_type" else str(row[key]).replace("|", "\\|") for key in HEAD]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def make_page(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=[], help="model types; none means all")
    parser.add_argument("--rollouts", action="store_true", help="measure vLLM's rollouts and nothing else")
    parser.add_argument("--page", action="store_true", help="write the page from the rows and measure nothing")
    parser.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    kept = json.loads(arguments.rows.read_text(encoding="utf-8")) if arguments.rows.is_file() else {}
    if arguments.rollouts:
        for name, cell in measure_rollouts(arguments.families).items():
            kept.setdefault(name, {})["rollout"] = cell
    elif not arguments.page:
        found = measure_families(arguments.families)
        order = list(dict.fromkeys([*kept, *found])) if arguments.families else list(found)
        before = {name: row.get("rollout", NOT_RUN) for name, row in kept.items()}
        kept = {name: found.get(name) or kept[name] for name in order}
        for name in found:
            kept[name]["rollout"] = before.get(name, NOT_RUN)
    if not arguments.page:
        arguments.rows.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.rows == ROWS:
        PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8"), make_table(kept)), encoding="utf-8")


if __name__ == "__main__":
    main()
