#!/usr/bin/env bash
# GAD | Qwen2.5-3B-Instruct | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# A student of the paper.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-3B-Instruct}
MODEL_TAG=${MODEL_TAG:-qwen2_5_3b}
# estimate: 3.1 billion parameters leave room for longer micro-batches; NGPUS_PER_NODE=4 fits too
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-24576}
ROLLOUT_GPU_MEM_UTIL=${ROLLOUT_GPU_MEM_UTIL:-0.6}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

launch "$@"
