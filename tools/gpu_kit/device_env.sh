# shellcheck shell=bash
# Sourced by the calls, on the GPU machine. ROOT holds what stays between the calls, OUT what is taken home.
# The calls change their folder.
OUT=$(realpath -m "${OUT:-$ROOT/out}")
export WORK=${WORK:-$ROOT/work} SITE=${SITE:-$ROOT/site} OUT
export PYTHONPATH=$SITE PRODUCT=${PRODUCT:-$SITE/product}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} PYTHONUNBUFFERED=1
export VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_LOGGING_LEVEL=WARNING
export RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
unset RAY_ADDRESS VERL_PLATFORM
mkdir -p "$WORK" "$OUT"

say() { printf '== %4d s  %s\n' "$SECONDS" "$*"; }
gad() { python3 -m gad_verl.cli "$@"; }

# verl's default attention where check_flash.py found it right, else torch's.
if [[ -e $WORK/flash_ok ]]; then : "${ATTENTION:=flash_attention_2}" "${PACKED:=True}"; fi
export GAD_BENCH_ATTENTION=${ATTENTION:-sdpa}
ONE_GPU=(
    trainer.nnodes=1 trainer.n_gpus_per_node=1
    ++actor_rollout_ref.model.override_config.attn_implementation="${ATTENTION:-sdpa}"
    actor_rollout_ref.model.use_remove_padding="${PACKED:-False}"
    actor_rollout_ref.actor.use_torch_compile=False
    actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
    actor_rollout_ref.ref.fsdp_config.use_torch_compile=False
    discriminator.fsdp.use_torch_compile=False
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    actor_rollout_ref.rollout.enforce_eager=True
    actor_rollout_ref.rollout.agent.num_workers=2
    reward.num_workers=1
    transfer_queue.backend.SimpleStorage.num_data_storage_units=1
    data.dataloader_num_workers=0
    trainer.val_before_train=False
    'trainer.logger=[console,file]'
)
CONFIG=gad_trainer

# SIMULATE=1: the same calls on a CPU, to see that they run.
if [[ ${SIMULATE:-} ]]; then
    export VERL_PLATFORM=cpu OMP_NUM_THREADS=1
    CONFIG=gad_cpu
fi

# Three steps of warmup, then GAD, on the tiny model of the tests. Read by the calls.
# shellcheck disable=SC2034
TINY=(
    gad=paper
    data.train_batch_size=8 data.max_prompt_length=64 data.max_response_length=16 data.shuffle=False
    actor_rollout_ref.rollout.n=4 actor_rollout_ref.rollout.max_model_len=128 actor_rollout_ref.actor.optim.lr=1e-3
    discriminator.optim.lr=1e-3 gad.warmup_steps=3 gad.discriminator_only_steps=1 trainer.test_freq=3
)

# run_ppo NAME LIMIT_S MODEL DATA overrides...: one run of main_ppo, its log and metrics under $WORK/NAME and in $OUT.
run_ppo() {
    local name=$1 limit=$2 model=$3 data=$4 begin=$SECONDS code=0
    shift 4
    mkdir -p "$WORK/$name"
    VERL_FILE_LOGGER_PATH=$WORK/$name/metrics.jsonl timeout --signal=INT --kill-after=20 "$((limit * ${SLOW:-1}))" \
        python3 -m verl.trainer.main_ppo --config-name "$CONFIG" \
        data.train_files="$data/train.parquet" data.val_files="$data/val.parquet" \
        actor_rollout_ref.model.path="$model" trainer.default_local_dir="$WORK/$name/checkpoints" \
        hydra.run.dir="$WORK/$name/hydra" "${ONE_GPU[@]}" "$@" >"$WORK/$name/log" 2>&1 || code=$?
    cp "$WORK/$name/metrics.jsonl" "$OUT/$name.jsonl" 2>/dev/null || true
    tail -c 1500000 "$WORK/$name/log" | gzip >"$OUT/$name.log.gz"
    echo "run $name: exit code $code, $((SECONDS - begin)) s, $(wc -l <"$WORK/$name/metrics.jsonl" 2>/dev/null || echo 0) lines of metrics"
    [[ $code == 0 ]] || tail -n 25 "$WORK/$name/log" | cut -c1-400
    return "$code"
}
