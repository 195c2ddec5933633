// Drawing and zooming: what fits into the window is decided anew whenever the time range changes.

const lanes = document.getElementById("lanes");
const WHOLE = [-data.duration * 0.005, data.duration * 1.005];
const pen = document.createElement("canvas").getContext("2d");
let fitting = false, fixed = null;

let shown = WHOLE, again = false;

const plotWidth = () => Math.max(50, lanes.clientWidth - LEFT - RIGHT);
const pixelsPerMs = () => plotWidth() / (shown[1] - shown[0]);
const timeToPixel = (t) => LEFT + (t - shown[0]) * pixelsPerMs();
const pixelToTime = (x) => shown[0] + (x - LEFT) / pixelsPerMs();

function shortened(text, room) {
  text = String(text).replace(/\s+/g, " ").trim();
  if (!text || room < Math.min(30, pen.measureText(text).width)) return "";
  if (pen.measureText(text).width <= room) return plain(text);
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pen.measureText(text.slice(0, middle) + "…").width <= room) low = middle; else high = middle - 1;
  }
  return low < 3 ? "" : plain(text.slice(0, low).trimEnd()) + "…";
}

// At most so many lines; the last one ends in "…" where more was to come.
function wrapped(text, room, lines) {
  const words = String(text).split(/\s+/).filter(Boolean), made = [];
  if (room < 40) return shortened(text, room);
  while (words.length && made.length < lines) {
    let row = words.shift();
    if (made.length === lines - 1) row = [row, ...words.splice(0)].join(" ");
    while (words.length && pen.measureText(row + " " + words[0]).width <= room) row += " " + words.shift();
    const short = shortened(row, room);
    if (short) made.push(short);
    if (short !== plain(row)) return made.join("<br>") + (short || !made.length ? "" : "…");
  }
  return made.join("<br>");
}

// A turn is labelled word by word where its words have room, as a whole otherwise.
function wordByWord(turn) {
  const words = turn.words;
  if (!words.length) return false;
  const fits = words.filter(([text, a, b]) => pen.measureText(text).width + 6 <= (b - a) * pixelsPerMs());
  return fits.length >= 0.75 * words.length;
}

function fitLabels() {
  const [from, to] = shown, scale = pixelsPerMs();
  pen.font = `12px ${lanes.layout.font.family}`;
  const spaced = new Map(data.turns.map((turn) => [turn, wordByWord(turn)]));
  for (const trace of lanes.data) {
    if (!trace.meta || !trace.meta.labels) continue;
    Object.assign(trace, { x: [], y: [], text: [] });
    for (const item of trace.meta.labels) {
      if ((item.until ?? item.end) < from || item.x > to) continue;
      if (item.turn && spaced.get(item.turn) !== Boolean(item.word)) continue;
      // What began before the window is labelled where the window begins.
      const start = item.word ? item.x : Math.max(item.x, from);
      const inset = item.flush || item.word ? 0 : 5;
      const text = wrapped(item.text, (Math.min(item.end, to) - start) * scale - 2 * inset, item.lines || 1);
      if (!text) continue;
      trace.x.push(start + inset / scale);
      trace.y.push(item.y);
      trace.text.push(text);
    }
  }
}

function fitPictures() {
  const [from, to] = shown, scale = pixelsPerMs(), room = lane.pictures.height * 0.88;
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

// Draws the time range that is shown; calls that come meanwhile are answered by one drawing more.
async function fit() {
  if (fitting) { again = true; return; }
  fitting = true;
  try {
    do {
      again = false;
      fitLabels();
      const unit = data.units.length ? (data.units[0].span[1] - data.units[0].span[0]) * pixelsPerMs() : 0;
      for (const trace of lanes.data) {
        if (trace.meta && trace.meta.edges) trace.line.width = unit > 5 ? 1 : 0;
        if (trace.meta && trace.meta.marks) trace.visible = trace.meta.marks.filter((t) => t >= shown[0] && t <= shown[1]).length <= 60;
      }
      const marks = epochMarks(shown);
      lanes.layout.shapes = [...fixed.shapes, ...marks.shapes];
      lanes.layout.annotations = [...fixed.annotations, ...marks.annotations];
      lanes.layout.images = fitPictures();
      lanes.layout.width = lanes.clientWidth;
      Object.assign(lanes.layout.xaxis, { range: shown.slice(), ...ticks(shown, plotWidth()) });
      await Plotly.redraw(lanes);
    } while (again);
  } finally {
    fitting = false;
  }
  document.dispatchEvent(new Event("lanes"));
}

// Plotly draws; what pointers do is in pointer.js, the same over all lanes and the room between them.
async function draw() {
  lanes.style.height = HEIGHT + "px";
  fixed = layout();
  await Plotly.newPlot(lanes, traces(), { ...fixed }, { staticPlot: true, displaylogo: false });
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
  shown = [start, start + width];
  return fit();
}
const moveBy = (ms) => zoomTo(shown[0] + ms, shown[1] + ms);
const zoomBy = (factor, around) => zoomTo(around - (around - shown[0]) * factor, around + (shown[1] - around) * factor);
