// Drawing and zooming: what fits into the window is decided anew whenever the time range changes.

const lanes = document.getElementById("lanes");
const WHOLE = [-data.duration * 0.005, data.duration * 1.005];
const pen = document.createElement("canvas").getContext("2d");
let fitting = false;

const millis = (value) => typeof value === "number" ? value : Date.parse(String(value).replace(" ", "T") + (/Z$/.test(value) ? "" : "Z"));
const range = () => lanes._fullLayout.xaxis.range.map(millis);
const pixelsPerMs = () => { const [a, b] = range(); return lanes._fullLayout.xaxis._length / (b - a); };
const chartLeft = () => lanes._fullLayout.xaxis._offset;
const timeToPixel = (t) => chartLeft() + (t - range()[0]) * pixelsPerMs();
const pixelToTime = (x) => range()[0] + (x - chartLeft()) / pixelsPerMs();

function shortened(text, room) {
  text = String(text).replace(/\s+/g, " ").trim();
  if (!text || room < 14) return "";
  if (pen.measureText(text).width <= room) return plain(text);
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pen.measureText(text.slice(0, middle) + "…").width <= room) low = middle; else high = middle - 1;
  }
  return low < 3 ? "" : plain(text.slice(0, low).trimEnd()) + "…";
}

// A turn is labelled word by word where its words have room, as a whole otherwise.
function wordByWord(turn) {
  const words = turn.words;
  if (!words.length) return false;
  const fits = words.filter(([text, a, b]) => pen.measureText(text).width + 6 <= (b - a) * pixelsPerMs());
  return fits.length >= 0.75 * words.length;
}

function fitLabels() {
  const [from, to] = range(), scale = pixelsPerMs();
  pen.font = `12px ${lanes._fullLayout.font.family}`;
  const spaced = new Map(data.turns.map((t) => [t, wordByWord(t)]));
  const byWhole = new Map(data.turns.map((t) => [t.sounded[0], t]));
  const texts = [], at = [], starts = [];
  lanes.data.forEach((trace, i) => {
    if (!trace.meta || !trace.meta.labels) return;
    const x = [];
    const text = trace.meta.labels.map((item) => {
      const turn = item.ofTurn || (item.ofWord && byWhole.get(item.ofWord[0]));
      const start = item.ofWord ? item.x : Math.max(item.x, Math.min(from, item.end));
      x.push(start);
      if (item.end < from || start > to || (turn && spaced.get(turn) === Boolean(item.ofTurn))) return "";
      const cut = item.ofWord && item.heard === false;
      return cut ? "" : shortened(item.text, (Math.min(item.end, to) - start) * scale - 7);
    });
    texts.push(text);
    starts.push(x);
    at.push(i);
  });
  return { at, texts, starts };
}

function fitPictures() {
  const [from, to] = range(), scale = pixelsPerMs(), room = lane.pictures.height * 0.88;
  const images = [];
  let free = from;
  for (const shot of data.pictures.thumbnails) {
    const width = Math.min(room * shot.w / shot.h, 3 * room);
    if (shot.t < free || shot.t + width / scale > to + 2 / scale) continue;
    images.push({ source: shot.src, xref: "x", yref: lane.pictures.axis, x: shot.t, y: 1, xanchor: "left", yanchor: "top",
      sizex: width / scale, sizey: 0.88, sizing: "contain", layer: "above" });
    free = shot.t + (width + 3) / scale;
  }
  return images;
}

// All changes go through one `react`: `restyle` of x would make plotly guess the axis type again.
async function fit() {
  if (fitting) return;
  fitting = true;
  try {
    const { at, texts, starts } = fitLabels();
    const unit = data.units.length ? (data.units[0].span[1] - data.units[0].span[0]) * pixelsPerMs() : 0;
    const fitted = lanes.data.map((trace, i) => {
      const label = at.indexOf(i);
      if (label >= 0) return { ...trace, text: texts[label], x: starts[label] };
      return trace.meta && trace.meta.edges ? { ...trace, line: { ...trace.line, width: unit > 5 ? 1 : 0 } } : trace;
    });
    const [from, to] = range();
    await Plotly.react(lanes, fitted, { ...lanes.layout, images: fitPictures(), xaxis: { ...lanes.layout.xaxis, range: [from, to] } });
  } finally {
    fitting = false;
  }
  document.dispatchEvent(new Event("lanes"));
}

async function draw(shown) {
  fitting = true;
  await Plotly.react(lanes, traces(), layout(shown), {
    responsive: true, displaylogo: false, displayModeBar: false, doubleClick: false, scrollZoom: false,
  });
  fitting = false;
  document.querySelectorAll(".swatch").forEach((svg) => {
    const i = Number(svg.dataset.hop);
    svg.replaceChildren(symbolPath(SYMBOLS[i % 8], hopColour(i)));
  });
  await fit();
}

const PATHS = {
  circle: "M6,0A6,6 0 1,1 -6,0A6,6 0 1,1 6,0Z", square: "M-5,-5H5V5H-5Z", diamond: "M0,-7L7,0L0,7L-7,0Z",
  "triangle-up": "M0,-6L6,5H-6Z", "triangle-down": "M0,6L6,-5H-6Z", cross: "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
  x: "M-6,-4L-4,-6L0,-2L4,-6L6,-4L2,0L6,4L4,6L0,2L-4,6L-6,4L-2,0Z",
  star: "M0,-7L1.7,-2.3L6.7,-2.2L2.7,0.9L4.1,5.7L0,2.9L-4.1,5.7L-2.7,0.9L-6.7,-2.2L-1.7,-2.3Z",
};
function symbolPath(symbol, ink) {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[symbol]);
  path.setAttribute("fill", ink);
  return path;
}

function zoomTo(from, to) {
  const least = 200, most = WHOLE[1] - WHOLE[0];
  const width = Math.min(Math.max(to - from, least), most);
  const start = Math.min(Math.max((from + to - width) / 2, WHOLE[0]), WHOLE[1] - width);
  return Plotly.relayout(lanes, { "xaxis.range": [start, start + width] });
}
function zoomBy(factor, around) {
  const [from, to] = range();
  const middle = around ?? (from + to) / 2;
  return zoomTo(middle - (middle - from) * factor, middle + (to - middle) * factor);
}

document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
  const by = { in: 0.5, out: 2 }[button.dataset.zoom];
  return by ? zoomBy(by, cursorInView()) : zoomTo(...WHOLE);
}));
