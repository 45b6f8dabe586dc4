#!/usr/bin/env bash
# Call 3: a real student (SmolLM2-135M-Instruct) learns from a real teacher's texts, warmup and GAD, on vLLM; its answers.
#   bash kit3/call3.sh         after call 2, on the same machine        STEPS, WARMUP, LIMIT (seconds), PRESET: environment
set -uo pipefail
ROOT=$(realpath -m "${ROOT:-/tmp/gad_kit}") && export ROOT
HERE=$(cd "$(dirname "$0")" && pwd)
python3 "$HERE/bundle.py" join "$ROOT/site" "$HERE" || exit 1
cp "$HERE/step.sh" "$ROOT/kit/"
# shellcheck source=tools/gpu_kit/device_env.sh
. "$ROOT/kit/device_env.sh"
[[ -e $SITE/data/train.parquet ]] || { echo "no rows were packed (prepare.py --rows)"; exit 1; }
WARMUP=${WARMUP:-20} STEPS=${STEPS:-100} LIMIT=${LIMIT:-270} PRESET=${PRESET:-recommended}

say "student"
GAD_VERL_CACHE=$SITE/model python3 "$PRODUCT/examples/quickstart/student.py" --output "$WORK/student" 2>&1 | tail -n 2
say "training: $WARMUP steps of warmup, GAD ($PRESET) up to step $STEPS, at most $LIMIT s"
# The stop file ends a run in order: what was reached is saved.
(sleep $((LIMIT - 30)) && touch "$WORK/real/checkpoints/stop") &
timer=$!
run_ppo real "$LIMIT" "$WORK/student" "$SITE/data" actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.3 actor_rollout_ref.rollout.n=8 data.train_batch_size=64 \
    data.max_prompt_length=160 data.max_response_length=128 actor_rollout_ref.rollout.max_model_len=288 \
    gad="$PRESET" actor_rollout_ref.actor.optim.lr=5e-6 gad.warmup.actor_lr=2e-5 discriminator.optim.lr=1e-5 \
    discriminator.optim.clip_grad=0.2 gad.warmup_steps="$WARMUP" gad.discriminator_only_steps=2 \
    trainer.total_training_steps="$STEPS" trainer.total_epochs=100 trainer.save_freq="$WARMUP" trainer.test_freq=-1
kill $timer 2>/dev/null
python3 "$ROOT/kit/look.py" real "$WORK/real/metrics.jsonl" | awk 'NR % 5 == 1 { print; next } { last = $0 } END { print last }'

say "answers of the student as it was, after the warmup, and at the end"
last=$(find "$WORK/real/checkpoints" -maxdepth 1 -name "global_step_*" | sort -V | tail -n 1)
for model in "$WORK/student" "$WORK/real/checkpoints/global_step_$WARMUP" "$last"; do
    timeout 60 python3 -m gad_verl.cli evaluate --model "$model" --data "$SITE/data/val.parquet" \
        --output "$WORK/evaluation/$(basename "$model")" --engine hf --batch-size 128 --max-prompt-length 160 \
        --max-response-length 128 2>&1 | tail -n 1 &
done
wait
gad compare "$WORK"/evaluation/* 2>/dev/null | tail -n 12
# The page (gad-verl report) is made at home: its package is not carried.
(cd "$WORK" && tar czf "$OUT/real.tgz" evaluation real/checkpoints/record)
say "end of call 3"
