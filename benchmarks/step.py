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
"""A GAD step against the same GRPO step with a free reward, in the real trainer, step by step in turns.

python benchmarks/step.py                          # writes benchmarks/results/step.json and prints the table

Four runs of ``verl.trainer.main_ppo``: a discriminator of the student's size, one of about a tenth, one of the
student's size on a pool of its own (a second process), there with and without overlap, and one in which the student
learns from scores, from scores and texts, and from texts alone in turns.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from alternating_trainer import BOTH, FREE, GAD, MODES, OVERLAP, SCORES, SEQUENTIAL, TEXTS
from common import Ratio, arguments, machine, table, write
from device import measure_the_cpu
from schemes import build_model_folder

ROLLOUTS, RESPONSE, PROMPTS = 8, 64, 4
STUDENT = (256, 6)
SMALL = (128, 2)

COLUMNS = {
    "case": "discriminator",
    "numerator": "step",
    "denominator": "over step",
    "time_ratio": "time",
    "predicted": "predicted",
}


@dataclass(frozen=True)
class Case:
    """A run and the ratios to read off it (numerator, denominator)."""

    name: str
    small: bool
    own_pool: bool
    modes: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...]


CASES = (
    Case("student's size, shared pool", False, False, (FREE, GAD), ((GAD, FREE),)),
    Case("a tenth, shared pool", True, False, (FREE, GAD), ((GAD, FREE),)),
    Case(
        "student's size, own pool",
        False,
        True,
        (FREE, SEQUENTIAL, OVERLAP),
        ((SEQUENTIAL, FREE), (OVERLAP, FREE), (OVERLAP, SEQUENTIAL)),
    ),
    Case("a tenth, shared pool", True, False, (SCORES, BOTH, TEXTS), ((BOTH, SCORES), (TEXTS, SCORES))),
)


def run(case: Case, folder: Path, repeats: int, quick: bool, threads: int) -> list[dict]:
    """Metrics of all steps but the first round."""
    response, prompts = (8, 2) if quick else (RESPONSE, PROMPTS)
    steps = (repeats + 1) * len(case.modes)
    log = folder / f"{CASES.index(case)}.jsonl"
    command = [
        *(sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", "gad_cpu", "gad=paper"),
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"data.train_batch_size={prompts}",
        "data.max_prompt_length=64",
        f"data.max_response_length={response}",
        f"actor_rollout_ref.model.path={folder / 'student'}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
        f"actor_rollout_ref.rollout.n={ROLLOUTS}",
        # The random student must not stop early: every rollout has its full length.
        "actor_rollout_ref.rollout.ignore_eos=True",
        f"discriminator.model.path={folder / ('small' if case.small else 'student')}",
        "gad.stage=gad",
        "gad.discriminator_head=fresh",
        "gad.discriminator_share_prompt=never",
        f"gad.discriminator_n_gpus_per_node={int(case.own_pool)}",
        f"ray_kwargs.ray_init.num_gpus={1 + int(case.own_pool)}",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=100",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=False",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"hydra.run.dir={folder / 'hydra'}",
    ]
    if SCORES in case.modes:
        # What is known is set by the mode; few rows are enough for that.
        command += ["gad.trust.held_out_fraction=0.25", "gad.trust.least_prompts=2", "gad.trust.otherwise=supervised"]
        command += ["gad.warmup.actor_lr=1e-5", "algorithm.norm_adv_by_std_in_grpo=False"]
    environment = {
        **os.environ,
        "VERL_USE_EXTERNAL_MODULES": "alternating_trainer",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "GAD_BENCH_MODES": ",".join(case.modes),
        "VERL_FILE_LOGGER_PATH": str(log),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"{case.name}: the run failed\n{(done.stdout + done.stderr)[-3000:]}")
    lines = [json.loads(line)["data"] for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "bench/mode" in line][len(case.modes) :]


def of_mode(steps: list[dict], mode: str) -> list[dict]:
    return [step for step in steps if step["bench/mode"] == MODES.index(mode)]


def predict(case: Case, steps: list[dict], numerator: str, denominator: str) -> float | str:
    """From the times of the student's own parts in the steps with a free reward, or from scores alone.

    Old and reference log-probabilities are a forward each and the update three, over n rollouts: five forwards f. The
    discriminator reads n + 1 sequences in three, so 3 (n + 1) / n f, a tenth of it where it is a tenth of the size.
    With overlap, what runs beside the log-probabilities and the update costs nothing, which on two cores it can. A
    text is one row more in the student's update; texts alone need none of the five forwards, and three over one row.
    """
    base = of_mode(steps, SCORES if SCORES in case.modes else FREE)
    mean = {key: sum(step[f"timing_s/{key}"] for step in base) / len(base) for key in ("step", "update_actor")}
    log_probs = sum(step["timing_s/old_log_prob"] + step["timing_s/ref"] for step in base) / len(base)
    forward = (log_probs + mean["update_actor"]) / 5
    work = 3 * (ROLLOUTS + 1) / ROLLOUTS * forward * (0.1 if case.small else 1.0)
    texts = 3 * forward / ROLLOUTS
    seconds = {
        FREE: mean["step"],
        GAD: mean["step"] + work,
        SEQUENTIAL: mean["step"] + work,
        OVERLAP: mean["step"] + max(0.0, work - log_probs),
        SCORES: mean["step"],
        BOTH: mean["step"] + texts,
        TEXTS: mean["step"] - 5 * forward + texts,
    }
    return seconds[numerator] / seconds[denominator]


def main() -> None:
    measure_the_cpu()
    options = arguments(__doc__, "step.json").parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from tiny_model import build_all

        build_all(folder, train_rows=64, val_rows=4)
        build_model_folder(folder / "student", *((64, 2) if options.quick else STUDENT))
        build_model_folder(folder / "small", *((32, 1) if options.quick else SMALL))
        for case in CASES:
            steps = run(case, folder, options.repeats, options.quick, options.threads)
            for numerator, denominator in case.ratios:
                times = [[step["timing_s/step"] for step in of_mode(steps, mode)] for mode in (numerator, denominator)]
                rows.append(
                    {
                        "case": case.name,
                        "numerator": numerator,
                        "denominator": denominator,
                        "time_ratio": Ratio.of(*times),
                        "predicted": predict(case, steps, numerator, denominator),
                        "seconds": {
                            key: round(sum(step.get(key, 0.0) for step in of_mode(steps, numerator)) / len(times[0]), 4)
                            for key in (
                                "timing_s/step",
                                "timing_s/gen",
                                "timing_s/reward",
                                "timing_s/old_log_prob",
                                "timing_s/ref",
                                "timing_s/adv",
                                "timing_s/update_actor",
                                "timing_s/wait_discriminator_step",
                                "timing_s/update_weights",
                                "disc/busy_s",
                                "disc/wait_scores_s",
                            )
                        },
                    }
                )
    settings = {"student": STUDENT, "small": SMALL, "rollouts": ROLLOUTS, "response": RESPONSE, "prompts": PROMPTS}
    write(options.output, rows, settings | {"repeats": options.repeats} | machine(options.threads))
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
