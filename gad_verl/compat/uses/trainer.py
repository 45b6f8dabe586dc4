# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What the trainer and the data use."""

from gad_verl.compat.use import OVERRIDDEN, REPLACED, VerlUse

_V1 = "verl.trainer.ppo.v1"
_TRAINER = "verl.trainer.ppo.v1.trainer_base"

STEP = (
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "__init__(self, config) trainer_mode _setup(self) _init_dataloader(self) _init_resource_pool_mgr(self) "
        "train_dataset train_dataloader "
        "_build_replay_buffer(self) _load_checkpoint(self) _save_checkpoint(self) "
        "on_train_begin(self) on_validate_begin(self)",
        "set-up, stages, checkpoints and curves of a run",
        OVERRIDDEN,
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "init(self) fit(self, agent_loop_manager) get_reward_handles(self)",
        "stop file, watchdog and record begin and end here; no reward while the rollouts stream",
        OVERRIDDEN,
        read_in="verl.trainer.main_ppo",
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "step(self, metrics, timing_raw) _step_once(self, metrics, timing_raw, sample_batch_size) "
        "_compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) _validate(self) "
        "_log_rollout_data(self, batch, timing_raw, rollout_data_dir)",
        "guardian and stop file judge each step and each validation",
        OVERRIDDEN,
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "_fetch_one_gen_batch(self) _next_train_batch(self, num_prompts) _submit_batch_to_rollout(self, batch) "
        "_compute_reward_colocate(self, batch, metrics) "
        "_balance_batch(self, batch, metrics, logging_prefix, keep_minibatch) "
        "_compute_old_log_prob(self, batch, metrics) _compute_ref_log_prob(self, batch, metrics) "
        "_compute_values(self, batch, metrics) _compute_advantage(self, batch, metrics) "
        "_update_critic(self, batch, metrics) _update_actor(self, batch, metrics)",
        "the parts of a step: rows, reward, and what the supervised phases leave out",
        OVERRIDDEN,
    ),
    VerlUse(
        f"{_V1}.trainer_sync:PPOTrainerSync",
        "on_sample_end(self) on_step_end(self)",
        "stages begin while the rollout sleeps; no new weights for it where nothing is generated",
        OVERRIDDEN,
        read_in=_TRAINER,
    ),
    VerlUse(
        f"{_V1}.trainer_colocate_async:PPOTrainerColocateAsync",
        "on_sample_end(self) on_step_end(self) on_train_begin(self)",
        "the mode gad_colocate_async",
        OVERRIDDEN,
        read_in=_TRAINER,
    ),
    VerlUse(
        f"{_V1}.trainer_separate_async:PPOTrainerSeparateAsync",
        "_compute_old_log_prob(self, batch, metrics) _init_resource_pool_mgr(self) _setup(self) on_sample_end(self) "
        "on_step_end(self) on_train_begin(self) on_validate_begin(self)",
        "the mode gad_separate_async",
        OVERRIDDEN,
        read_in=_TRAINER,
    ),
    VerlUse(
        f"{_V1}.trainer_separate_async:PPOTrainerSeparateAsync",
        "__init__(self, config)",
        "the mode gad_separate_async",
        OVERRIDDEN,
        read_in="verl.trainer.main_ppo",
    ),
    VerlUse(
        f"{_V1}.trainer_separate_async:PPOTrainerSeparateAsync",
        "_enable_hybrid_replicas add_replicas_to_balancer(self) remove_replicas_from_balancer(self)",
        "a validation wants the memory of the training's devices",
    ),
    VerlUse(f"{_V1}.trainer_separate_async", "logger", "a call of it that is an error at the level INFO"),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "_add_prompts_to_generate(self, num_prompts) _restored_tq_prompt_count local_trigger_step parameter_sync_step "
        "ref_policy_wg",
        "prompts on their way, several updates a step, a reference with workers of its own",
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "checkpoint_manager",
        "a validation must not stop prompts that are on their way",
        REPLACED,
    ),
    VerlUse(
        f"{_V1}.replay_buffer:ReplayBuffer",
        "refill_fn",
        "groups that are thrown away are counted",
        REPLACED,
    ),
    VerlUse(
        "verl.checkpoint_engine.base:CheckpointEngineRegistry",
        "get(cls, backend)",
        "a weight transfer that is not there is refused before the run",
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "total_training_steps steps_per_epoch train_dataloader_it reward_loop_manager",
        "an early end, files that change, the discriminator as the reward",
        REPLACED,
    ),
    VerlUse(
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager",
        "reward_loop_worker_handles",
        "None opens the reward stage of the step",
        REPLACED,
        read_in=_TRAINER,
    ),
    VerlUse(
        f"{_TRAINER}:PPOTrainer",
        "config tokenizer processor logger global_steps use_critic use_reference_policy val_dataset actor_rollout_wg "
        "ref_in_actor llm_server_manager agent_loop_manager resource_pool_manager role_worker_mapping",
        "what the stages read",
    ),
    VerlUse(_TRAINER, "register_trainer(name)", "the trainer mode gad_sync"),
    VerlUse("verl.trainer.main_ppo", "", "entry point; `doctor --one-step` starts it"),
    VerlUse("verl.trainer.ppo.core_algos", "register_adv_est(name_or_enum)", "the estimator gad_process"),
    VerlUse(
        "verl.trainer.ppo.core_algos",
        "ADV_ESTIMATOR_REGISTRY POLICY_LOSS_REGISTRY kl_penalty(logprob, ref_logprob, kl_penalty)",
        "what the first update on scores looks up, before a run",
    ),
    VerlUse("verl.utils.import_utils", "import_external_libs(external_libs)", "the same"),
    VerlUse(
        f"{_V1}.replay_buffer:ReplayBuffer",
        "_wait_for_next_poll poll_interval",
        "a short poll that notices dead workers",
        REPLACED,
    ),
    VerlUse(f"{_V1}.replay_buffer:ReplayBuffer", "partitions finished_keys", "signs of life of the rollout"),
    VerlUse("verl.checkpoint_engine.base:CheckpointEngineManager", "sleep_replicas(self)", "SeqKD generates nothing"),
    VerlUse("verl.workers.rollout.llm_server:LLMServerManager", "server_handles", "watched by the watchdog"),
    VerlUse(
        "verl.experimental.agent_loop.agent_loop:AgentLoopManager", "agent_loop_workers", "watched by the watchdog"
    ),
    VerlUse(
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager",
        "compute_rm_score",
        "gad.reward.task_weight: verl's reward beside the discriminator's",
    ),
    VerlUse("verl", "DataProto(*, batch, non_tensor_batch)", "rows for verl's reward"),
    VerlUse(
        "verl.experimental.reward_loop.reward_loop", "migrate_legacy_reward_impl(config)", "verl's reward, before a run"
    ),
    VerlUse("verl.trainer.ppo.reward", "resolve_reward_manager_cls(config)", "verl's reward, before a run"),
    VerlUse(
        "verl.utils.reward_score",
        "default_compute_score(data_source, solution_str, ground_truth)",
        "verl's reward, before a run",
    ),
    VerlUse(
        "verl.utils.import_utils",
        "load_extern_object(*, module_path, object_name)",
        "a reward function of the user's, before a run",
    ),
    VerlUse("verl.utils.tracking:Tracking", "logger", "curves of a resumed run"),
    VerlUse("verl.utils.tracking:FileLogger", "fp", "curves of a resumed run"),
    VerlUse(
        "verl.trainer.ppo.utils",
        "need_critic(config) need_reference_policy(config)",
        "verl's own check of a configuration, before a run",
    ),
    VerlUse(
        "verl.utils.config",
        "validate_config(config, *, use_reference_policy, use_critic)",
        "verl's own check of a configuration, before a run",
    ),
    VerlUse("verl.utils.debug", "marked_timer(name, timing_raw, *, color)", "seconds among verl's"),
    VerlUse("verl.utils.metric", "reduce_metrics(metrics)", "metrics of the supervised steps"),
    VerlUse("verl.utils.py_functional", "rename_dict(data, prefix)", "metrics of the supervised steps"),
    VerlUse("verl.utils.model", "get_generation_config(model, *, trust_remote_code)", "tokens that end a text"),
)

TRANSFER_QUEUE = (
    VerlUse(
        "transfer_queue",
        "kv_batch_get(*, keys, partition_id, select_fields) kv_batch_put(*, keys, partition_id, fields, tags) "
        "kv_clear(*, keys, partition_id) kv_list(partition_id) "
        "KVBatchMeta(*, keys, tags, partition_id)",
        "rows of a step are read and rewards written",
    ),
    VerlUse(
        "transfer_queue.metadata:KVBatchMeta",
        "keys partition_id tags reorder(self, indexes)",
        "order of rows: a step must not depend on which rollout ended first",
    ),
)

_TOKENS = "verl.utils.tokenizer.continuous_token:ContinuousTokenBuilder"
_IMAGES = "prompts with images as rollouts have them"
_TRAJECTORIES = "trajectories of the teacher as rollouts have them"

DATA = (
    VerlUse(
        "verl.utils.tokenizer.continuous_token_wiring",
        "create_continuous_token_builder(tokenizer, *, hf_model_type, chat_template_kwargs, mm_processor_kwargs, "
        "processor)",
        "trajectories of the teacher, and prompts with images, as rollouts have them",
    ),
    VerlUse(_TOKENS, "build_initial_tokens(self, messages, *, images, mm_inputs_out)", _IMAGES),
    VerlUse(
        "verl.utils.tokenizer",
        "build_multimodal_processor_inputs(processor, *, text, images, mm_processor_kwargs) "
        "get_processor_token_id(processor, token_name) hf_processor(name_or_path, *, trust_remote_code)",
        _IMAGES,
    ),
    VerlUse(
        "verl.utils.dataset.rl_dataset:RLHFDataset",
        "_build_messages(self, example, key) _process_multi_modal_info(cls, messages, image_patch_size, config)",
        _IMAGES,
        OVERRIDDEN,
    ),
    VerlUse(
        _TOKENS,
        "merge_assistant_tokens(self, runtime_token_ids, assistant_token_ids) "
        "merge_context_tokens(self, previous_messages, updated_messages, runtime_token_ids, *, tools) "
        "align_response_metadata(self, merge_result, response_mask)",
        _TRAJECTORIES,
    ),
    VerlUse("verl.tools.tool_registry", "load_all_tools(*, tool_config_path, function_tool_path)", _TRAJECTORIES),
    VerlUse("verl.utils.import_utils", "resolve_config_path(config_path)", _TRAJECTORIES),
    VerlUse("verl.experimental.agent_loop.tool_parser", "FunctionCall(*, arguments, name)", "the student's calls"),
    VerlUse("verl.experimental.agent_loop.tool_parser:FunctionCall", "arguments name", "the student's calls"),
    VerlUse(
        "verl.experimental.agent_loop.agent_loop",
        "DictConfigWrap(*, config) ToolListWrap(tools)",
        "evaluation of students with tools",
    ),
    VerlUse("verl.experimental.agent_loop.tool_agent_loop", "ToolAgentLoop", "evaluation and collection with tools"),
    VerlUse(
        "verl.experimental.agent_loop.tool_agent_loop:ToolAgentLoop",
        "_call_tool(self, tool_call, tools_kwargs, agent_data)",
        "collection with tools",
    ),
    VerlUse(
        "verl.experimental.agent_loop.tool_parser:ToolParser",
        "_registry get_tool_parser(cls, name, tokenizer) extract_tool_calls(self, responses_ids, tools)",
        "the student's calls",
    ),
    VerlUse(
        "verl.utils.dataset.rl_dataset:RLHFDataset",
        "maybe_filter_out_long_prompts(self, dataframe) __getitem__(self, item)",
        "rows with an index and teacher texts that fit",
        OVERRIDDEN,
    ),
    VerlUse(
        "verl.utils.dataset.rl_dataset:RLHFDataset",
        "config dataframe image_key original_data_files prompt_key tokenizer",
        "rows of GAD, the curriculum's difficulty",
    ),
    VerlUse(
        "verl.trainer.ppo.utils",
        "create_rl_dataset(data_paths, data_config, tokenizer, processor, *, is_train, max_samples) "
        "create_rl_sampler(data_config, dataset)",
        "training files that change",
    ),
)
