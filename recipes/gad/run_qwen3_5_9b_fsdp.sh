#!/usr/bin/env bash
# GAD | Qwen3.5-9B, thinking off, text alone | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model.
# Most of its layers are linear attention, which reads packed rows as one: rows are padded. Evaluation and export follow
# the switch of the template. Qwen/Qwen3.5-4B has the same settings.
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3.5-9B}
MODEL_TAG=${MODEL_TAG:-qwen3_5_9b}
# docs/models.md: linear attention would carry one row into the next
REMOVE_PADDING=${REMOVE_PADDING:-False}
# estimate: a vocabulary of 248,320 makes logits of 8 GB
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-8192}
# estimate: one layer in four keeps keys and values
ROLLOUT_GPU_MEM_UTIL=${ROLLOUT_GPU_MEM_UTIL:-0.4}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# thinking off: the teacher's texts show no thoughts
EXTRA=(+data.apply_chat_template_kwargs.enable_thinking=False)

launch "${EXTRA[@]}" "$@"
