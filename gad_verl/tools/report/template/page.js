"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // ------------------------------------------------------------------------------------------------ figures

  // A copy of a figure in the colours of the reader's scheme.
  function coloured(item) {
    const copy = structuredClone(item);
    const [text, line, grid] = dark.matches ? ["#b9c0ca", "#4a515c", "#2b313a"] : ["#4a525c", "#b5bbc4", "#e6e9ed"];
    const axis = {
      axis_label_text_color: text, major_label_text_color: text, axis_line_color: line,
      major_tick_line_color: line, minor_tick_line_color: null,
    };
    const styles = {
      Figure: { background_fill_color: null, border_fill_color: null, outline_line_color: line },
      LinearAxis: axis, LogAxis: axis, CategoricalAxis: axis, Grid: { grid_line_color: grid },
    };
    const visit = (node) => {
      if (Array.isArray(node)) {
        node.forEach(visit);
      } else if (node !== null && typeof node === "object") {
        if (node.type === "object" && styles[node.name]) {
          node.attributes = { ...node.attributes, ...styles[node.name] };
        }
        Object.values(node).forEach(visit);
      }
    };
    visit(copy.doc.roots);
    return copy;
  }

  async function draw(place, item) {
    place.replaceChildren();
    await Bokeh.embed.embed_item(coloured(item), place.id);
    place.dataset.drawn = "yes";
  }

  const drawn = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        drawn.add(entry.target);
        draw(entry.target, data.charts[entry.target.dataset.chart]);
      }
    }
  }, { rootMargin: "800px" });
  document.querySelectorAll("[data-chart]").forEach((place) => seen.observe(place));

  dark.addEventListener("change", () => {
    drawn.forEach((place) => draw(place, data.charts[place.dataset.chart]));
  });

  // ------------------------------------------------------------------------------------------- configuration

  const wanted = document.getElementById("key-filter");
  if (wanted) {
    const rows = [...document.querySelectorAll("#all-keys tbody tr")];
    wanted.addEventListener("input", () => {
      const words = wanted.value.toLowerCase().split(" ");
      for (const row of rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      }
    });
  }

  // ------------------------------------------------------------------------------------------------- samples

  const list = document.getElementById("sample-list");
  if (!list) return;
  const [run, split, range, step] = ["run", "split", "range", "step"].map((name) =>
    document.getElementById(`sample-${name}`));
  const names = { val: "held out", train: "training" };
  // Responses beside the teacher's text; characters of a prompt's end, where its question stands, in the summary.
  const [beside, shown] = [2, 90];

  function element(kind, className, text) {
    const made = document.createElement(kind);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function side(className, title, score, text) {
    const made = element("div", `side ${className}`);
    made.append(element("h4", "", score === null || score === undefined ? title : `${title}, score ${score}`));
    made.append(text ? element("pre", "", text) : element("p", "small", "(no text)"));
    return made;
  }

  function steps() {
    return data.samples[run.value].splits[split.value];
  }

  function show() {
    const chosen = steps()[range.value];
    step.textContent = chosen.step;
    range.setAttribute("aria-valuetext", `step ${chosen.step}`);
    list.replaceChildren(...chosen.samples.map((sample, place) => {
      // One sample is open: a list of all texts would be longer than anybody scrolls.
      const card = element("details", "sample");
      card.open = place === 0;
      const name = sample.index === null ? "Prompt" : `Prompt ${sample.index}`;
      const summary = element("summary", "");
      summary.append(element("strong", "", name), ` ${sample.prompt.slice(-shown).trim()}`);
      card.append(summary, element("pre", "prompt", sample.prompt));
      const responses = sample.students.map((text, index) => {
        const title = sample.students.length > 1 ? `Student ${index + 1}` : "Student";
        return side("student", title, sample.student_scores[index], text);
      });
      const sides = element("div", "sides");
      sides.append(side("teacher", "Teacher", sample.teacher_score, sample.teacher), ...responses.slice(0, beside));
      card.append(sides);
      if (responses.length > beside) {
        const more = element("details", "more");
        const others = element("div", "sides");
        others.append(...responses.slice(beside));
        more.append(element("summary", "small", `${responses.length - beside} more responses`), others);
        card.append(more);
      }
      return card;
    }));
  }

  function chooseSplit() {
    range.max = steps().length - 1;
    range.value = range.max;
    show();
  }

  function chooseRun() {
    const splits = Object.keys(data.samples[run.value].splits);
    split.replaceChildren(...splits.map((name) => {
      const option = element("option", "", names[name] || name);
      option.value = name;
      return option;
    }));
    chooseSplit();
  }

  document.getElementById("sample-controls").addEventListener("submit", (event) => event.preventDefault());
  run.addEventListener("change", chooseRun);
  split.addEventListener("change", chooseSplit);
  range.addEventListener("input", show);
  chooseRun();
})();
