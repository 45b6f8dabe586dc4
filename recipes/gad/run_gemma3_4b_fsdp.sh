#!/usr/bin/env bash
# GAD | Gemma-3-4b-it, text alone | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model.
# The weights need Google's licence on the hub. google/gemma-3-1b-it has no images and the same settings.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-google/gemma-3-4b-it}
MODEL_TAG=${MODEL_TAG:-gemma3_4b}
# estimate: a vocabulary of 262,208 makes logits of 13 GB
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-12288}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

launch "$@"
