#!/usr/bin/env bash
# The whole quickstart: student, teacher, training, export, table, page. Interrupt it at any time and start it again:
# every part goes on where it was. RUN=folder and CACHE=folder choose where things lie.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
RUN=$(mkdir -p "${RUN:-quickstart-run}" && cd "${RUN:-quickstart-run}" && pwd)
export GAD_VERL_CACHE=${CACHE:-${GAD_VERL_CACHE:-$HOME/.cache/gad_verl}}
export WARMUP_STEPS=${WARMUP_STEPS:-20}
export TOTAL_STEPS=${TOTAL_STEPS:-32}
# Two cores: generation, student and discriminator take turns.
export OMP_NUM_THREADS=${QUICKSTART_THREADS:-2}
CHECKPOINTS=$RUN/checkpoints
# Whoever is interrupted says so.
trap 'exit 130' INT
STARTED=$SECONDS

say() { printf '\n== %s\n' "$*"; }

say "1/5 student: SmolLM2-135M-Instruct"
python "$HERE/student.py" --output "$RUN/student"

say "2/5 teacher: answers in one sentence, behind an OpenAI-compatible API"
python "$HERE/teacher.py" collect --output "$RUN/data"

say "3/5 training: $WARMUP_STEPS steps of warmup, then GAD up to step $TOTAL_STEPS"
if [[ "$(cat "$CHECKPOINTS/latest_checkpointed_iteration.txt" 2>/dev/null || true)" == "$TOTAL_STEPS" ]]; then
    echo "already trained: $CHECKPOINTS/global_step_$TOTAL_STEPS"
else
    "$HERE/train.sh" "$RUN/student" "$RUN/data" "$RUN" 2>&1 \
        | python "$HERE/progress.py" --log "$RUN/train.log" --total-steps "$TOTAL_STEPS" \
        || { echo "training failed; the end of $RUN/train.log:"; tail -n 30 "$RUN/train.log"; exit 1; }
fi

say "4/5 export"
for step in "$WARMUP_STEPS" "$TOTAL_STEPS"; do
    [[ -d "$RUN/exported/step_$step" ]] \
        || gad-verl export "$CHECKPOINTS/global_step_$step" --output "$RUN/exported/step_$step" 2>/dev/null
done

say "5/5 evaluation on held-out prompts"
python "$HERE/evaluate.py" --val "$RUN/data/val.parquet" --output "$RUN/evaluation" --max-new-tokens 96 \
    --checkpoints before="$RUN/student" after_warmup="$RUN/exported/step_$WARMUP_STEPS" \
    after_gad="$RUN/exported/step_$TOTAL_STEPS"

say "the run on one page"
gad-verl report quickstart="$CHECKPOINTS" --output "$RUN/report.html"

say "done in $(((SECONDS - STARTED) / 60)) minutes"
echo "table: $RUN/evaluation/table.md"
echo "page:  $RUN/report.html"
