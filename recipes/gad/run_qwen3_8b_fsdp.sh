#!/usr/bin/env bash
# GAD | Qwen3-8B, thinking off | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model.
# Evaluation and export follow the switch.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-8B}
MODEL_TAG=${MODEL_TAG:-qwen3_8b}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# thinking off: the teacher's texts show no thoughts
EXTRA=(+data.apply_chat_template_kwargs.enable_thinking=False)

launch "${EXTRA[@]}" "$@"
