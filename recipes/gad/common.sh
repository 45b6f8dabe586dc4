#!/usr/bin/env bash
# What all run scripts share: the settings that are the same for every student, and the start. Sourced, not started.
# Each upper-case variable can be set from outside; Hydra overrides after the name of a script come last and win.
# "paper" marks what the paper (arXiv 2511.10643) or its authors' scripts say, "reference" an independent replication,
# "estimate" our arithmetic (README.md, section "Memory"). NOT YET RUN ON GPUS.

# ---- user-adjustable ----
# gad: warmup, then GAD, in one launch; seqkd: the baseline, cross-entropy on the teacher's text; soda: a snapshot of
# the student's answers, SeqKD, then DPO against it (docs/methods.md)
METHOD=${METHOD:-gad}
# paper: the authors' settings; recommended: and the objective of gad_trainer (gad_verl/config/gad/recommended.yaml);
# persistent: and past pairs in the place of fresh ones (gad_verl/config/gad/persistent.yaml)
PRESET=${PRESET:-paper}
# 1: compose, check, print the settings, and start nothing
DRY_RUN=${DRY_RUN:-0}
PYTHON=${PYTHON:-python3}

# data of the paper, written to files as README.md says
TRAIN_FILE=${TRAIN_FILE:-${HOME}/data/lmsys_gpt5_chat/train.parquet}
TEST_FILE=${TEST_FILE:-${HOME}/data/lmsys_gpt5_chat/test.parquet}
# columns of these files
PROMPT_KEY=${PROMPT_KEY:-content}
TEACHER_KEY=${TEACHER_KEY:-teacher_response}

# paper: 256 prompts a step, one optimizer step
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-${TRAIN_BATCH_SIZE}}
# paper
ROLLOUT_N=${ROLLOUT_N:-8}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-2048}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-1536}

# paper: 1e-6 for GAD, 5e-6 for SeqKD
if [ "${METHOD}" = seqkd ]; then ACTOR_LR=${ACTOR_LR:-5e-6}; else ACTOR_LR=${ACTOR_LR:-1e-6}; fi
# paper: 1e-6; with Qwen2.5-14B-Instruct as the teacher 5e-6
if [ "${PRESET}" = recommended ]; then WARMUP_ACTOR_LR=${WARMUP_ACTOR_LR:-5e-6}; fi
WARMUP_ACTOR_LR=${WARMUP_ACTOR_LR:-1e-6}
# paper
DISCRIMINATOR_LR=${DISCRIMINATOR_LR:-1e-6}
# paper: the student's own weights with a new head, also the best size in its ablation
DISCRIMINATOR_PATH=${DISCRIMINATOR_PATH:-${MODEL_PATH}}

# paper: one epoch of warmup (its first 10 steps for the discriminator alone) and two of GAD; SeqKD three
WARMUP_EPOCHS=${WARMUP_EPOCHS:-1.0}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-3}

# reference: one GPU per engine was 1.9 times as fast as the authors' two
ROLLOUT_TP=${ROLLOUT_TP:-1}
# estimate: training state of the student stays on the GPU beside it
ROLLOUT_GPU_MEM_UTIL=${ROLLOUT_GPU_MEM_UTIL:-0.5}

# estimate: tokens of one micro-batch of the student; at least a prompt and a response
ACTOR_MAX_TOKENS=${ACTOR_MAX_TOKENS:-16384}
# tokens of one micro-batch of the discriminator: the longest group, one teacher and ROLLOUT_N students, fits
DISCRIMINATOR_MAX_TOKENS=${DISCRIMINATOR_MAX_TOKENS:-$(((ROLLOUT_N + 1) * (MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)))}

# False where rows of the family cannot be packed (docs/models.md)
REMOVE_PADDING=${REMOVE_PADDING:-True}
# attention of student and discriminator, where flash attention, verl's default, is not for the family
ATTENTION=${ATTENTION:-}

# estimate: what waits in the memory of the host while it is not used
ACTOR_OFFLOAD=${ACTOR_OFFLOAD:-False}
REFERENCE_OFFLOAD=${REFERENCE_OFFLOAD:-True}
DISCRIMINATOR_OFFLOAD=${DISCRIMINATOR_OFFLOAD:-True}

# estimate: GPUs of 80 GB
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}

# paper: every 50 steps; a resumed run trains the steps after the last checkpoint again
SAVE_FREQ=${SAVE_FREQ:-50}
TEST_FREQ=${TEST_FREQ:-50}
# a checkpoint holds student, discriminator and both optimizers (README.md, section "Disk")
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-10}
# auto: the same command goes on from the last checkpoint
RESUME_MODE=${RESUME_MODE:-auto}
PROJECT_NAME=${PROJECT_NAME:-gad_verl}
EXPERIMENT_NAME=${EXPERIMENT_NAME:-${METHOD}_${MODEL_TAG}$([ "${PRESET}" = paper ] || echo "_${PRESET}")}
# with several nodes on a file system that all of them share
CHECKPOINT_DIR=${CHECKPOINT_DIR:-${PWD}/checkpoints/${PROJECT_NAME}/${EXPERIMENT_NAME}}
# "file" is what gad-verl report reads
LOGGER=${LOGGER:-'["console","file","tensorboard"]'}

# Megatron only. Tensor, pipeline, context and expert parallelism of student, reference and discriminator
TP=${TP:-1}
PP=${PP:-1}
CP=${CP:-1}
EP=${EP:-1}
ETP=${ETP:-1}
# FSDP only: fsdp or fsdp2
FSDP_STRATEGY=${FSDP_STRATEGY:-fsdp}
# ---- end user-adjustable ----

RECIPE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

########################### parameter arrays ###########################

# A text as Hydra reads any: in its grammar "=", ",", brackets and "ü" are more, or nothing. A list, null and what has
# quotes already stay as they are.
text() {
    local quote="'" escaped="\\'"
    case $1 in
    "["*"]" | "'"*"'" | '"'*'"' | null) printf '%s' "$1" ;;
    *) printf "'%s'" "${1//${quote}/${escaped}}" ;;
    esac
}

DATA=(
    data.train_files="$(text "${TRAIN_FILE}")"
    data.val_files="$(text "${TEST_FILE}")"
    data.prompt_key="$(text "${PROMPT_KEY}")"
    gad.teacher_key="$(text "${TEACHER_KEY}")"
    data.train_batch_size="${TRAIN_BATCH_SIZE}"
    data.max_prompt_length="${MAX_PROMPT_LENGTH}"
    data.max_response_length="${MAX_RESPONSE_LENGTH}"
)

MODEL=(
    actor_rollout_ref.model.path="$(text "${MODEL_PATH}")"
    actor_rollout_ref.model.use_remove_padding="${REMOVE_PADDING}"
    actor_rollout_ref.model.enable_gradient_checkpointing=True
)
if [ -n "${ATTENTION}" ]; then
    MODEL+=("++actor_rollout_ref.model.override_config.attn_implementation=${ATTENTION}")
fi

ACTOR=(
    actor_rollout_ref.actor.optim.lr="${ACTOR_LR}"
    actor_rollout_ref.actor.ppo_mini_batch_size="${PPO_MINI_BATCH_SIZE}"
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
)

ROLLOUT=(
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.n="${ROLLOUT_N}"
    actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP}"
    actor_rollout_ref.rollout.gpu_memory_utilization="${ROLLOUT_GPU_MEM_UTIL}"
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${ACTOR_MAX_TOKENS}"
)

DISCRIMINATOR=(
    discriminator.model.path="$(text "${DISCRIMINATOR_PATH}")"
    discriminator.model.enable_gradient_checkpointing=True
    discriminator.optim.lr="${DISCRIMINATOR_LR}"
    discriminator.use_dynamic_bsz=True
    discriminator.ppo_max_token_len_per_gpu="${DISCRIMINATOR_MAX_TOKENS}"
)

TRAINER=(
    gad.keep_checkpoints="${KEEP_CHECKPOINTS}"
    gad.stop_file="$(text "${GAD_STOP_FILE:-null}")"
    trainer.total_epochs="${TOTAL_EPOCHS}"
    trainer.n_gpus_per_node="${NGPUS_PER_NODE}"
    trainer.nnodes="${NNODES}"
    trainer.save_freq="${SAVE_FREQ}"
    trainer.test_freq="${TEST_FREQ}"
    trainer.resume_mode="${RESUME_MODE}"
    trainer.logger="${LOGGER}"
    trainer.project_name="$(text "${PROJECT_NAME}")"
    trainer.experiment_name="$(text "${EXPERIMENT_NAME}")"
    trainer.default_local_dir="$(text "${CHECKPOINT_DIR}")"
    # metrics and curves lie with the checkpoints, whichever node the trainer runs on
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_ROOT="$(text "${CHECKPOINT_DIR}")"
    +ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR="$(text "${CHECKPOINT_DIR}/tensorboard")"
)

########################### the engine ###########################

case ${BACKEND} in
fsdp)
    CONFIG_NAME=gad_paper
    ENGINE=(
        actor_rollout_ref.actor.strategy="${FSDP_STRATEGY}"
        actor_rollout_ref.actor.fsdp_config.param_offload="${ACTOR_OFFLOAD}"
        actor_rollout_ref.actor.fsdp_config.optimizer_offload="${ACTOR_OFFLOAD}"
        actor_rollout_ref.ref.fsdp_config.param_offload="${REFERENCE_OFFLOAD}"
        discriminator.strategy="${FSDP_STRATEGY}"
        discriminator.fsdp.param_offload="${DISCRIMINATOR_OFFLOAD}"
        discriminator.fsdp.optimizer_offload="${DISCRIMINATOR_OFFLOAD}"
    )
    ;;
megatron)
    CONFIG_NAME=gad_paper_megatron
    # The reference takes the layout of the actor.
    ENGINE=(actor_rollout_ref.ref.megatron.param_offload="${REFERENCE_OFFLOAD}")
    for part in actor_rollout_ref.actor discriminator; do
        if [ "${part}" = discriminator ]; then offload=${DISCRIMINATOR_OFFLOAD}; else offload=${ACTOR_OFFLOAD}; fi
        ENGINE+=(
            "${part}.megatron.tensor_model_parallel_size=${TP}"
            "${part}.megatron.pipeline_model_parallel_size=${PP}"
            "${part}.megatron.context_parallel_size=${CP}"
            "${part}.megatron.expert_model_parallel_size=${EP}"
            "${part}.megatron.expert_tensor_parallel_size=${ETP}"
            "${part}.megatron.param_offload=${offload}"
            "${part}.megatron.optimizer_offload=${offload}"
            # every layer is computed again in the backward pass: Megatron's form of gradient checkpointing
            "${part}.megatron.override_transformer_config.recompute_granularity=full"
            "${part}.megatron.override_transformer_config.recompute_method=uniform"
            "${part}.megatron.override_transformer_config.recompute_num_layers=1"
        )
    done
    ;;
*)
    echo "BACKEND=${BACKEND}: fsdp or megatron" >&2
    exit 2
    ;;
esac

########################### method and preset ###########################

case ${METHOD} in
gad)
    STAGES=(
        gad.stage=auto
        gad.warmup_epochs="${WARMUP_EPOCHS}"
        gad.warmup.actor_lr="${WARMUP_ACTOR_LR}"
    )
    case ${PRESET} in
    paper) ;;
    # The paper's file, which is composed later, names the division by the spread and carries the optimizer on: the
    # preset's choices, with which it was measured, are said again.
    recommended)
        STAGES+=(
            gad=recommended
            algorithm.norm_adv_by_std_in_grpo=False
            gad.reset_optimizer_at_switch=True
        )
        ;;
    persistent) STAGES+=(gad=persistent gad.reset_optimizer_at_switch=False) ;;
    *)
        echo "PRESET=${PRESET}: paper, recommended or persistent" >&2
        exit 2
        ;;
    esac
    ;;
seqkd)
    # No discriminator, no KL loss and so no reference model; the rollout serves validation only. Presets do not differ.
    STAGES=(
        gad.stage=seqkd
        actor_rollout_ref.actor.use_kl_loss=False
    )
    ;;
soda)
    # One epoch each for the snapshot, SeqKD at its rate of the paper, and preferences. The rate and gad.soda.beta of
    # the last are estimates: of the paper of SODA the abstract alone was read.
    STAGES=(
        gad.stage=soda
        gad.warmup_epochs="${WARMUP_EPOCHS}"
        gad.warmup.actor_lr="${SEQKD_LR:-5e-6}"
    )
    ;;
*)
    echo "METHOD=${METHOD}: gad, seqkd or soda" >&2
    exit 2
    ;;
esac

########################### launch ###########################

# The arguments of launch come last, so they win.
launch() {
    local entry=(verl.trainer.main_ppo)
    if [ "${DRY_RUN}" = 1 ]; then entry=(gad_verl.cli doctor --plan); fi
    "${PYTHON}" -m "${entry[@]}" \
        --config-path "${RECIPE_DIR}/config" \
        --config-name "${CONFIG_NAME}" \
        "${DATA[@]}" \
        "${MODEL[@]}" \
        "${ACTOR[@]}" \
        "${ROLLOUT[@]}" \
        "${DISCRIMINATOR[@]}" \
        "${TRAINER[@]}" \
        "${ENGINE[@]}" \
        "${STAGES[@]}" \
        "$@"
}
