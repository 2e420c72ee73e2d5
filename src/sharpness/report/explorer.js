// One slider of epochs that moves spectrum, density, slice and losses of one run or of two beside one another.
"use strict";

const COLOURS = { first: "#D55E00", last: "#0072B2", loss: "#0072B2", validation: "#D55E00", slice: "#0072B2",
  density: "#5B3A8C" };
const RESTS = 650; // milliseconds at each checkpoint while it plays
const PANELS = ["spectrum", "density", "slices", "history"];

// From orange for the largest eigenvalue to blue, as in the figures.
const colourOfRank = (rank, count) => {
  const mixed = [[213, 94, 0], [140, 90, 124], [0, 114, 178]];
  const place = count > 1 ? (2 * rank) / (count - 1) : 0;
  const [from, to] = place < 1 ? [0, 1] : [1, 2];
  const part = place < 1 ? place : place - 1;
  return `rgb(${mixed[from].map((value, index) => Math.round(value + part * (mixed[to][index] - value))).join(",")})`;
};

const nearest = (epochs, epoch) =>
  epochs.reduce((best, value, index) => (Math.abs(value - epoch) < Math.abs(epochs[best] - epoch) ? index : best), 0);

const finite = (values) => values.flat().filter((value) => value !== null);

class Explorer {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.slider = root.querySelector("input[type=range]");
    this.play = root.querySelector(".play");
    this.both = root.querySelector(".both");
    this.told = root.querySelector(".told");
    this.sides = [...root.querySelectorAll(".side")].map((node, index) => ({
      node,
      run: data.first[Math.min(index, data.first.length - 1)],
      selects: [],
    }));
    this.sides.forEach((side) => this.addSelects(side));
    this.both.checked = data.first.length > 1;
    this.both.closest("label").hidden = data.runs.length < 2;
    this.both.addEventListener("change", () => this.choose());
    this.slider.addEventListener("input", () => this.show());
    this.slider.addEventListener("change", () => this.tell());
    this.play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
    whenWidthChanges(root, () => this.show());
    this.choose();
  }

  get shown() {
    return this.both.checked ? this.sides : this.sides.slice(0, 1);
  }

  runOf(side) {
    return this.data.runs[side.run];
  }

  addSelects(side) {
    const holder = side.node.querySelector(".choice");
    this.data.fields.forEach((field, index) => {
      if (field.values.length < 2 && index > 3) return;
      const label = document.createElement("label");
      label.textContent = field.words;
      const select = document.createElement("select");
      select.dataset.field = field.name;
      field.values.forEach((value, place) => select.add(new Option(value, place)));
      select.addEventListener("change", () => {
        side.run = this.closest(side, index, Number(select.value));
        this.choose();
      });
      label.append(select);
      holder.append(label);
      side.selects.push([index, select]);
    });
  }

  // The run with the chosen value that has most in common with the one before.
  closest(side, field, value) {
    const before = this.runOf(side).at;
    const score = (run) => (run.at[field] === value ? 1000 : 0)
      + run.at.filter((place, index) => index !== field && place === before[index]).length;
    return this.data.runs.reduce((best, run, index) => (score(run) > score(this.data.runs[best]) ? index : best), 0);
  }

  choose() {
    this.sides[1].node.hidden = !this.both.checked;
    this.root.classList.toggle("two", this.both.checked);
    for (const side of this.sides)
      for (const [index, select] of side.selects) select.value = this.runOf(side).at[index];
    const epoch = this.epochs ? this.epochs[this.slider.value] : undefined;
    const all = this.shown.flatMap((side) => PANELS.flatMap((name) => this.runOf(side)[name]?.epochs ?? []));
    this.epochs = [...new Set(all)].sort((a, b) => a - b);
    this.slider.max = this.epochs.length - 1;
    this.slider.value = epoch === undefined ? Math.round(this.epochs.length / 3) : nearest(this.epochs, epoch);
    this.describe();
    this.show();
    this.tell();
  }

  start() {
    if (Number(this.slider.value) === this.epochs.length - 1) this.slider.value = 0;
    this.timer = setInterval(() => {
      if (Number(this.slider.value) === this.epochs.length - 1) return this.stop();
      this.slider.value = Number(this.slider.value) + 1;
      this.show();
    }, RESTS);
    this.play.textContent = "❚❚ Pause";
    this.show();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.play.textContent = "▶ Play";
    this.tell();
  }

  // What both runs show has one scale, so that heights can be compared.
  range(panel, values, pad) {
    const all = finite(this.shown.flatMap((side) => {
      const found = this.runOf(side)[panel];
      return found ? values(found) : [];
    })).filter((value) => !pad.log || value > 0);
    const low = Math.min(...all);
    const high = Math.max(...all);
    return pad.log ? { low: low / 1.2, high: high * 1.3 } : { low, high };
  }

  show() {
    const epoch = this.epochs[this.slider.value];
    this.slider.setAttribute("aria-valuetext", `epoch ${format(epoch)}`);
    this.root.querySelector("output").textContent = format(epoch);
    for (const side of this.shown)
      for (const name of PANELS) {
        const node = side.node.querySelector(`[data-panel=${name}]`);
        const found = this.runOf(side)[name];
        const chart = node.querySelector(".chart");
        const reading = node.querySelector(".reading");
        node.classList.toggle("empty", !found);
        const height = this.root.clientWidth < 560 ? 170 : 210;
        // As high as that beside it, so that panels of one kind stand in a row.
        chart.style.minHeight = this.shown.some((other) => this.runOf(other)[name]) ? `${height}px` : "";
        if (!found) {
          chart.replaceChildren();
          chart.setAttribute("aria-label", "not measured");
          reading.textContent = "Not measured for this run.";
          continue;
        }
        const { words, ...drawn } = this[name](found, epoch);
        draw(chart, { height, ...drawn });
        chart.setAttribute("aria-label", words);
        reading.textContent = words;
      }
  }

  tell() {
    const epoch = this.epochs[this.slider.value];
    const words = this.shown.map((side, index) => `Run ${"AB"[index]}: ${PANELS.filter((name) => this.runOf(side)[name])
      .map((name) => side.node.querySelector(`[data-panel=${name}] .reading`).textContent).join(" ")}`);
    this.told.textContent = `Epoch ${format(epoch)}. ${words.join(" ")}`;
  }

  get time() {
    return { kind: "root", low: 0, high: Math.max(this.epochs.at(-1), 1e-6), label: "epoch" };
  }

  spectrum(found, epoch) {
    const at = nearest(found.epochs, epoch);
    const count = found.values.length;
    const range = this.range("spectrum", (panel) => [...panel.values.slice(0, 5), [panel.limit]], { log: true });
    const floor = this.range("spectrum", (panel) => panel.values, { log: true }).low;
    const elsewhere = found.elsewhere[at];
    const others = elsewhere === null ? "" : `, ${format(elsewhere)} along its vector on other images`;
    const largest = found.values[0][at];
    return {
      x: this.time,
      y: { kind: "log", ...range, low: Math.max(floor, range.high / 1e4) },
      lines: found.values.map((values, rank) => ({ x: found.epochs, y: values.map((value) => (value > 0 ? value : null)),
        colour: colourOfRank(rank, count), width: rank ? 1 : 2.2 })).reverse(),
      points: found.values.map((values, rank) => ({ x: found.epochs[at], y: values[at] > 0 ? values[at] : null,
        colour: colourOfRank(rank, count), size: rank ? 2.5 : 4.5 })).reverse(),
      across: { at: found.limit, words: "2 / (γ × rate)" },
      cursor: epoch,
      words: largest === null
        ? `Epoch ${format(found.epochs[at])}: diverged.`
        : `Epoch ${format(found.epochs[at])}: λ₁ = ${format(largest)} (residual ${format(found.residuals[at])}${others}).`,
    };
  }

  density(found, epoch) {
    const at = nearest(found.epochs, epoch);
    const y = this.range("density", (panel) => panel.curves, {});
    const outliers = found.outliers[at];
    return {
      x: { kind: "linear", ...this.range("density", (panel) => panel.places, {}), label: "eigenvalue of the Hessian" },
      y: { kind: "linear", low: y.low, high: y.high + 0.5, words: (tick) => (Number.isInteger(tick) ? `1e${tick}` : "") },
      lines: [
        ...found.curves.map((curve, index) => ({ x: found.places, y: curve, colour: "#888888", width: 1, faint: true,
          index })).filter((line) => line.index !== at),
        { x: found.places, y: found.curves[at], colour: COLOURS.density, width: 2 },
      ],
      ticks: outliers.map((value) => ({ x: value, colour: COLOURS.first })),
      words: `Epoch ${format(found.epochs[at])}: from ${format(Math.min(...outliers, found.places[0]))} to `
        + `${format(Math.max(...outliers))}; orange ticks are the largest eigenvalues.`,
    };
  }

  slices(found, epoch) {
    const at = nearest(found.epochs, epoch);
    const ceiling = this.range("slices", (panel) => [panel.ceiling], {}).high;
    const middle = found.losses[at][found.places.indexOf(0)];
    const inSteps = found.axis.startsWith("k");
    return {
      x: { kind: "linear", ...this.range("slices", (panel) => panel.places, {}), label: found.axis },
      y: { kind: "linear", low: 0, high: ceiling },
      strip: inSteps ? [-1, 1] : undefined,
      lines: [
        ...found.losses.map((losses, index) => ({ x: found.places, y: losses, colour: "#888888", width: 1, faint: true,
          index })).filter((line) => line.index !== at),
        { x: found.places, y: found.losses[at], colour: COLOURS.slice, width: 2.2 },
      ],
      points: [{ x: 0, y: middle, colour: COLOURS.slice }],
      words: `Epoch ${format(found.epochs[at])}: loss ${format(middle)} at the weights, `
        + `${format(found.losses[at][0])} and ${format(found.losses[at].at(-1))} at the ends of the slice.`,
    };
  }

  history(found, epoch) {
    const at = nearest(found.epochs, epoch);
    const validation = found.validation_loss ?? [];
    const losses = (panel) => [panel.training_loss, panel.validation_loss ?? []];
    const accuracy = found.validation_accuracy?.[at];
    const lost = found.diverged !== null && found.epochs[at] >= found.diverged;
    return {
      x: this.time,
      y: { kind: "log", ...this.range("history", losses, { log: true }) },
      lines: [
        { x: found.epochs, y: validation, colour: COLOURS.validation, width: 2, dash: "5 3" },
        { x: found.epochs, y: found.training_loss, colour: COLOURS.loss, width: 2 },
      ],
      points: [{ x: found.epochs[at], y: validation[at], colour: COLOURS.validation },
        { x: found.epochs[at], y: found.training_loss[at], colour: COLOURS.loss }],
      cursor: epoch,
      words: lost
        ? `Epoch ${format(found.epochs[at])}: diverged.`
        : `Epoch ${format(found.epochs[at])}: training loss ${format(found.training_loss[at])}, validation loss `
          + `${format(validation[at])}${accuracy == null ? "" : `, validation accuracy ${format(100 * accuracy)} %`}.`,
    };
  }

  // How the numbers beside were made.
  describe() {
    for (const side of this.shown) {
      const run = this.runOf(side);
      const list = side.node.querySelector(".made dl");
      list.replaceChildren();
      const add = (term, words, href) => {
        const dt = document.createElement("dt");
        dt.textContent = term;
        const dd = document.createElement("dd");
        const inner = document.createElement(href ? "a" : /^snakemake/.test(words) ? "code" : "span");
        if (href) inner.href = href;
        inner.textContent = words;
        dd.append(inner);
        list.append(dt, dd);
      };
      add("Run", run.name);
      for (const name of PANELS) {
        const source = run.sources[name];
        if (!source) continue;
        const title = side.node.querySelector(`[data-panel=${name}] .title`).textContent;
        add(title, source.table, source.table);
        const how = [source.settings && `settings ${source.settings}`, source.examples && `${source.examples} images`];
        add("computed by", [...how, source.by].filter(Boolean).join("; "));
        add("made anew by", source.command);
      }
    }
  }
}

const opened = async () => {
  const root = document.getElementById("explorer");
  if (!root) return;
  try {
    const data = JSON.parse(await unpack("explorer-data"));
    root.hidden = false;
    window.explorer = new Explorer(root, data);
  } catch (error) {
    root.hidden = false;
    root.textContent = `The explorer cannot be shown here: ${error.message}`;
  }
};
opened();
