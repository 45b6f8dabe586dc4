#!/usr/bin/env bash
# Where seconds are left: a GAD step against a GRPO step whose reward costs nothing, in turns, on vLLM and a random model.
#   bash $ROOT/kit/step.sh     after call 3        SIZE=0.5b STEPS=12: environment
set -uo pipefail
ROOT=$(realpath -m "${ROOT:-/tmp/gad_kit}") && export ROOT
# shellcheck source=tools/gpu_kit/device_env.sh
. "$ROOT/kit/device_env.sh"
export PYTHONPATH=$PYTHONPATH:$PRODUCT/benchmarks VERL_USE_EXTERNAL_MODULES=alternating_trainer GAD_BENCH_MODES=free,gad
run_ppo step 220 "$WORK/models/qwen2_${SIZE:-0.5b}" "$WORK/tiny" gad=paper actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.3 actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.ignore_eos=True data.train_batch_size=16 data.max_prompt_length=64 \
    data.max_response_length=512 actor_rollout_ref.rollout.max_model_len=640 gad.stage=gad gad.discriminator_head=fresh \
    trainer.total_training_steps="${STEPS:-12}" trainer.total_epochs=100 trainer.save_freq=-1 trainer.test_freq=-1
python3 - "$WORK/step/metrics.jsonl" <<'P'
import json
import statistics
import sys

rows = [json.loads(line)["data"] for line in open(sys.argv[1])]
rows = [row for row in rows if "bench/mode" in row][2:]
for number, name in ((0, "GRPO"), (1, "GAD")):
    mine = [row for row in rows if row["bench/mode"] == number]
    keys = "step gen reward old_log_prob ref update_actor update_weights".split()
    print(name, len(mine), {key: round(statistics.median(row.get(f"timing_s/{key}", 0) for row in mine), 2) for key in keys})
P
