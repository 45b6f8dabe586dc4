#!/usr/bin/env bash
# Evaluates every checkpoint of one or several runs, and the baselines, on every test set; compares them; names the one
# to take. The paper's protocol: greedy, at most 1536 new tokens, a judge that writes a reference and then rates.
#
#   MODELS="before=/models/Qwen2.5-7B-Instruct" \
#   RUNS="seqkd=checkpoints/gad_verl/seqkd_qwen2_5_7b gad=checkpoints/gad_verl/gad_qwen2_5_7b" \
#   TESTS="lmsys=data/lmsys_test.parquet dolly=data/dolly.parquet" \
#   JUDGE_BASE_URL=https://api.example.com/v1 JUDGE_MODEL=NAME \
#   bash recipes/gad/evaluate_sweep.sh [options of gad-verl evaluate]
#
# Interrupt it at any time: the same command goes on. What is finished is not looked at again. NOT YET RUN ON GPUS.

set -euo pipefail

# ---- user-adjustable ----
# NAME=FOLDER, separated by spaces: Hugging Face folders (the student before the training, other baselines). Differences
# are to the first one.
MODELS=${MODELS:-}
# NAME=FOLDER: folders with checkpoints global_step_N
RUNS=${RUNS:-}
# only checkpoints of these steps ("600 1200"), or of every so many steps; empty: all
STEPS=${STEPS:-}
EVERY=${EVERY:-}
# NAME=FILE: prompts that were not trained on, with a teacher's text each
TESTS=${TESTS:-lmsys=${HOME}/data/lmsys_gpt5_chat/test.parquet}
PROMPT_KEY=${PROMPT_KEY:-content}
TEACHER_KEY=${TEACHER_KEY:-teacher_response}
OUTPUT=${OUTPUT:-evaluations}

# paper: 1536 new tokens, greedy (the command's default)
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-2048}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-1536}
ENGINE=${ENGINE:-auto}
# GPUs of a model
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}
# precision of the exported checkpoints; a GPU computes in bfloat16 anyway
EXPORT_DTYPE=${EXPORT_DTYPE:-bfloat16}
# 1: leave the exported checkpoints where they are
KEEP_EXPORTS=${KEEP_EXPORTS:-0}

# An OpenAI-compatible API; empty: no judge. Its key is in the environment variable JUDGE_KEY_ENV. Paper: GPT-4o
JUDGE_BASE_URL=${JUDGE_BASE_URL:-}
JUDGE_MODEL=${JUDGE_MODEL:-}
JUDGE_KEY_ENV=${JUDGE_KEY_ENV:-OPENAI_API_KEY}
# opponents of the win rates, beside the paper's score: teacher, none, or NAME=FOLDER of another evaluation
AGAINST=${AGAINST:-teacher}
# ---- end user-adjustable ----

say() { echo "sweep $(date '+%F %T'): $*" >&2; }

# Ctrl-C ends the sweep, not one evaluation of it.
trap 'say "interrupted; the same command goes on"; exit 130' INT

pair() {
    if [[ $1 != *=* ]]; then
        say "$1: NAME=PATH is wanted"
        exit 2
    fi
    name=${1%%=*}
    path=${1#*=}
}

########################### what there is ###########################

# names[i] stands for the folder places[i]
names=()
places=()
for entry in ${MODELS}; do
    pair "${entry}"
    if [ ! -d "${path}" ]; then
        say "${path}: no such folder (MODELS)"
        exit 2
    fi
    names+=("${name}")
    places+=("${path}")
done
for entry in ${TESTS}; do
    pair "${entry}"
    if [ ! -f "${path}" ]; then
        say "${path}: no such file (TESTS)"
        exit 2
    fi
done
for entry in ${RUNS}; do
    pair "${entry}"
    if [ ! -d "${path}" ]; then
        say "${path}: no such folder (RUNS)"
        exit 2
    fi
    found=0
    # by rising step
    found_steps=$(find -L "${path}" -mindepth 1 -maxdepth 1 -type d -name 'global_step_*' |
        sed -n 's/.*global_step_\([0-9][0-9]*\)$/\1/p' | sort -n)
    for step in ${found_steps}; do
        if [ -n "${STEPS}" ] && [[ " ${STEPS} " != *" ${step} "* ]]; then continue; fi
        if [ -n "${EVERY}" ] && [ $((step % EVERY)) -ne 0 ]; then continue; fi
        # a checkpoint that is being written, or was cut off
        if [ ! -f "${path}/global_step_${step}/gad_complete" ]; then continue; fi
        names+=("${name}-step_${step}")
        places+=("${path}/global_step_${step}")
        found=$((found + 1))
    done
    say "${name}: ${found} checkpoints in ${path}"
done
if [ ${#names[@]} -eq 0 ]; then
    say "nothing to evaluate: set MODELS or RUNS"
    exit 2
fi

########################### evaluations ###########################

failed=()
for i in "${!names[@]}"; do
    model=${places[i]}
    export_folder=${OUTPUT}/exports/${names[i]}
    for entry in ${TESTS}; do
        pair "${entry}"
        folder=${OUTPUT}/${name}/${names[i]}
        options=(
            --data "${path}"
            --output "${folder}"
            --prompt-key "${PROMPT_KEY}"
            --teacher-key "${TEACHER_KEY}"
            --engine "${ENGINE}"
            --tensor-parallel "${TENSOR_PARALLEL}"
            --max-prompt-length "${MAX_PROMPT_LENGTH}"
            --max-response-length "${MAX_RESPONSE_LENGTH}"
        )
        if [ -n "${JUDGE_BASE_URL}${JUDGE_MODEL}" ]; then
            read -ra against <<<"${AGAINST}"
            options+=(
                --judge-base-url "${JUDGE_BASE_URL}"
                --judge-model "${JUDGE_MODEL}"
                --judge-key-env "${JUDGE_KEY_ENV}"
                # one file for all checkpoints: they are scored against the same references
                --judge-store "${OUTPUT}/${name}/judge.sqlite"
                --against "${against[@]}"
            )
        fi
        options+=("$@")
        # Finished with the same options on the same files.
        wanted=$({
            printf '%s\n' "${model}" "${options[@]}"
            stat -c %Y "${model}" "${path}"
        } | sha256sum)
        if [ -f "${folder}/sweep.done" ] && [ "$(cat "${folder}/sweep.done")" = "${wanted}" ]; then
            say "${names[i]} on ${name}: done before"
            continue
        fi
        source=${model}
        if [ -d "${model}/actor" ]; then
            source=${export_folder}
            if [ ! -f "${source}/config.json" ]; then
                say "${names[i]}: exporting"
                if ! gad-verl export "${model}" --output "${source}" --dtype "${EXPORT_DTYPE}"; then
                    failed+=("${names[i]} (export)")
                    break
                fi
            fi
        fi
        say "${names[i]} on ${name}: evaluating"
        if gad-verl evaluate --model "${source}" "${options[@]}"; then
            echo "${wanted}" >"${folder}/sweep.done"
        else
            failed+=("${names[i]} on ${name}")
        fi
    done
    if [ "${KEEP_EXPORTS}" != 1 ]; then rm -rf "${export_folder}"; fi
done

########################### comparison ###########################

for entry in ${TESTS}; do
    pair "${entry}"
    folders=()
    for i in "${!names[@]}"; do
        folder=${OUTPUT}/${name}/${names[i]}
        if [ -f "${folder}/sweep.done" ]; then folders+=("${folder}"); fi
    done
    if [ ${#folders[@]} -gt 0 ]; then
        say "${name}: comparison in ${OUTPUT}/comparison/${name}"
        if ! gad-verl compare "${folders[@]}" --output "${OUTPUT}/comparison/${name}"; then
            failed+=("comparison of ${name}")
        fi
    fi
done

if [ ${#failed[@]} -gt 0 ]; then
    say "failed: $(printf '%s; ' "${failed[@]}")the same command tries again"
    exit 1
fi
