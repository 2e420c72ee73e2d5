// Charts as SVG, drawn to the width that they have, with words of one size on every screen.
"use strict";

const format = (value) => {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
};

const drawing = (name, attributes, parent, words) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (words !== undefined) node.textContent = words;
  if (parent) parent.append(node);
  return node;
};

// From a value to its place between 0 and 1; "root" gives the first epochs their room.
const SCALES = {
  linear: (low, high) => (value) => (value - low) / (high - low || 1),
  log: (low, high) => (value) => Math.log(Math.max(value, low / 10) / low) / (Math.log(high / low) || 1),
  root: (low, high) => (value) => Math.sqrt(Math.max(0, value - low) / (high - low || 1)),
};

const ticksOf = (kind, low, high, most) => {
  const rounds = [];
  const decades = (first, last) => {
    for (let decade = first; decade <= last; decade++)
      for (const factor of [1, 2, 5]) rounds.push(Number(`${factor}e${decade}`));
  };
  if (kind === "log") {
    decades(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)));
    const inside = rounds.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    if (inside.length <= most) return inside;
    const tens = inside.filter((tick) => /^[1]/.test(tick.toExponential()));
    return tens.filter((_, index) => index % Math.ceil(tens.length / most) === 0);
  }
  if (kind === "root") {
    decades(-1, 4);
    const inside = [0, ...rounds].filter((tick) => tick <= high);
    const place = SCALES.root(low, high);
    const kept = [];
    for (const tick of inside)
      if (!kept.length || place(tick) - place(kept.at(-1)) > 0.7 / most) kept.push(tick);
    return kept;
  }
  const rough = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(rough || 1));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  for (let tick = Math.ceil(low / step); tick * step <= high + step / 1e6; tick++) rounds.push(tick * step);
  return rounds;
};

/* Draw a chart into an element, in place of what is there.
   chart: height; x and y, each with kind, low, high and label; lines, each with x, y, colour, and width, dash, low and
   high (a band) if it has them; points, each with x, y, colour; ticks, places on the x axis with a colour; cursor, a
   place on the x axis; strip, from where to where on the x axis; across, a height with its words. */
const draw = (holder, chart) => {
  const width = Math.max(150, holder.clientWidth);
  const { height } = chart;
  const room = { left: 46, right: 8, top: 8, bottom: 36 };
  const svg = drawing("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const scaleX = SCALES[chart.x.kind](chart.x.low, chart.x.high);
  const scaleY = SCALES[chart.y.kind](chart.y.low, chart.y.high);
  const inner = { width: width - room.left - room.right, height: height - room.top - room.bottom };
  const x = (value) => Math.round((room.left + scaleX(value) * inner.width) * 10) / 10;
  const y = (value) => Math.round((room.top + (1 - Math.min(1.5, scaleY(value))) * inner.height) * 10) / 10;
  const bottom = room.top + inner.height;
  const clip = `clip-${draw.count++}`;
  drawing("rect", { x: room.left, y: room.top, width: inner.width, height: inner.height },
    drawing("clipPath", { id: clip }, svg));
  if (chart.strip) {
    const [from, to] = chart.strip.map(x);
    drawing("rect", { x: from, y: room.top, width: to - from, height: inner.height, class: "strip" }, svg);
  }
  for (const tick of ticksOf(chart.y.kind, chart.y.low, chart.y.high, Math.max(2, inner.height / 34))) {
    drawing("line", { x1: room.left, x2: width - room.right, y1: y(tick), y2: y(tick), class: "grid" }, svg);
    const words = chart.y.words ? chart.y.words(tick) : format(tick);
    drawing("text", { x: room.left - 5, y: y(tick) + 4, "text-anchor": "end" }, svg, words);
  }
  for (const tick of ticksOf(chart.x.kind, chart.x.low, chart.x.high, Math.max(2, inner.width / 50)))
    drawing("text", { x: x(tick), y: bottom + 15, "text-anchor": "middle" }, svg, format(tick));
  const label = drawing("text",
    { x: room.left + inner.width / 2, y: height - 4, "text-anchor": "middle", class: "label" }, svg, chart.x.label);
  drawing("path", { d: `M${room.left} ${room.top}V${bottom}H${width - room.right}`, class: "axis" }, svg);
  const inside = drawing("g", { "clip-path": `url(#${clip})` }, svg);
  const path = (xs, ys) => {
    let pen = "M";
    let words = "";
    xs.forEach((value, index) => {
      if (ys[index] === null || ys[index] === undefined) { pen = "M"; return; }
      words += `${pen}${x(value)} ${y(ys[index])}`;
      pen = "L";
    });
    return words;
  };
  if (chart.across && scaleY(chart.across.at) <= 1) {
    const at = y(chart.across.at);
    drawing("line", { x1: room.left, x2: width - room.right, y1: at, y2: at, class: "across" }, inside);
    const under = at < room.top + 18 ? 14 : -4;
    if (inner.width > 140)
      drawing("text", { x: width - room.right - 3, y: at + under, "text-anchor": "end", class: "halo" }, inside,
        chart.across.words);
  }
  for (const line of chart.lines || []) {
    if (line.low) {
      const back = path([...line.x].reverse(), [...line.high].reverse()).replace("M", "L");
      drawing("path", { d: `${path(line.x, line.low)}${back}Z`, fill: line.colour, "fill-opacity": 0.18 }, inside);
    }
    const attributes = { d: path(line.x, line.y), fill: "none", stroke: line.colour, "stroke-width": line.width || 2,
      "stroke-linejoin": "round" };
    if (line.dash) attributes["stroke-dasharray"] = line.dash;
    if (line.faint) attributes["stroke-opacity"] = 0.25;
    drawing("path", attributes, inside);
  }
  if (chart.cursor !== undefined)
    drawing("line", { x1: x(chart.cursor), x2: x(chart.cursor), y1: room.top, y2: bottom, class: "cursor" }, svg);
  for (const tick of chart.ticks || [])
    drawing("line", { x1: x(tick.x), x2: x(tick.x), y1: bottom - 10, y2: bottom, stroke: tick.colour,
      "stroke-width": 1.5 }, inside);
  for (const point of chart.points || [])
    if (point.y !== null && point.y !== undefined)
      drawing("circle", { cx: x(point.x), cy: y(point.y), r: point.size || 4, fill: point.colour, class: "point" },
        inside);
  holder.replaceChildren(svg);
  // On a phone two runs side by side have little room for the words below an axis.
  const long = label.getComputedTextLength();
  if (long > inner.width) label.setAttribute("x", width / 2);
  if (long > width) label.style.fontSize = `${(12 * width) / long}px`;
};
draw.count = 0;

// What stands packed in the page: gzip in base64, which every browser since 2023 unpacks by itself.
const unpack = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

const whenWidthChanges = (node, action) => {
  let before = 0;
  new ResizeObserver(() => {
    if (Math.abs(node.clientWidth - before) < 1) return;
    before = node.clientWidth;
    action();
  }).observe(node);
};

// The panels that the page begins with.
for (const holder of document.querySelectorAll("[data-overview]")) {
  const { lines } = JSON.parse(holder.querySelector("script").textContent);
  const chart = holder.querySelector(".chart");
  const all = (name) => lines.flatMap((line) => line[name]).filter((value) => value !== null && value > 0);
  const overview = {
    height: 230,
    x: { kind: "root", low: 0, high: Math.max(...all("epochs")), label: "epoch" },
    y: { kind: "log", low: Math.min(...all("low")) * 0.9, high: Math.max(...all("high")) * 1.1 },
    lines: lines.map((line) => ({ x: line.epochs, y: line.mean, low: line.low, high: line.high, colour: line.colour })),
  };
  whenWidthChanges(chart, () => draw(chart, overview));
}

// Figures to hover over and to turn: their library is unpacked when the first of them comes into sight.
if (document.getElementById("plotly")) {
  let library;
  const loaded = () => (library ||= unpack("plotly").then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  }));
  const show = async (holder) => {
    const { data, layout, config } = JSON.parse(holder.querySelector("script").textContent);
    try {
      await loaded();
      holder.replaceChildren();
      await Plotly.newPlot(holder, data, layout, config);
    } catch (error) {
      holder.textContent = `This figure cannot be drawn here (${error.message}); the picture above shows the same.`;
    }
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        show(entry.target);
      }
  }, { rootMargin: "200px" });
  document.querySelectorAll(".interactive").forEach((holder) => seen.observe(holder));
}

// A link into something folded unfolds it.
const unfold = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();

// A button beside what one takes along.
for (const block of document.querySelectorAll("pre.take")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  block.before(button);
}
