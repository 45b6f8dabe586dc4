#!/usr/bin/env bash
# GAD, asynchronous | Qwen2.5-7B-Instruct | FSDP training on one node, vLLM rollout on another, 8 GPUs of 80 GB each
# The rollout never waits for the training, nor the training for the slowest answers (docs/async.md of gad_verl).
# PRESET=recommended: and gad_trainer's objective. METHOD=seqkd and soda are refused: their steps that learn generate
# nothing. DRY_RUN=1: check only.
# A student of the paper, which trained synchronously.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this script; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B-Instruct}
MODEL_TAG=${MODEL_TAG:-qwen2_5_7b_async}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# nodes that generate, beside NNODES that train; a launcher names all of them (CLUSTER_NNODES), and the rest trains
ROLLOUT_NNODES=${ROLLOUT_NNODES:-1}
ROLLOUT_NGPUS_PER_NODE=${ROLLOUT_NGPUS_PER_NODE:-${NGPUS_PER_NODE:-8}}
# estimate: no training state beside the engines
ROLLOUT_GPU_MEM_UTIL=${ROLLOUT_GPU_MEM_UTIL:-0.85}
# updates of student and discriminator between two sets of weights for the rollout; one is the paper's step
SYNC_STEP=${SYNC_STEP:-1}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
PPO_MINI_BATCH_SIZE=$((TRAIN_BATCH_SIZE / SYNC_STEP))
# batches of prompts that are on their way when a step begins
PREFETCH=${PREFETCH:-1}
# oldest weights, in steps, that may have begun a group of answers
MAX_AGE=${MAX_AGE:-8}
# over the network between the nodes
WEIGHTS_BY=${WEIGHTS_BY:-nccl}
# ---- end user-adjustable ----

if [ -n "${CLUSTER_NNODES:-}" ]; then
    NNODES=$((CLUSTER_NNODES - ROLLOUT_NNODES))
    if [ "${NNODES}" -lt 1 ]; then
        echo "${CLUSTER_NNODES} nodes, and ROLLOUT_NNODES=${ROLLOUT_NNODES} of them generate: none is left to train" >&2
        exit 2
    fi
fi

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ASYNC=(
    +gad_mode=async
    trainer.v1.trainer_mode=gad_separate_async
    trainer.v1.separate_async.parameter_sync_step="${SYNC_STEP}"
    trainer.v1.separate_async.num_warmup_batches="${PREFETCH}"
    trainer.v1.sampler.max_off_policy_threshold="${MAX_AGE}"
    # no engine on the GPUs that train
    actor_rollout_ref.hybrid_engine=False
    actor_rollout_ref.rollout.nnodes="${ROLLOUT_NNODES}"
    actor_rollout_ref.rollout.n_gpus_per_node="${ROLLOUT_NGPUS_PER_NODE}"
    actor_rollout_ref.rollout.checkpoint_engine.backend="${WEIGHTS_BY}"
)

launch "${ASYNC[@]}" "$@"
