#!/usr/bin/env bash
# Warmup and GAD of SmolLM2-135M-Instruct on a CPU: train.sh STUDENT_FOLDER DATA_FOLDER RUN_FOLDER [overrides]
# METHOD=seqkd trains it on the same texts without discriminator and rollouts.
# This is the cluster command with the configuration gad_cpu and small sizes.
set -euo pipefail

STUDENT=$1
DATA_FOLDER=$2
RUN=$3
shift 3

METHOD=${METHOD:-gad}
WARMUP_STEPS=${WARMUP_STEPS:-12}
TOTAL_STEPS=${TOTAL_STEPS:-16}

export HF_HUB_OFFLINE=1
export TOKENIZERS_PARALLELISM=false
# Many threads, each with an arena of its own, would hold on to memory that others could use.
export MALLOC_ARENA_MAX=2
export VERL_FILE_LOGGER_PATH="$RUN/metrics.jsonl"
mkdir -p "$RUN"

# Hydra reads any text in quotes; of others, "=" or "ü" in the name of a folder is none.
text() {
    local quote="'" escaped="\\'"
    printf "'%s'" "${1//$quote/$escaped}"
}

case "$METHOD" in
gad)
    GAD=(
        gad.warmup_steps="$WARMUP_STEPS"
        # Student and discriminator learn from the first step on, so that SeqKD beside it sees the same texts in the same order.
        gad.discriminator_only_steps=0
        actor_rollout_ref.actor.optim.lr=1e-5
        # Three of eight prompts, and the latest sixteen of them: a student that learns so fast makes older evidence stale.
        gad.trust.held_out_fraction=0.375
        gad.trust.window=16
    )
    ;;
seqkd)
    # The rollout engine only validates: transformers' starts sooner.
    ROLLOUT_NAME=hf
    GAD=(gad.stage=seqkd)
    ;;
*)
    echo "METHOD=$METHOD: gad or seqkd" >&2
    exit 2
    ;;
esac

DATA=(
    data.train_files="$(text "$DATA_FOLDER/train.parquet")"
    data.val_files="$(text "$DATA_FOLDER/val.parquet")"
    data.val_max_samples=32
    data.train_batch_size=8
    data.max_prompt_length=96
    data.max_response_length=32
    data.seed=1
)

MODEL=(
    actor_rollout_ref.model.path="$(text "$STUDENT")"
)

ACTOR=(
    # of the warmup, of SeqKD, and of what GAD learns from texts
    gad.warmup.actor_lr=5e-5
    actor_rollout_ref.actor.optim.clip_grad=1.0
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024
)

ROLLOUT=(
    actor_rollout_ref.rollout.name="${ROLLOUT_NAME:-vllm}"
    actor_rollout_ref.rollout.n=4
    actor_rollout_ref.rollout.temperature=0.8
    actor_rollout_ref.rollout.max_model_len=160
)

DISCRIMINATOR=(
    discriminator.optim.lr=3e-5
    discriminator.ppo_max_token_len_per_gpu=1024
    gad.discriminator_num_layers=6
)

TRAINER=(
    trainer.total_training_steps="$TOTAL_STEPS"
    trainer.total_epochs=100
    trainer.save_freq="$WARMUP_STEPS"
    trainer.test_freq=8
    trainer.default_local_dir="$(text "$RUN/checkpoints")"
    trainer.experiment_name="quickstart-$METHOD"
)

exec python -m verl.trainer.main_ppo --config-name gad_cpu \
    "${DATA[@]}" "${MODEL[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${DISCRIMINATOR[@]}" "${GAD[@]}" "${TRAINER[@]}" "$@"
