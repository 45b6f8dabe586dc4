#!/usr/bin/env bash
# GAD | gpt-oss-20b (experts), no thoughts | FSDP training | vLLM rollout | two nodes with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model.
# The published weights are quantized: write them in bfloat16 first (README.md, section "gpt-oss"). Its answers begin in
# the channel "final" (config/gpt_oss_final.jinja): the teacher's texts show no thoughts.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-${HOME}/models/gpt-oss-20b-bf16}
MODEL_TAG=${MODEL_TAG:-gpt_oss_20b}
# estimate: 21 billion parameters twice
NNODES=${NNODES:-2}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
ACTOR_OFFLOAD=${ACTOR_OFFLOAD:-True}
# docs/models.md: transformers has no SDPA for it. eager needs no kernel of the hub, and reads no packed rows
ATTENTION=${ATTENTION:-eager}
REMOVE_PADDING=${REMOVE_PADDING:-False}
# estimate: scores of two rows in 64 heads are 6.6 GB a layer; the groups of the discriminator are read in two passes
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-7168}
DISCRIMINATOR_MAX_TOKENS=${DISCRIMINATOR_MAX_TOKENS:-7168}
# estimate: 42 GB of weights
ROLLOUT_TP=${ROLLOUT_TP:-2}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

template=$(<"${RECIPE_DIR}/config/gpt_oss_final.jinja")
EXTRA=(
    actor_rollout_ref.model.custom_chat_template="'${template}'"
    discriminator.model.custom_chat_template="'${template}'"
)

launch "${EXTRA[@]}" "$@"
