#!/usr/bin/env bash
# The whole quickstart: student, teacher, GAD, SeqKD beside it, evaluation, table, page. Interrupt it at any time and
# start it again: every part goes on where it was. RUN=folder and CACHE=folder choose where things lie.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
RUN=$(mkdir -p "${RUN:-quickstart-run}" && cd "${RUN:-quickstart-run}" && pwd)
export GAD_VERL_CACHE=${CACHE:-${GAD_VERL_CACHE:-$HOME/.cache/gad_verl}}
# Small sizes for a CPU, also on a machine with GPUs.
export VERL_PLATFORM=cpu
export WARMUP_STEPS=${WARMUP_STEPS:-12}
export TOTAL_STEPS=${TOTAL_STEPS:-16}
# Two cores: generation, student and discriminator take turns.
export OMP_NUM_THREADS=${QUICKSTART_THREADS:-2}
# Whoever is interrupted says so.
trap 'exit 130' INT
INTERRUPTED="interrupted; the same command goes on where it stopped"
STARTED=$SECONDS

say() { printf '\n== %s\n' "$*"; }

# train METHOD STEPS: into RUN/METHOD
train() {
    local folder=$RUN/$1
    if [[ "$(cat "$folder/checkpoints/latest_checkpointed_iteration.txt" 2>/dev/null || true)" == "$2" ]]; then
        echo "already trained: $folder/checkpoints/global_step_$2"
        return
    fi
    mkdir -p "$folder"
    METHOD=$1 TOTAL_STEPS=$2 "$HERE/train.sh" "$RUN/student" "$RUN/data" "$folder" 2>&1 \
        | python "$HERE/progress.py" --log "$folder/train.log" --total-steps "$2" \
        || { echo "training failed; the end of $folder/train.log:"; tail -n 30 "$folder/train.log"; exit 1; }
}

# evaluate NAME CHECKPOINT: answers as the student writes them, and how far they are from the teacher's
evaluate() {
    gad-verl evaluate --model "$2" --data "$RUN/data/val.parquet" --output "$RUN/evaluations/$1" \
        --engine hf --batch-size 64 --temperature 1 --max-response-length 32 \
        --teacher-model "$RUN/student" --teacher-context "$RUN/data/context.json" --teacher-temperature 0.3 \
        > "$RUN/evaluations/$1.log" 2>&1 || { tail -n 5 "$RUN/evaluations/$1.log"; return 1; }
    echo "$1: done"
}

say "1/6 student: SmolLM2-135M-Instruct"
python "$HERE/student.py" --output "$RUN/student"

say "2/6 teacher: answers in one sentence, behind an OpenAI-compatible API"
python "$HERE/teacher.py" collect --output "$RUN/data"

say "3/6 training: $WARMUP_STEPS steps of warmup, then GAD up to step $TOTAL_STEPS"
train gad "$TOTAL_STEPS"

say "4/6 beside it: SeqKD, cross-entropy alone, on as many updates of the same student ($TOTAL_STEPS)"
train seqkd "$TOTAL_STEPS"

say "5/6 evaluation on held-out prompts: the texts, and the KL to the teacher"
mkdir -p "$RUN/evaluations"
# Two at a time, a thread each: small models leave a second thread idle.
(
    export OMP_NUM_THREADS=1
    # A shell's background jobs do not hear Ctrl-C, so the first two get a group of their own, and are told. What the
    # evaluations say then is in their logs.
    set -m
    { evaluate before "$RUN/student" && evaluate seqkd "$RUN/seqkd/checkpoints/global_step_$TOTAL_STEPS"; } &
    first=$!
    set +m
    trap 'trap "" INT; kill -INT -- -$first; wait $first; echo "$INTERRUPTED"; exit 130' INT
    evaluate after_warmup "$RUN/gad/checkpoints/global_step_$WARMUP_STEPS"
    evaluate after_gad "$RUN/gad/checkpoints/global_step_$TOTAL_STEPS"
    wait "$first"
)

say "6/6 the table, and the run on one page"
EVALUATIONS=("$RUN"/evaluations/{after_gad,before,after_warmup,seqkd})
gad-verl compare "${EVALUATIONS[@]}" --output "$RUN/evaluations/comparison"
python "$HERE/verdict.py" "$RUN/evaluations/comparison/comparison.json"
gad-verl report gad="$RUN/gad/checkpoints" seqkd="$RUN/seqkd/checkpoints" --evaluations "${EVALUATIONS[@]}" \
    --output "$RUN/report.html"

say "done in $(((SECONDS - STARTED) / 60)) minutes"
echo "student: gad-verl export $RUN/gad/checkpoints/global_step_$TOTAL_STEPS --output FOLDER"
echo "table:   $RUN/evaluations/comparison/comparison.md"
echo "page:    $RUN/report.html"
