#!/usr/bin/env bash
# Call 2: the published method on vLLM, the doctor, and what the discriminator costs at real sizes.
#   bash kit2/call2.sh         after call 1, on the same machine
set -uo pipefail
ROOT=$(realpath -m "${ROOT:-/tmp/gad_kit}") && export ROOT
HERE=$(cd "$(dirname "$0")" && pwd)
python3 "$HERE/bundle.py" join "$ROOT/site" "$HERE" || exit 1
# shellcheck source=tools/gpu_kit/device_env.sh
. "$ROOT/kit/device_env.sh"
failed=()
python3 -m compileall -q -j 0 "$SITE/vllm" "$SITE/openai" >/dev/null 2>&1 || true

say "a run with vLLM"
run_ppo vllm 200 "$WORK/tiny/model" "$WORK/tiny" actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.3 "${TINY[@]}" trainer.save_freq=6 trainer.total_training_steps=6 \
    || failed+=(run)
python3 "$ROOT/kit/look.py" vllm "$WORK/vllm/metrics.jsonl" || failed+=(metrics)

say "doctor"
timeout 60 python3 -m gad_verl.cli doctor --config-name "$CONFIG" data.train_files="$WORK/tiny/train.parquet" \
    data.val_files="$WORK/tiny/val.parquet" actor_rollout_ref.model.path="$WORK/tiny/model" \
    trainer.default_local_dir="$WORK/doctor" "${ONE_GPU[@]}" "${TINY[@]}" >"$OUT/doctor.txt" 2>&1
grep -vE "^ok" "$OUT/doctor.txt" | tail -n 12 | cut -c1-200

# measure LIMIT_S WHAT SIZE options...
measure() {
    say "$2 $3"
    (cd "$PRODUCT" && timeout "$1" python3 benchmarks/sizes.py "$2" "$3" --repeats 5 --models "$WORK/models" \
        --output "$OUT/gpu_$2_$3.json" "${@:4}" 2>"$WORK/measure.err") || { failed+=("$2 $3"); tail -n 5 "$WORK/measure.err"; }
}
measure 90 schemes 0.5b
measure 100 sharing 0.5b --prompts 4 --response 256
measure 120 schemes 1.5b
[[ ${MORE:-} ]] && measure 200 schemes 7b --prompts 4
say "end of call 2: ${failed[*]:-all as it should be}"
exit $((${#failed[@]} > 0))
