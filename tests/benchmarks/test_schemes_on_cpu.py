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
"""What the benchmarks compare is the same work, and they measure what they say."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import common  # noqa: E402
import cost_model  # noqa: E402
import device as benchmark_device  # noqa: E402
import report  # noqa: E402
import schemes  # noqa: E402
import sizes  # noqa: E402

SHAPE = schemes.Shape(prompts=2, rollouts=3, prompt=5, rollout=9, teacher=14)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each scheme, from fresh weights: rewards, loss, and the step of plain gradient descent, so the gradient."""
    folder = schemes.build_model_folder(tmp_path_factory.mktemp("bench") / "model", hidden=64, layers=2)
    found = {}
    with common.one_rank(threads=1):
        for name in ("a", "b", "c"):
            worker = schemes.build_worker(folder, optimizer="SGD", lr=1.0, weight_decay=0.0, clip_grad=1e9)
            before = _weights(worker)
            rewards, loss = getattr(schemes.Schemes(worker, schemes.random_groups(SHAPE)), name)()
            after = _weights(worker)
            found[name] = {
                "rewards": rewards,
                "loss": loss,
                "gradient": {key: before[key] - after[key] for key in before},
            }
    return found


def _weights(worker: Any) -> dict[str, torch.Tensor]:
    parameters, _ = worker.engine.get_per_tensor_param()
    return {name: tensor.detach().clone() for name, tensor in parameters}


@pytest.mark.parametrize("scheme", ["a", "b"])
def test_the_schemes_give_one_loss_one_gradient_and_the_same_rewards(results: dict, scheme: str) -> None:
    ours, other = results["c"], results[scheme]
    assert ours["loss"] == pytest.approx(other["loss"], abs=1e-5)
    torch.testing.assert_close(ours["rewards"], other["rewards"], atol=1e-5, rtol=0)
    assert max(gradient.abs().max().item() for gradient in ours["gradient"].values()) > 1e-2
    for name, gradient in ours["gradient"].items():
        torch.testing.assert_close(gradient, other["gradient"][name], atol=1e-5, rtol=0)


def test_the_cost_model_at_equal_lengths_is_the_closed_form() -> None:
    """(n + 1) / n * u against 1 + 2 u forwards over n rollouts, u = 3 (4 with checkpointing)."""
    for checkpointing, update in ((False, 3), (True, 4)):
        for rollouts in (4, 8, 16):
            shape = schemes.Shape(prompts=2, rollouts=rollouts, prompt=8, rollout=32, teacher=32)
            work = cost_model.of_qwen2(64, 2, checkpointing).schemes(shape, remove_padding=False)
            once = update * (rollouts + 1) / rollouts
            assert work["c"] / work["a"] == pytest.approx(once / (1 + 2 * update))
            assert work["b"] / work["a"] == pytest.approx((1 + once) / (1 + 2 * update))


def test_the_peak_is_that_of_the_allocator() -> None:
    megabyte = 2**20

    def allocate() -> None:
        first = torch.empty(3 * megabyte, dtype=torch.uint8)
        del first
        second = torch.empty(5 * megabyte, dtype=torch.uint8)
        third = torch.empty(2 * megabyte, dtype=torch.uint8)
        del second, third

    assert common.peak_bytes(allocate) == pytest.approx(7 * megabyte, rel=0.01)


def test_a_ratio_is_taken_repeat_by_repeat() -> None:
    ratio = common.Ratio.of([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert (ratio.median, ratio.lowest, ratio.highest, ratio.repeats) == (2.0, 1.0, 3.0, 3)


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    seconds = common.alternate({"x": lambda: order.append("x"), "y": lambda: order.append("y")}, repeats=3)
    assert order == ["x", "y"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"x": 3, "y": 3}


def test_results_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "result.json"
    common.write(path, [{"name": "x", "ratio": common.Ratio.of([1.0], [2.0])}], {"repeats": 1})
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["rows"] == [{"name": "x", "ratio": {"median": 0.5, "lowest": 0.5, "highest": 0.5, "repeats": 1}}]
    assert common.cell(document["rows"][0]["ratio"]) == "0.50 [0.50, 0.50]"
    assert list(path.parent.iterdir()) == [path]


def test_results_say_which_device_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU the GPU is measured, in its own files; its CPU only where that is asked for."""
    card = SimpleNamespace(name="a card", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setenv("VERL_PLATFORM", "")
    monkeypatch.setenv("GAD_BENCH_ATTENTION", "flash_attention_2")
    device = benchmark_device.this_device()
    assert (device.verl_platform, device.precision, device.packs_rows) == ("nvidia", "bf16", True)
    facts = common.machine(threads=1)
    assert (facts["card"], facts["memory_gib"], facts["precision"]) == ("a card", 80.0, "bfloat16")
    assert facts["attention"] == "flash_attention_2" and "processor" not in facts
    assert common.result_file("x.json").name == "gpu_x.json"
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    facts = common.machine(threads=1)
    assert (facts["device"], facts["precision"], common.result_file("x.json").name) == ("cpu", "float32", "x.json")


def test_time_and_memory_of_a_gpu_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls return before a GPU is done, so each is waited for on both sides, and the peak is the device's own."""
    events: list[str] = []
    held = iter([100])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 175)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: events.append("reset"))
    gpu = benchmark_device.Device("cuda", "sdpa")
    monkeypatch.setattr(common, "this_device", lambda: gpu)
    common.alternate({"x": lambda: events.append("x")}, repeats=1)
    assert events == ["wait", "x", "wait"] * 2
    events.clear()
    assert common.peak_bytes(lambda: events.append("x")) == 75
    assert events == ["wait", "reset", "x", "wait"]


def test_real_sizes_are_measured_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--prompts", "2", "--prompt", "6", "--response", "8", "--repeats", "5", "--models", str(tmp_path)]
    for what, keys in (("schemes", {"time_c_over_a", "memory_c_over_a"}), ("sharing", {"time_shared_over_apart"})):
        output = tmp_path / f"{what}.json"
        monkeypatch.setattr(sys, "argv", ["sizes.py", what, "tiny", *settings, "--output", str(output)])
        sizes.main()
        document = json.loads(output.read_text(encoding="utf-8"))
        assert document["settings"]["device"] == "cpu" and document["settings"]["size"] == "tiny"
        assert all(keys <= row.keys() for row in document["rows"])
        if what == "schemes":
            assert [row["ragged"] for row in document["rows"]] == [False, True]
            assert max(row["rewards_differ_by"] for row in document["rows"]) < 1e-4


def test_results_of_a_gpu_get_a_table_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert report.rendered("gpu") == report.NOTHING
    ratio = common.Ratio.of([1.0, 2.0], [2.0, 4.0])
    for name, columns in (
        ("schemes_0.5b", sizes.COLUMNS["schemes"]),
        ("prompt_sharing", report.COLUMNS["prompt_sharing"]),
    ):
        common.write(tmp_path / f"gpu_{name}.json", [dict.fromkeys(columns, ratio)], {"card": "a card"})
    first, second = report.rendered("gpu").split("\n\n|")
    assert "`benchmarks/prompt_sharing.py`: card a card" in first and "auto shares" in first
    assert "`benchmarks/sizes.py`: card a card" in second and "0.50 [0.50, 0.50]" in second


@pytest.mark.parametrize("path", report.PAGES, ids=lambda path: path.name)
def test_the_pages_show_what_was_measured(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert report.page(text, path) == text, f"{path.name} is out of date: python benchmarks/report.py"


def test_every_figure_is_of_at_least_five_repeats() -> None:
    for path in sorted(common.RESULTS.glob("*.json")):
        # One run of each mode, of eight steps that count; the page says so.
        if path.name != "async.json":
            assert json.loads(path.read_text(encoding="utf-8"))["settings"].get("repeats", 5) >= 5, path
