#!/usr/bin/env bash
# GAD | Qwen2.5-VL-7B-Instruct, rows with images | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# METHOD=seqkd: the baseline. PRESET=recommended: and gad_trainer's objective. DRY_RUN=1: check and start nothing.
# No student of the paper: its settings on another model. TRAIN_FILE and TEST_FILE need a column of images
# (docs/images.md).
# NOT YET RUN ON GPUS: sizes come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable: what is particular to this student; common.sh has the rest ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-VL-7B-Instruct}
MODEL_TAG=${MODEL_TAG:-qwen2_5_vl_7b}
# column of the images
IMAGE_KEY=${IMAGE_KEY:-images}
# estimate: 1280 tokens of 28 x 28 pixels for an image; a prompt of one fits, tokens and text
MAX_PIXELS=${MAX_PIXELS:-1003520}
# shellcheck disable=SC2034  # read by common.sh
BACKEND=fsdp
# ---- end user-adjustable ----

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

EXTRA=(
    data.image_key="${IMAGE_KEY}"
    # the same for student, discriminator and rollout: nobody else sets the size of an image
    +data.mm_processor_kwargs.max_pixels="${MAX_PIXELS}"
)

launch "${EXTRA[@]}" "$@"
