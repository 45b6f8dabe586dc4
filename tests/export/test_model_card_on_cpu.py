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
"""Model cards: what is known stands in them, what is not is called unknown, and nothing else gets in."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from doc_blocks import blocks
from huggingface_hub import ModelCard
from omegaconf import DictConfig, open_dict
from peft import LoraConfig, TaskType, get_peft_model
from run_folders import build_discriminator, last_values, save_part, write_run
from tiny_model import build_model, build_rows
from transformers import AutoModelForCausalLM

from gad_verl import cli
from gad_verl.core.schedule import Phase, StageSchedule
from gad_verl.record.files import plain
from gad_verl.record.redaction import without_secrets
from gad_verl.tools.api import Endpoint
from gad_verl.tools.data.writing import sha256
from gad_verl.tools.export.card.data_facts import read_data_facts
from gad_verl.tools.export.card.other_options import other_options
from gad_verl.tools.export.card.page import Exported, collect_facts, write_card
from gad_verl.tools.export.card.request import CardRequest, is_hub_name
from gad_verl.tools.export.card.run_facts import RunFacts, read_run_facts
from gad_verl.tools.export.card.stages import phases_of
from gad_verl.tools.export.reward_model import Scoring
from gad_verl.tools.export.weights import export_part
from gad_verl.tools.teacher.prompts import Framing
from gad_verl.tools.teacher.settings import CollectSettings, Teacher
from gad_verl.trainer.checkpoints import read_state

SECRET = "hf_" + "Q7" * 12
METRICS = {7: {"disc/accuracy": 0.625, "gad/length_ratio": 1.5}, 8: {"disc/accuracy": 0.99}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, _tiny_base: DictConfig) -> Path:
    """``data/`` with cards, ``run/global_step_7`` with its record, ``source``: the model that it began with."""
    root = tmp_path_factory.mktemp("cards")
    source = build_model(root / "source", layers=1)
    data = root / "data"
    data.mkdir()
    rows = [
        {"instruction": row["prompt"][0]["content"], "response": row["teacher_response"]} for row in build_rows(9, 1)
    ]
    pd.DataFrame(rows).to_json(data / "raw.jsonl", orient="records", lines=True)
    imported = ["data", "import", str(data / "raw.jsonl"), "--output", str(data / "all.parquet")]
    assert cli.main([*imported, "--teacher", "a | teacher"]) == 0
    assert cli.main(["data", "normalize", str(data / "all.parquet"), "--output", str(data / "train.parquet")]) == 0
    config = _tiny_base.copy()
    with open_dict(config):
        config.data.train_files = "../data/train.parquet"
        config.actor_rollout_ref.model.path = config.discriminator.model.path = "organisation/model-1B"
        config.gad.replay.capacity_steps = 5
        config.gad.reward.malformed_pattern = f"/home/somebody/private {SECRET}"
        config.trainer.total_training_steps = None
        config.actor_rollout_ref.actor.optim.lr = 2.5e-6
    checkpoint = write_run(root / "run", config, 7, metrics=METRICS)
    save_part(checkpoint / "actor", AutoModelForCausalLM.from_pretrained(source), source)
    save_part(checkpoint / "discriminator", build_discriminator(source), source)
    return root


@pytest.fixture(scope="module")
def exported(root: Path) -> Path:
    options = ["--license", "apache-2.0", "--dataset", "organisation/texts"]
    command = ["export", str(root / "run" / "global_step_7"), "--part", "both", "--output", str(root / "exported")]
    assert cli.main([*command, *options]) == 0
    return root / "exported"


@pytest.mark.parametrize(
    ("part", "pipeline"), [("student", "text-generation"), ("discriminator", "text-classification")]
)
def test_the_front_matter_is_read_back_by_the_library(exported: Path, part: str, pipeline: str) -> None:
    data = ModelCard.load(exported / part / "README.md").data.to_dict()
    assert data["license"] == "apache-2.0" and data["library_name"] == "transformers"
    assert data["base_model"] == "organisation/model-1B" and data["base_model_relation"] == "finetune"
    assert data["datasets"] == ["organisation/texts"] and data["pipeline_tag"] == pipeline
    assert ("reward-model" in data["tags"]) == (part == "discriminator")
    assert "model-index" not in data


@pytest.mark.parametrize("part", ["student", "discriminator"])
def test_what_is_known_stands_in_the_card(exported: Path, part: str) -> None:
    text = (exported / part / "README.md").read_text(encoding="utf-8")
    assert f"# GAD {part} from organisation/model-1B, step 7\n" in text
    # The teacher: the import was told. A bar must not break the table.
    assert "| teacher | a \\| teacher (as the card of the import says) |" in text
    assert "| `train.parquet` | 9 |" in text
    normalized, imported = (text.index(f"\n- {step}") for step in ("Normalized `all.parquet`", "Imported `raw.jsonl`"))
    assert normalized < imported
    for row in (
        "| step | 7 |",
        "| stage | adversarial |",
        "| student: learning rate | 2.5e-06 |",
        "| student: engine | fsdp |",
        "| `gad.replay.capacity_steps` | `5` |",
        "| discriminator's accuracy on fresh pairs | 0.625 |",
        "| precision of the weights | float32 |",
    ):
        assert row in text, row
    assert ("1.5" in text.split("## Limitations")[0].split("Logged by")[1]) == (part == "student")
    assert "arxiv.org/abs/2511.10643" in text and "2511.10643}" in text
    assert "| torch |" in text and "| gad_verl (this export) |" in text


@pytest.mark.parametrize("part", ["student", "discriminator"])
def test_neither_secrets_nor_folders_of_this_machine(exported: Path, root: Path, part: str) -> None:
    text = (exported / part / "README.md").read_text(encoding="utf-8")
    for hidden in (SECRET, "Q7Q7", "/home/somebody", str(root), str(Path.home()) + "/", str(Path.cwd()), "../data"):
        assert hidden not in text, hidden
    assert "malformed_pattern" in text


def test_the_students_block_runs_as_it_stands(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported / "student")
    (block,) = blocks(exported / "student" / "README.md", "python")
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["answer"].shape[1] > names["ids"]["input_ids"].shape[1]
    assert capsys.readouterr().out.endswith("\n")


def test_without_a_record_everything_is_unknown(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "elsewhere" / "global_step_7"
    for part in ("actor", "discriminator"):
        shutil.copytree(root / "run" / "global_step_7" / part, checkpoint / part)
    for part in ("student", "discriminator"):
        folder = export_part(checkpoint, part, tmp_path / part, card=CardRequest())
        card = ModelCard.load(folder / "README.md")
        assert not {"license", "base_model", "datasets", "model-index"} & set(card.data.to_dict())
        assert "| teacher | unknown (no data card names it) |" in card.text
        assert "| training began with | unknown |" in card.text and "| stage | unknown |" in card.text
        assert "| license | not given |" in card.text and "| of the training | unknown |" in card.text
        assert "Unknown: the run has no record" in card.text
        assert "Unknown: neither a record of the run nor a data card was found." in card.text
    assert "not recorded; nothing is cut below" in card.text
    assert "MAX_" not in card.text


def test_what_the_user_says_counts(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "moved" / "run" / "global_step_7"
    shutil.copytree(root / "run", checkpoint.parent)
    request = CardRequest(base_model="other/base", teacher="The Teacher", license="mit")
    text = (export_part(checkpoint, "student", tmp_path / "out", card=request) / "README.md").read_text()
    assert "base_model: other/base" in text and "license: mit" in text
    assert "| teacher | The Teacher |" in text
    assert "| `train.parquet` | unknown |" in text
    assert "How it was made is unknown" in text


def test_a_card_of_another_version_of_the_file_is_not_believed(root: Path, tmp_path: Path) -> None:
    data = shutil.copytree(root / "data", tmp_path / "data")
    run = RunFacts(tmp_path, config={"data": {"train_files": str(data / "train.parquet")}})
    assert len(read_data_facts(run).cards) == 2
    pd.read_parquet(data / "train.parquet").iloc[:4].to_parquet(data / "train.parquet")
    facts = read_data_facts(run)
    assert facts.cards == [] and facts.files == [("train.parquet", 4)]


def imported(source: Path, output: Path, *options: str) -> RunFacts:
    """A run on what ``data import`` makes of a file."""
    assert cli.main(["data", "import", str(source), "--output", str(output), "--overwrite", *options]) == 0
    return RunFacts(output.parent, config={"data": {"train_files": str(output)}})


def test_the_teacher_is_the_one_that_the_rows_name(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{n}?", "teacher_response": "A.", "teacher": "gpt-4o"} for n in range(3)]
    raw, output = tmp_path / "raw.jsonl", tmp_path / "train.parquet"
    pd.DataFrame(rows).to_json(raw, orient="records", lines=True)
    facts = read_data_facts(imported(raw, output, "--teacher", "claude-3"))
    assert set(pd.read_parquet(output)["teacher"]) == {"gpt-4o"}
    assert facts.teacher == "gpt-4o (as the card of the import says)"
    # Some rows do not say.
    pd.DataFrame([*rows, {**rows[0], "teacher": None}]).to_json(raw, orient="records", lines=True)
    for options, own in (((), "texts that name no teacher"), (("--teacher", "claude-3"), "claude-3")):
        facts = read_data_facts(imported(raw, output, *options))
        assert facts.teacher == f"gpt-4o, {own} (as the card of the import says)"
    # And what was imported already says it once: the later rows count.
    again = read_data_facts(imported(output, tmp_path / "again.parquet", "--teacher", "late"))
    assert len(again.cards) == 2 and again.teacher == facts.teacher
    del rows[0]["teacher"]
    pd.DataFrame(rows[:1]).to_json(raw, orient="records", lines=True)
    imported(raw, output)
    again = read_data_facts(imported(output, tmp_path / "again.parquet", "--teacher", "late"))
    assert again.teacher == "late (as the card of the import says)"


def test_the_teacher_of_an_import_that_did_not_count(root: Path, tmp_path: Path) -> None:
    data = shutil.copytree(root / "data", tmp_path / "data")
    path = data / "all.parquet.card.json"
    card = json.loads(path.read_text())
    del card["counts"]["teachers"]
    path.write_text(json.dumps(card))
    facts = read_data_facts(RunFacts(tmp_path, config={"data": {"train_files": str(data / "train.parquet")}}))
    assert len(facts.cards) == 2 and facts.teacher == "a | teacher (as the card of the import says)"


def test_each_way_of_making_data_is_told(root: Path, tmp_path: Path) -> None:
    split = ["data", "split", str(root / "data" / "all.parquet"), "--output", str(tmp_path / "split"), "--val", "2"]
    assert cli.main(split) == 0
    collected = tmp_path / "collected.parquet"
    shutil.copy(root / "data" / "raw.jsonl", collected)
    settings = CollectSettings(
        (Teacher("t", Endpoint("http://localhost/v1", "m"), {"seed": 3}),), framing=Framing(system="Be brief.")
    )
    card = {
        "command": "teacher collect",
        "settings": plain(settings),
        "answers": {"kept": 4, "wanted": 5},
        "prompts": {"file": "/somewhere/asked.jsonl"},
        "output": {"rows": 4, "sha256": sha256(collected)},
    }
    Path(f"{collected}.card.json").write_text(json.dumps(card))
    newer = {"command": "data split", "output": {"sha256": sha256(collected)}}
    (tmp_path / "newer.card.json").write_text(json.dumps(newer))
    run = RunFacts(tmp_path, config={"data": {"train_files": ["split/train.parquet", "collected.parquet"]}})
    facts = collect_facts(tmp_path / "global_step_1", "student", run, CardRequest())
    text = write_card(facts, Exported(tmp_path, adapter=True, dtype="float32")).read_text(encoding="utf-8")
    assert "\n- Split `all.parquet`, 9 rows: 7 in `train.parquet`, 2 in `val.parquet`. Prompts with a Jaccard" in text
    assert "from the prompts of `asked.jsonl`: 4 answers kept of 5 asked for, in 4 rows. Sampling of t: seed 3." in text
    assert "a system message, no examples, no template" in text
    assert "| teacher | t (m) (as the card of the collected answers says) |" in text
    # What another version wrote is told as far as it goes.
    assert "\n- Split `unknown`" in text


def test_no_card(root: Path, tmp_path: Path) -> None:
    command = ["export", str(root / "run" / "global_step_7"), "--no-card", "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert not (tmp_path / "out" / "README.md").exists()
    # A folder with anything in it, such as a card that somebody wrote, is left alone.
    (tmp_path / "out" / "README.md").write_text("mine")
    assert cli.main(command) == 2
    assert (tmp_path / "out" / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base-model", "/models/secret"], "--base-model /models/secret: no name of the Hugging Face Hub"),
        (["--dataset", "texts"], "--dataset texts: no name of the Hugging Face Hub"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["export", str(root / "run" / "global_step_7"), "--output", str(tmp_path / "out"), *options]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------- evaluations


def evaluate(model: Path, output: Path, data: Path) -> None:
    options = ["--engine", "hf", "--max-response-length", "4", "--two-sample-splits", "1", "--limit", "4"]
    command = ["evaluate", "--model", str(model), "--data", str(data), "--output", str(output)]
    assert cli.main([*command, *options]) == 0


def test_only_evaluations_of_these_weights_stand_in_a_card(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = shutil.copytree(root / "run", tmp_path / "work" / "run")
    shutil.copytree(root / "data", tmp_path / "work" / "data")
    checkpoint, data = run / "global_step_7", root / "data" / "train.parquet"
    # Beside the run: found. Of the model before the training: not believed.
    evaluate(checkpoint, tmp_path / "work" / "evaluations" / "step_7", data)
    evaluate(build_model(tmp_path / "other", seed=9, layers=1), tmp_path / "work" / "evaluations" / "base", data)
    folder = export_part(checkpoint, "student", tmp_path / "out", card=CardRequest())
    card = ModelCard.load(folder / "README.md")
    results = json.loads((tmp_path / "work" / "evaluations" / "step_7" / "results.json").read_text())
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert figures["length_ratio"] == round(results["figures"]["length_ratio"]["value"], 4)
    assert card.text.count("`gad-verl evaluate` on") == 1 and "4 prompts" in card.text
    assert str(tmp_path) not in str(card)
    assert "leaves out 1 of 2 evaluations: of other weights" in caplog.text
    # One that was not run to its end is passed over.
    (tmp_path / "work" / "evaluations" / "base" / "results.json").write_text("{}")
    # Of the exported folder: the same weights under another fingerprint.
    evaluate(folder, tmp_path / "work" / "evaluations" / "of_export", data)
    card = ModelCard.load(export_part(checkpoint, "student", tmp_path / "again", card=CardRequest()) / "README.md")
    assert card.text.count("`gad-verl evaluate` on") == 2
    unread = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(unread) == 1 and str(tmp_path / "work" / "evaluations" / "base") in unread[0]


# ---------------------------------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize("part", ["student", "discriminator"])
def test_the_card_of_an_adapter(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: DictConfig, part: str
) -> None:
    source = root / "source"
    targets = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False}
    if part == "student":
        base = AutoModelForCausalLM.from_pretrained(source)
        model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, **targets))
    else:
        config = LoraConfig(task_type=TaskType.TOKEN_CLS, modules_to_save=["score"], **targets)
        model = get_peft_model(build_discriminator(source), config)
    checkpoint = write_run(tmp_path / "run", tiny_config, 2, stage="warmup")
    save_part(checkpoint / {"student": "actor"}.get(part, part), model.eval(), source)
    folder = export_part(checkpoint, part, tmp_path / "adapter", adapter_only=True, card=CardRequest())
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "peft" and "base_model" not in data
    # PEFT's own form to fill in named the folder of the base.
    assert str(root) not in str(card) and "More Information Needed" not in str(card)
    assert "| training began with | a local folder; its source was not given |" in card.text
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec("".join(blocks(folder / "README.md", "python")), names)
    if part == "discriminator":
        assert data["pipeline_tag"] == "token-classification"
        expected = last_values(model, names["rows"])
        assert expected.std() > 1e-3
        torch.testing.assert_close(torch.tensor(names["scores"]), expected, atol=1e-5, rtol=0)
    else:
        assert "in the warmup" in card.text


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", True),
        ("gpt2", False),
        ("/models/Qwen", False),
        ("~/Qwen", False),
        ("./Qwen", False),
        ("a/b/c", False),
        ("(removed)/student", False),
        (None, False),
    ],
)
def test_names_of_the_hub(name: str | None, expected: bool) -> None:
    assert is_hub_name(name) is expected


def test_a_folder_with_a_name_like_the_hubs_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is one can be seen where the run was started; the card may be written elsewhere, and later."""
    (tmp_path / "launch" / "models" / "student").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    names = {"actor_rollout_ref": "models/student", "discriminator": "organisation/judge"}
    config = {section: {"model": {"path": name}} for section, name in names.items()}
    monkeypatch.chdir(tmp_path / "launch")
    checkpoint = write_run(tmp_path / "far" / "off" / "in" / "run", config, 3)
    monkeypatch.chdir(tmp_path / "elsewhere")

    def told(part: str) -> tuple[Any, str]:
        facts = collect_facts(checkpoint, part, read_run_facts(checkpoint), CardRequest())
        scoring = None if part == "student" else Scoring()
        card = ModelCard.load(write_card(facts, Exported(tmp_path, adapter=True, dtype="float32", scoring=scoring)))
        (line,) = (line for line in card.text.splitlines() if line.startswith("| training began with |"))
        return card.data.to_dict().get("base_model"), line.strip("| ").split(" | ")[1]

    assert told("student") == (None, "a local folder; its source was not given")
    assert told("discriminator") == ("organisation/judge", "organisation/judge")
    # A folder that has come since is not the model that the run read.
    (tmp_path / "far" / "organisation" / "judge").mkdir(parents=True)
    assert told("discriminator") == ("organisation/judge", "organisation/judge")
    # Runs that did not record it: a folder that is found is one, and all else is not known.
    record = checkpoint.parent / "record" / "run.json"
    for older in ({}, {"local_models": "models/student"}):
        content = json.loads(record.read_text())
        del content["local_models"]
        record.write_text(json.dumps(content | older))
        assert told("student") == (None, "unknown")
        shutil.move(tmp_path / "launch" / "models", checkpoint.parent.parent / "models")
        assert told("student") == (None, "a local folder; its source was not given")
        shutil.move(checkpoint.parent.parent / "models", tmp_path / "launch" / "models")
        assert read_run_facts(checkpoint).local_models is None
        record.write_text(json.dumps(content | {"local_models": []}))


def test_settings_that_a_run_does_not_read_are_left_out(compose_config: Any, tmp_path: Path) -> None:
    def rows(*overrides: str, schedule: StageSchedule | None = None) -> dict[str, str]:
        config = compose_config("gad_trainer", *overrides)
        run = write_run(tmp_path / str(len(list(tmp_path.iterdir()))), config, 1)
        if schedule is not None:
            replace(read_state(run), schedule=schedule).write(run)
        facts = read_run_facts(run)
        # The card names what is not as published: what was asked for, and the default objective.
        objective = {"gad.warmup.actor_lr", "gad.trust.held_out_fraction", "gad.trust.otherwise"}
        assert {name for name in other_options(facts) if f"{name}=" not in " ".join(overrides)} <= objective
        card = collect_facts(run, "student", facts, CardRequest())
        text = write_card(card, Exported(run, adapter=False, dtype="float32")).read_text(encoding="utf-8")
        table = text.split("## Training settings")[1].split("\n\n")[2]
        return dict(line.strip("| ").split(" | ") for line in table.splitlines()[2:])

    plain = rows()
    assert plain["student responses per prompt"] == "8" and plain["prompt / response, tokens"] == "2048 / 1536"
    assert plain["warmup, epochs"] == "1" and plain["KL loss, coefficient"] == "0.001"
    assert "student: LoRA rank / alpha" not in plain
    baseline = rows("gad.stage=seqkd", "actor_rollout_ref.model.lora_rank=8")
    assert not [name for name in baseline if name.startswith(("discriminator", "KL", "warmup"))]
    assert baseline["student: LoRA rank / alpha"] == "8 / 16"
    soda = rows("gad.stage=soda", "gad.soda.beta=0.3", "gad.soda.snapshot_steps=7")
    assert (soda["preferences, beta"], soda["snapshot of the student's answers, steps"]) == ("0.3", "7")
    assert soda["warmup, epochs"] == "1" and soda["preferences, reference"] == "warmed_up"
    assert not [name for name in soda if name.startswith(("discriminator", "KL", "first steps", "advantages"))]
    short = rows("gad.warmup_steps=5", "actor_rollout_ref.actor.use_kl_loss=False", "gad.replay.capacity_steps=3")
    assert short["warmup, steps"] == "5" and "warmup, epochs" not in short
    assert not [name for name in short if name.startswith("KL")]
    # Learning rates: of the stages that occur, and the common one where one of them has none of its own.
    rates = ["gad.warmup.actor_lr=5e-6", "gad.adversarial.actor_lr=2e-6", "gad.warmup.discriminator_lr=3e-6"]

    def of_rates(found: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in found.items() if "learning rate" in name}

    assert of_rates(rows("gad.stage=seqkd", *rates)) == {"student: learning rate": "5e-06"}
    own = [*rates, "gad.trust.held_out_fraction=0"]
    assert of_rates(rows(*own)) == {
        "student: learning rate, warmup": "5e-06",
        "student: learning rate, adversarial stage": "2e-06",
        "discriminator: learning rate": "1e-06",
        "discriminator: learning rate, warmup": "3e-06",
    }
    # Without a warmup it has no first steps either.
    adversarial = {"student: learning rate": "2e-06", "discriminator: learning rate": "1e-06"}
    alone = "first steps with the discriminator alone"
    for options in (["gad.warmup_steps=0"], ["gad.warmup_epochs=0"], ["gad.stage=gad"]):
        found = rows(*own, *options, "gad.discriminator_only_steps=10", "gad.warmup_rollout_n=1")
        assert of_rates(found) == adversarial and alone not in found
        assert found["student responses per prompt"] == "8" and not any("prompt, warmup" in name for name in found)
    # The schedule of the checkpoint knows best.
    schedule = StageSchedule("auto", 20, 0, 0)
    assert of_rates(rows(*own, "gad.warmup_epochs=1", schedule=schedule)) == adversarial
    schedule = StageSchedule("auto", 20, 12, 4)
    found = rows(*own, "gad.discriminator_only_steps=4", "gad.warmup_rollout_n=1", schedule=schedule)
    assert found[alone] == "4" and found["student responses per prompt, warmup"] == "1"
    warmup = rows(*own, "gad.stage=warmup", "gad.warmup_rollout_n=2", "gad.discriminator_only_steps=0")
    assert of_rates(warmup) == {"student: learning rate": "5e-06", "discriminator: learning rate": "3e-06"}
    assert warmup["student responses per prompt, warmup"] == "2" and warmup["discriminator's loss"] == "bradley_terry"
    unread = ("KL", "advantages", "entropy", "warmup,", "student responses per prompt |", alone)
    assert not [name for name in warmup if f"{name} |".startswith(unread)]


def test_the_settings_of_a_stage_that_is_not_known_are_all_told(tmp_path: Path) -> None:
    """Of another version or another program."""
    run = RunFacts(tmp_path, config={"gad": {"stage": "later", "warmup": {"actor_lr": 5e-6}}})
    assert phases_of(run) == set(Phase)
    assert phases_of(RunFacts(tmp_path, config={"gad": {"stage": "auto", "warmup_steps": "many"}})) == set(Phase)


def test_the_working_folder_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/of/somebody")
    monkeypatch.setenv("DB_PWD", "correct-horse")
    cleaned = without_secrets(["/home/of/somebody/data", "x correct-horse y"])
    assert cleaned == ["/home/of/somebody/data", "x (removed) y"]
