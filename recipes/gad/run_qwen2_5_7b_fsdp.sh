#!/usr/bin/env bash
# GAD | Qwen2.5-7B-Instruct | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd trains the baseline, PRESET=recommended adds tools to the paper's settings, DRY_RUN=1 checks and starts nothing.
# A student of the paper.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B-Instruct}
MODEL_TAG=${MODEL_TAG:-qwen2_5_7b}
BACKEND=fsdp
# ---- end user-adjustable ----

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

launch "$@"
