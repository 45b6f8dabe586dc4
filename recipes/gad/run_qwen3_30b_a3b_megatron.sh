#!/usr/bin/env bash
# GAD | Qwen3-30B-A3B (mixture of experts) | Megatron training | vLLM rollout | four nodes with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model. Experts were checked by their configuration alone, never run.
# The weights of July 2025 answer without thinking, as the teacher's texts do. For Qwen/Qwen3-30B-A3B itself add
# gad.thinking.mode=off; gad-verl evaluate follows it.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-30B-A3B-Instruct-2507}
MODEL_TAG=${MODEL_TAG:-qwen3_30b_a3b}
# estimate: 31 billion parameters twice
NNODES=${NNODES:-4}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# the layout that verl's own example for this model uses
TP=${TP:-4}
PP=${PP:-1}
EP=${EP:-8}
ETP=${ETP:-1}
ACTOR_OFFLOAD=${ACTOR_OFFLOAD:-True}
# estimate: 61 GB of weights
ROLLOUT_TP=${ROLLOUT_TP:-4}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=megatron
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# the router's choice in float32, as in verl's example
EXTRA=(
    +actor_rollout_ref.actor.megatron.override_transformer_config.moe_router_dtype=fp32
    +discriminator.megatron.override_transformer_config.moe_router_dtype=fp32
)

launch "${EXTRA[@]}" "$@"
