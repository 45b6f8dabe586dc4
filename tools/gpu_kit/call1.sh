#!/usr/bin/env bash
# Call 1: what came is unpacked; workers and rollout against plain transformers; a run with the rollout hf, resumed, exported.
#   bash kit1/call1.sh         exit code 0: all of it is as it should be        OUT=folder: what to take home
set -uo pipefail
ROOT=$(realpath -m "${ROOT:-/tmp/gad_kit}") && export ROOT
HERE=$(cd "$(dirname "$0")" && pwd)
echo "== machine"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
python3 -c "import sys, torch; print(sys.version.split()[0], torch.__version__, torch.version.cuda, torch.cuda.is_available() and torch.cuda.get_device_name())"
if [[ ! ${SIMULATE:-} ]] && ! python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "python3 here ($(command -v python3)) has no torch that sees a GPU; with SIMULATE=1 this call runs on a CPU"
    exit 1
fi
nproc
df -h "$(dirname "$ROOT")" | tail -1

echo "== $SECONDS s  unpack"
python3 "$HERE/bundle.py" join "$ROOT/site" "$HERE" || exit 1
rm -rf "$ROOT/kit" && cp -r "$HERE" "$ROOT/kit"
# shellcheck source=tools/gpu_kit/device_env.sh
. "$ROOT/kit/device_env.sh"
failed=()
# Ray waits 15 s for a helper process of its own: the first import must not have to compile.
python3 -m compileall -q -j 0 "$SITE" >/dev/null 2>&1 || true
python3 - <<'P'
import importlib.metadata as m
for name in "verl ray transformers tensordict TransferQueue gad_verl flash-attn numpy torch".split():
    try:
        print(name, m.version(name), end="; ")
    except m.PackageNotFoundError:
        print(name, "none", end="; ")
print()
P

if [[ ! ${SIMULATE:-} ]]; then
    say "flash-attn's interface on torch's kernels"
    timeout 90 python3 "$ROOT/kit/check_flash.py" >"$OUT/flash.txt" 2>&1 && touch "$WORK/flash_ok"
    tail -n 2 "$OUT/flash.txt"
fi

say "workers and rollout (in the background), and a run with the rollout hf"
python3 "$PRODUCT/tests/tools/tiny_model.py" "$WORK/tiny" 2>/dev/null || exit 1
# The first run has torch's attention, the later calls flash attention where it is right.
(
    cd "$PRODUCT" && GAD_TEST_DEVICE=$([[ ${SIMULATE:-} ]] && echo cpu || echo cuda) timeout $((240 * ${SLOW:-1})) \
        python3 -m pytest -q -p no:cacheprovider --junitxml="$OUT/workers.xml" ${TESTS:+-k "$TESTS"} tests/gpu
) >"$OUT/workers.txt" 2>&1 &
workers=$!
run_ppo hf 150 "$WORK/tiny/model" "$WORK/tiny" actor_rollout_ref.rollout.name=hf "${TINY[@]}" trainer.save_freq=3 \
    trainer.total_training_steps=6 || failed+=(run)
say "the same run goes on (steps 7 and 8)"
run_ppo hf 120 "$WORK/tiny/model" "$WORK/tiny" actor_rollout_ref.rollout.name=hf "${TINY[@]}" trainer.save_freq=3 \
    trainer.total_training_steps=8 || failed+=(resume)
python3 "$ROOT/kit/look.py" hf "$WORK/hf/metrics.jsonl" || failed+=(metrics)
wait $workers || failed+=(workers)
say "workers and rollout: $(tail -n 1 "$OUT/workers.txt")"
grep -E "^(FAILED|ERROR|E  )" "$OUT/workers.txt" | head -30
say "export"
timeout $((60 * ${SLOW:-1})) python3 -m gad_verl.cli export "$WORK/hf/checkpoints/global_step_6" --output "$WORK/hf/exported" \
    --part both >"$OUT/export.txt" 2>&1 || failed+=(export)
tail -n 2 "$OUT/export.txt"
say "end of call 1: ${failed[*]:-all as it should be}"
exit $((${#failed[@]} > 0))
