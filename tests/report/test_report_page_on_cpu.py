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
"""The page of ``gad-verl report``: its structure, and what a browser says to it where there is one."""

import html
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from made_up_run import write_metrics, write_run

from gad_verl.cli import main
from gad_verl.tools.report.page import render
from gad_verl.tools.report.runs import read_run
from gad_verl.tools.report.texts import choose_samples

HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">&lt;b&gt; {{ 7 * 7 }} \u2028 \'"'
)
LINKS = ("href", "src", "srcset", "action", "data", "poster", "xlink:href")
VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """Elements, links, identifiers and text of a page; fails on elements that are not closed in their order."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.links += [value or "" for name, value in attrs if name in LINKS]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "first", 60, text=HOSTILE)


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return render([read_run(run_folder)])


def test_structure(page: str) -> None:
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    sections = {attributes["id"] for attributes in parsed.all("section")}
    wanted = {
        "verdict",
        "discriminator",
        "trust",
        "scores",
        "texts",
        "student",
        "validation",
        "events",
        "samples",
    }
    assert wanted | {"settings"} == sections
    anchors = {link.removeprefix("#") for link in parsed.links if link.startswith("#")}
    assert anchors == sections
    plots = [attributes for attributes in parsed.all("div") if "data-chart" in attributes]
    assert len(plots) > 15 and {plot["data-chart"] for plot in plots} == set(parsed.data["charts"])
    for plot in plots:
        assert plot["role"] == "img" and len(plot["aria-label"] or "") > 20
    for label in ("Sections",):
        assert parsed.all("nav", **{"aria-label": label})
    assert parsed.all("meta", name="viewport") and parsed.all("html", lang="en")


def test_nothing_is_wider_than_a_telephone() -> None:
    """By its styles alone, for machines without a browser; :func:`test_in_a_browser` measures."""
    folder = resources.files("gad_verl.tools.report") / "template"
    style, template = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    room = 400 - 2 * 10
    # What is at most as wide as its place may say more.
    bounded = re.sub(r"min\(100%, *\d+px\)", "", re.sub(r"max-width: \d+px", "", style))
    widths = re.findall(r"(?:width: *|minmax\(|flex: \d \d )(\d+)px", bounded)
    assert widths and max(map(int, widths)) <= room
    # Tables are scrolled in a place of their own, and what does not wrap is cut or stands in such a table.
    assert template.count("<table") == len(re.findall(r'<div class="scroll"[^>]*><table', template)) > 2
    unwrapped = {rule.split("{")[0].strip() for rule in style.split("}") if "white-space: nowrap" in rule}
    assert unwrapped == {".controls label.wide", ".sample > summary", "td.whole"}
    assert "overflow-wrap: anywhere" in re.sub(r"\s+", " ", style).partition("body {")[2].partition("}")[0]


def test_nothing_comes_from_a_network(page: str) -> None:
    parsed = Page(page)
    assert all(link.startswith(("#", "data:")) for link in parsed.links), parsed.links
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in (policy["content"] or "") and "http" not in (policy["content"] or "")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert not [attributes for attributes in parsed.all("script") if "src" in attributes]


def test_hostile_texts_stay_texts(page: str, run_folder: Path) -> None:
    parsed = Page(page)
    assert len(parsed.scripts) == 3 and not parsed.all("img")
    assert html.escape(HOSTILE, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page
    cards = parsed.data["samples"][0]["splits"]["val"][0]["samples"]
    assert cards[0]["teacher"] == HOSTILE


def test_many_steps_stay_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", 2000, text="It rains because of the clouds. " * 60)
    content = render([read_run(run)])
    assert len(content.encode()) < 5_000_000
    parsed = Page(content)
    assert len(read_run(run).metrics) >= 80
    assert "Drawn: 800 of 2000 points." in " ".join(parsed.text)
    # The highest value of a curve survives the thinning.
    series = read_run(run).get("disc/grad_norm")
    assert f"{series.values.max():.4g}" in content


@pytest.mark.slow
def test_ten_runs_stay_small(tmp_path: Path) -> None:
    for number in range(10):
        write_metrics(tmp_path / f"run{number}.jsonl", 300, seed=number)
    content = render([read_run(tmp_path / f"run{number}.jsonl") for number in range(10)])
    assert len(content.encode()) < 5_000_000


def test_samples_keep_to_their_budget(run_folder: Path, tmp_path: Path) -> None:
    long = read_run(write_run(tmp_path / "long", 20, text="It rains. " * 100))
    (chosen,) = choose_samples([long], budget=20_000)
    of_step = [sample for steps in chosen["splits"].values() for step in steps for sample in step["samples"]]
    shown = [text for sample in of_step for text in (sample["prompt"], sample["teacher"], *sample["students"])]
    assert all("more characters" in text for text in shown) and sum(map(len, shown)) < 45_000
    steps = [entry["step"] for entry in chosen["splits"]["val"]]
    assert list(chosen["splits"]) == ["val", "train"] and steps == list(range(1, 21))
    many = read_run(run_folder)
    many.samples = [many.samples[0] | {"step": step} for step in range(1, 101) for _ in range(12)]
    (chosen,) = choose_samples([many])
    (steps,) = chosen["splits"].values()
    assert steps[0]["step"] == 1 and steps[-1]["step"] == 100 and len(steps) == 20
    assert {len(step["samples"]) for step in steps} == {8}
    assert choose_samples([]) == []


def test_nothing_of_a_record_goes_into_a_page_at_any_length(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "wordy", 5, config={"long": "x" * 200_000})
    events = [
        {"step": 5, "source": "s" * 9000, "rule": "r" * 9000, "action": "stop", "text": f"{number}" + "y" * 100_000}
        for number in range(300)
    ]
    with (folder / "record" / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    content = render([read_run(folder)])
    shown = content[content.index("</style>") : content.index('id="data"')]
    assert max(map(len, re.findall(r"[^<>]+", shown))) < 2000
    # What was left out is said.
    assert "more characters)" in shown and len(content.encode()) < 5_000_000


def test_the_first_step_of_a_run_makes_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "young", 1, total=100, finished=False)
    write_metrics(tmp_path / "alone.jsonl", 2)
    parsed = Page(render([read_run(run), read_run(tmp_path / "alone.jsonl")]))
    words = " ".join(parsed.text)
    assert "still training, as of step 1 of 100" in words and "alone has no record" in words


# ------------------------------------------------------------------------------------------------------------- command


def test_command_overlays_several_runs(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    second = write_run(tmp_path / "second", 40, seed=1, total=80, finished=False, config={"rate": 0.25})
    output = tmp_path / "new" / "page.html"
    assert main(["report", f"<b>{{{{ 1 }}}}={run_folder}", str(second), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "second: still training, as of step 40 of 80." in said and said.endswith(f"wrote {output}\n")
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]
    content = output.read_text(encoding="utf-8")
    parsed = Page(content)
    words = " ".join(parsed.text)
    assert "2 runs" in words and "still training, as of step 40 of 80" in words and "finished at step 60 of 60" in words
    assert [run["name"] for run in parsed.data["samples"]] == ["<b>{{ 1 }}", "second"] and not parsed.all("b")
    different = content[content.index("What differs") : content.index("keys that are the same")]
    assert "rate" in different and "0.25" in different and ">seed<" in different and "versions.numpy" not in different
    assert {"scores-0", "scores-1"} <= set(parsed.data["charts"])


def test_only_its_own_pages_are_replaced(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "notes.html"
    output.write_text("mine", encoding="utf-8")
    command = ["report", str(run_folder), "--output", str(output)]
    assert main(command) == 2 and output.read_text(encoding="utf-8") == "mine"
    message = capsys.readouterr().err
    assert str(output) in message and "--overwrite" in message and message.count("\n") == 1
    assert main([*command, "--overwrite"]) == 0
    # A newer page of the same run is what the command is called for again.
    os.utime(output, (1, 1))
    assert main(command) == 0 and output.stat().st_mtime > 1


@pytest.mark.parametrize("make", ["missing", "empty folder", "empty file", "other file", "folder as output"])
def test_errors_leave_nothing_behind(make: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, output = tmp_path / "source", tmp_path / "page.html"
    before = "<title>a - gad-verl report</title>"
    output.write_text(before, encoding="utf-8")
    if make == "empty folder":
        source.mkdir()
    elif make == "empty file":
        source.write_text("", encoding="utf-8")
    elif make == "other file":
        source.write_text("a,b\n1,2\n", encoding="utf-8")
    elif make == "folder as output":
        write_metrics(source, 3)
        output.unlink()
        output.mkdir()
    assert main(["report", str(source), "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("gad-verl: ") and message.count("\n") == 1 and "Traceback" not in message
    assert output.is_dir() or output.read_text(encoding="utf-8") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "page.html"}


def test_names_that_are_no_text_are_written_somehow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose name is no UTF-8, and a record with half of a surrogate pair."""
    run = write_run(tmp_path / os.fsdecode(b"run\xff"), 5)
    with (run / "record" / "events.jsonl").open("a", encoding="utf-8") as file:
        event = {"step": 5, "source": "me", "rule": "\ud800", "action": "warn", "text": "\udfff"}
        file.write(json.dumps(event) + "\n")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="utf-8", write_through=True))
    output = tmp_path / "page.html"
    assert main(["report", str(run), "--output", str(output)]) == 0
    assert b"run\\udcff: " in written.getvalue() and b"me, \\ud800" in written.getvalue()
    assert "run?" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("run", "output", "more", "said"),
    [
        ("x" * 5000, "page.html", [], "does not exist"),
        ("name=" + "x" * 5000, "page.html", [], "does not exist"),
        ("{run}", "x" * 5000, [], "cannot be written"),
        ("{run}", "{run}/metrics.jsonl/page.html", [], "cannot be written"),
        ("{run}", "page.html", ["--evaluations", "x" * 5000], "--evaluations"),
    ],
)
def test_paths_that_cannot_be_are_one_line(
    run: str,
    output: str,
    more: list[str],
    said: str,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    there = str(run_folder)
    output = str(tmp_path / output.format(run=there))
    assert main(["report", run.format(run=there), "--output", output, *more]) == 2
    message = capsys.readouterr().err
    assert said in message and message.startswith("gad-verl: ") and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- browser

_WATCH = """<script>
window.problems = [];
window.addEventListener("error", (event) => problems.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => problems.push(`blocked ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => problems.push(words.join(" "));
</script>"""
_TELL = """<script>
const until = async (holds) => {
  for (let tries = 0; tries < 200 && !holds(); tries += 1) await new Promise((done) => setTimeout(done, 100));
};
(async () => {
  const plots = [...document.querySelectorAll("[data-chart]")];
  const empty = () => plots.filter((place) => !place.dataset.drawn || !place.firstElementChild
    || place.firstElementChild.getBoundingClientRect().height < 50);
  await until(() => empty().length === 0);
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const cards = [...document.querySelectorAll("#sample-list > details")];
  const [first, second] = [...cards[0].querySelectorAll(":scope > .sides > .side")];
  const besides = second.getBoundingClientRect().top === first.getBoundingClientRect().top;
  const range = document.getElementById("sample-range");
  range.value = 0;
  range.dispatchEvent(new Event("input"));
  const filter = document.getElementById("key-filter");
  filter.value = "TRAINING_steps";
  filter.dispatchEvent(new Event("input"));
  parent.postMessage({
    problems, hacked: window.hacked === 1, width: innerWidth, page: document.documentElement.scrollWidth,
    empty: empty().map((place) => place.id), plots: plots.length,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
    step: document.getElementById("sample-step").textContent, besides,
    open: [...document.querySelectorAll("#sample-list > details")].map((card) => card.open),
    sample: document.querySelector("#sample-list .teacher pre").textContent,
    keys: [...document.querySelectorAll("#all-keys tbody tr:not([hidden]) th")].map((cell) => cell.textContent),
  }, "*");
})();
</script></body>"""

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


WIDTHS = (400, 1280)
_FRAMES = (
    """<!DOCTYPE html><body style="white-space: nowrap"><pre id="told" style="display: none"></pre><script>
const told = {};
window.addEventListener("message", (event) => {
  told[event.data.width] = event.data;
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script>"""
    # Very high frames: every figure is in sight and is drawn. A window cannot be as narrow as a telephone.
    + "".join(
        f'<iframe src="page.html" style="border: 0; width: {width}px; height: 20000px"></iframe>' for width in WIDTHS
    )
)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_in_a_browser(page: str, tmp_path: Path) -> None:
    watched = page.replace("<meta charset=", f"{_WATCH}<meta charset=", 1)
    head, tail = watched.rsplit("</body>", 1)
    (tmp_path / "page.html").write_text(head + _TELL + tail, encoding="utf-8")
    (tmp_path / "frames.html").write_text(_FRAMES, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *"--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split(),
        *"--disable-component-update --disable-sync --virtual-time-budget=60000".split(),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1800,21000",
        "--dump-dom",
        (tmp_path / "frames.html").as_uri(),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    told_by = re.search(r'<pre id="told"[^>]*>(.*?)</pre>', found.stdout, re.DOTALL)
    assert told_by is not None, found.stderr[-2000:]
    everything = json.loads(html.unescape(told_by.group(1)))
    assert set(everything) == {str(width) for width in WIDTHS}
    for width in WIDTHS:
        told = everything[str(width)]
        assert told["problems"] == [] and told["fetched"] == [] and not told["hacked"]
        assert told["page"] <= width and told["plots"] > 15 and told["empty"] == []
        assert told["step"] == "3" and told["sample"] == HOSTILE
        assert told["keys"] == ["trainer.total_training_steps"]
        # Side by side where there is room; of a step one sample is open.
        assert told["besides"] == (width > 700) and told["open"] == [True, False, False]
