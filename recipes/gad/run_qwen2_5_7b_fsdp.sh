#!/usr/bin/env bash
# GAD | Qwen2.5-7B-Instruct | FSDP training | vLLM rollout | one node with 8 GPUs of 80 GB
# Warmup and GAD in one launch, settings of the paper (config/gad_paper.yaml). NOT YET RUN ON GPUS: the memory settings
# below come from arithmetic (README.md, section "Memory").

set -xeuo pipefail

# ---- user-adjustable ----
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B-Instruct}
TRAIN_FILE=${TRAIN_FILE:-$HOME/data/lmsys_gpt5_chat/train.parquet}
TEST_FILE=${TEST_FILE:-$HOME/data/lmsys_gpt5_chat/test.parquet}
# columns of the files
PROMPT_KEY=${PROMPT_KEY:-content}
TEACHER_KEY=${TEACHER_KEY:-teacher_response}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}

TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-256}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-2048}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-1536}

ACTOR_LR=${ACTOR_LR:-1e-6}
# the authors use 5e-6 here when the teacher is Qwen2.5-14B
WARMUP_ACTOR_LR=${WARMUP_ACTOR_LR:-1e-6}
DISCRIMINATOR_LR=${DISCRIMINATOR_LR:-1e-6}

ROLLOUT_N=${ROLLOUT_N:-8}
ROLLOUT_TP=${ROLLOUT_TP:-1}
ROLLOUT_GPU_MEM_UTIL=${ROLLOUT_GPU_MEM_UTIL:-0.5}

# tokens of one micro-batch of the student
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-16384}
# tokens of one micro-batch of the discriminator: the longest group must fit, (8 + 1) x (2048 + 1536) = 32256
DISCRIMINATOR_MAX_TOKENS=${DISCRIMINATOR_MAX_TOKENS:-32768}

WARMUP_EPOCHS=${WARMUP_EPOCHS:-1.0}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-3}
SAVE_FREQ=${SAVE_FREQ:-50}
TEST_FREQ=${TEST_FREQ:-50}
# a checkpoint holds student, discriminator and both optimizers: about 150 GB (README.md, section "Disk")
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-10}
PROJECT_NAME=${PROJECT_NAME:-gad_verl}
EXPERIMENT_NAME=${EXPERIMENT_NAME:-gad_qwen2_5_7b}
CHECKPOINT_DIR=${CHECKPOINT_DIR:-checkpoints/${PROJECT_NAME}/${EXPERIMENT_NAME}}
LOGGER=${LOGGER:-'["console","tensorboard"]'}

# ---- end user-adjustable ----

RECIPE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

########################### parameter arrays ###########################

DATA=(
    data.train_files="${TRAIN_FILE}"
    data.val_files="${TEST_FILE}"
    data.prompt_key="${PROMPT_KEY}"
    gad.teacher_key="${TEACHER_KEY}"
    data.train_batch_size="${TRAIN_BATCH_SIZE}"
    data.max_prompt_length="${MAX_PROMPT_LENGTH}"
    data.max_response_length="${MAX_RESPONSE_LENGTH}"
)

MODEL=(
    actor_rollout_ref.model.path="${MODEL_PATH}"
    actor_rollout_ref.model.use_remove_padding=True
    actor_rollout_ref.model.enable_gradient_checkpointing=True
)

ACTOR=(
    actor_rollout_ref.actor.optim.lr="${ACTOR_LR}"
    gad.warmup.actor_lr="${WARMUP_ACTOR_LR}"
    actor_rollout_ref.actor.ppo_mini_batch_size="${PPO_MINI_BATCH_SIZE}"
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
    actor_rollout_ref.actor.fsdp_config.param_offload=False
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=False
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
    actor_rollout_ref.ref.fsdp_config.param_offload=True
)

ROLLOUT=(
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP}"
    actor_rollout_ref.rollout.gpu_memory_utilization="${ROLLOUT_GPU_MEM_UTIL}"
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
    actor_rollout_ref.rollout.n="${ROLLOUT_N}"
)

DISCRIMINATOR=(
    discriminator.optim.lr="${DISCRIMINATOR_LR}"
    discriminator.use_dynamic_bsz=True
    discriminator.ppo_max_token_len_per_gpu="${DISCRIMINATOR_MAX_TOKENS}"
    discriminator.model.enable_gradient_checkpointing=True
    discriminator.fsdp.param_offload=True
    discriminator.fsdp.optimizer_offload=True
)

TRAINER=(
    gad.warmup_epochs="${WARMUP_EPOCHS}"
    gad.keep_checkpoints="${KEEP_CHECKPOINTS}"
    trainer.total_epochs="${TOTAL_EPOCHS}"
    trainer.n_gpus_per_node="${NGPUS_PER_NODE}"
    trainer.nnodes="${NNODES}"
    trainer.save_freq="${SAVE_FREQ}"
    trainer.test_freq="${TEST_FREQ}"
    trainer.logger="${LOGGER}"
    trainer.project_name="${PROJECT_NAME}"
    trainer.experiment_name="${EXPERIMENT_NAME}"
    trainer.default_local_dir="${CHECKPOINT_DIR}"
)

########################### launch ###########################
python3 -m verl.trainer.main_ppo \
    --config-path "${RECIPE_DIR}/config" \
    --config-name gad_paper \
    "${DATA[@]}" \
    "${MODEL[@]}" \
    "${ACTOR[@]}" \
    "${ROLLOUT[@]}" \
    "${DISCRIMINATOR[@]}" \
    "${TRAINER[@]}" \
    "$@"
