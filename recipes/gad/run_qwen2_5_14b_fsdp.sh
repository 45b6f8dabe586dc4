#!/usr/bin/env bash
# GAD | Qwen2.5-14B-Instruct | FSDP training | vLLM rollout | two nodes with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# A student of the paper, which reports about 30 hours on 16 H100 with its own code.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-14B-Instruct}
MODEL_TAG=${MODEL_TAG:-qwen2_5_14b}
# paper: 16 GPUs; slurm.sbatch, or README.md, section "Several nodes"
NNODES=${NNODES:-2}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# estimate: 30 GB of weights would leave one GPU 10 GB for its KV cache
ROLLOUT_TP=${ROLLOUT_TP:-2}
# estimate: the logits of a micro-batch, in float32, beside 15 GB of training state
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-12288}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

launch "$@"
