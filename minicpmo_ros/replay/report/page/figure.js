// The figure: which lanes there are, and the traces and layout that plotly draws for them.

const data = JSON.parse(document.getElementById("data").textContent);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

// Plotly reads tags and entities in its labels; what a recording says must stay text.
const plain = (text) => String(text).replace(/\s+/g, " ")
  .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const samples = (base64) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 32768);
};
const sound = (envelope) => envelope && {
  start: envelope.start, bin: envelope.bin, low: samples(envelope.low), high: samples(envelope.high),
};
const mic = sound(data.mic.envelope);
const played = sound(data.played.envelope);
// A bin in which no sound came has its lowest sample above its highest.
const silent = (s, i) => s.low[i] > s.high[i];
const peak = (s) => s.high.reduce((most, v, i) => silent(s, i) ? most : Math.max(most, v, -s.low[i]), 0);
const decibels = (s) => peak(s) > 0 ? `peak ${Math.round(20 * Math.log10(peak(s))) || 0} dBFS` : "digital silence";

// Alerts that overlap in time lie in rows below one another.
const alertRows = [];
for (const alert of data.alerts) {
  let row = alertRows.findIndex((end) => end <= alert.span[0]);
  if (row < 0) row = alertRows.length < 5 ? alertRows.length : 4;
  alertRows[row] = Math.max(alertRows[row] || 0, alert.span[1]);
  alert.row = row;
}
data.alerts.forEach((alert, i) => {
  const next = data.alerts.slice(i + 1).find((other) => other.row === alert.row);
  alert.room = next ? next.span[0] : Infinity;
});

const LANES = [
  { id: "pictures", height: window.innerWidth < 620 ? 62 : 92, title: "Pictures", count: data.pictures.count, none: "no pictures in this recording",
    about: `${data.pictures.count.toLocaleString("en")} received` },
  { id: "mic", height: 74, title: "Microphone", count: mic ? 1 : 0, none: "no microphone sound in this recording",
    about: mic ? decibels(mic) : "" },
  { id: "voice", height: 20, title: "Voice", count: data.voice.length, none: "nobody spoke" },
  { id: "decisions", height: 50, title: "Decisions", count: data.units.length, none: "no decisions in this recording",
    about: "low: listen, high: speak" + (data.units.some((u) => u.pSpeak !== null) ? ", line: probability of speaking" : "") },
  { id: "speech", height: 54, title: "Speech", count: data.turns.length, none: "the robot said nothing",
    about: "solid: heard, hatched: cut off" },
  { id: "playback", height: 46, title: "Playback", count: played || data.playback.length ? 1 : 0, none: "no playback reports in this recording",
    about: "▶ starts, ■ ends, ✕ interrupted" },
  { id: "alerts", height: 30 * Math.max(1, alertRows.length), title: "Alerts", count: data.alerts.length, none: "no alerts",
    about: "each until it is cleared or expires" },
  { id: "state", height: 20, title: "State", count: data.states.length, none: "no session state in this recording" },
  { id: "latency", height: 96, title: "Latency", count: data.hops.length, none: "no latency could be measured", about: "ms, see the table below" },
];
const LEFT = 42, RIGHT = 8, TITLE = 24, TOP = 16, BOTTOM = 34;
const HEIGHT = LANES.reduce((sum, lane) => sum + lane.height + TITLE, 0) + TOP + BOTTOM;
{
  const inner = HEIGHT - TOP - BOTTOM;
  let down = 0;
  LANES.forEach((lane, i) => {
    lane.axis = i ? "y" + (i + 1) : "y";
    down += TITLE;
    lane.domain = [1 - (down + lane.height) / inner, 1 - down / inner];
    lane.titleAt = 1 - (down - 3) / inner;
    down += lane.height;
  });
}
const lane = Object.fromEntries(LANES.map((l) => [l.id, l]));
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
const hopColour = (i) => colour("hop-" + (i % 8));

// Rectangles as one path: [[from, to, bottom, top], ...].
const rectangles = (id, boxes, style) => {
  const x = [], y = [];
  for (const [a, b, low, high] of boxes) {
    x.push(a, b, b, a, a, null);
    y.push(low, low, high, high, low, null);
  }
  return { type: "scatter", mode: "lines", x, y, yaxis: lane[id].axis, fill: "toself", line: { width: 0 }, hoverinfo: "skip", ...style };
};
// Labels are filled in by what fits; an empty one would keep plotly from drawing it later.
const labels = (id, items, ink) => ({
  type: "scatter", mode: "text", x: [], y: [], text: [], textposition: "middle right", textfont: { size: 12, color: ink },
  yaxis: lane[id].axis, hoverinfo: "skip", cliponaxis: true, meta: { labels: items },
});
// A sound's outline: one closed path for each stretch in which sound came.
const outline = (id, s, ink, top) => {
  const x = [], y = [], scale = 0.5 / Math.max(top, 0.02);
  for (let i = 0; i < s.low.length; i++) {
    if (silent(s, i)) continue;
    const from = i;
    while (i < s.low.length && !silent(s, i)) i++;
    for (let k = from; k < i; k++) { x.push(s.start + (k + 0.5) * s.bin); y.push(0.5 + s.high[k] * scale); }
    for (let k = i - 1; k >= from; k--) { x.push(s.start + (k + 0.5) * s.bin); y.push(0.5 + s.low[k] * scale); }
    x.push(null);
    y.push(null);
  }
  return { type: "scatter", mode: "lines", x, y, yaxis: lane[id].axis, fill: "toself", fillcolor: ink, line: { width: 1, color: ink }, hoverinfo: "skip" };
};
const hatched = (ink, strength = 0.9) => ({
  fillpattern: { shape: "/", size: 7, solidity: 0.25, fgcolor: ink, fgopacity: strength, bgcolor: "rgba(0,0,0,0)" },
  fillcolor: ink, line: { width: 1, color: ink },
});

function traces() {
  const ink = colour("ink"), mark = colour("on-mark"), made = [];
  const shots = data.pictures.thumbnails;
  made.push({ type: "scatter", mode: "markers", x: shots.map((s) => s.t), y: shots.map(() => 0.02), yaxis: lane.pictures.axis,
    marker: { symbol: "line-ns-open", size: 6, color: colour("soft"), line: { width: 1 } }, hoverinfo: "skip" });
  made.push(rectangles("pictures", data.pictures.gaps.map(([a, b]) => [a, b, 0, 0.1]), hatched(colour("lost"))));

  if (mic) made.push(outline("mic", mic, colour("mic"), peak(mic)));
  made.push(rectangles("mic", data.mic.lost.map(([a, b]) => [a, b, 0, 1]), hatched(colour("lost"))));
  made.push(rectangles("mic", data.mic.muted.map(([a, b]) => [a, b, 0, 1]), hatched(colour("soft"))));

  made.push(rectangles("voice", data.voice.map((v) => [...v.span, 0, 1]), { fillcolor: colour("voice") }));

  const edge = { width: 1, color: colour("card") };
  const unitsOf = (action) => data.units.filter((u) => u.action === action);
  made.push(rectangles("decisions", unitsOf("LISTEN").map((u) => [...u.span, 0, 0.42]), { fillcolor: colour("listen"), line: edge, meta: { edges: true } }));
  made.push(rectangles("decisions", unitsOf("SPEAK").map((u) => [...u.span, 0, 1]), { fillcolor: colour("speak"), line: edge, meta: { edges: true } }));
  const sure = data.units.filter((u) => u.pSpeak !== null);
  made.push({ type: "scatter", mode: "lines+markers", x: sure.map((u) => (u.span[0] + u.span[1]) / 2), y: sure.map((u) => u.pSpeak),
    yaxis: lane.decisions.axis, line: { width: 1.5, color: ink }, marker: { size: sure.length > 400 ? 0 : 4 }, hoverinfo: "skip" });
  made.push(labels("decisions", unitsOf("SPEAK").map((u) => ({ x: u.span[0], y: 0.5, end: u.span[1], text: u.text || u.reason, lines: 3 })), mark));
  made.push(labels("decisions", unitsOf("LISTEN").map((u) => ({ x: u.span[0], y: 0.2, end: u.span[1], text: u.reason })), ink));

  made.push(rectangles("speech", data.turns.map((t) => [...t.sounded, 0.05, 0.95]), { fillcolor: colour("heard") }));
  made.push(rectangles("speech", data.turns.filter((t) => t.unheard).map((t) => [...t.unheard, 0.05, 0.95]), hatched(colour("unheard"), 0.4)));
  for (const [ofHeard, tint] of [[true, mark], [false, ink]]) {
    made.push(labels("speech", data.turns.flatMap((turn) => {
      const words = turn.words.filter((w) => (w[3] !== false) === ofHeard);
      const [x, end] = ofHeard ? turn.sounded : turn.unheard || [0, 0];
      const text = words.map((w) => w[0]).join(" ") || (ofHeard ? turn.text : "");
      return [{ x, end, y: 0.5, text, turn, lines: 3 }, ...words.map(([word, a, b]) => ({ x: a, end: b, y: 0.5, text: word, turn, word: true }))];
    }), tint));
  }

  if (played) made.push(outline("playback", played, colour("played"), peak(played)));
  else made.push(rectangles("playback", data.turns.map((t) => [...t.sounded, 0.3, 0.7]), { fillcolor: colour("played") }));
  for (const [event, symbol] of [["STARTED", "triangle-right"], ["FINISHED", "square"], ["INTERRUPTED", "x"]]) {
    const at = data.playback.filter((p) => p.event === event);
    made.push({ type: "scatter", mode: "markers", x: at.map((p) => p.t), y: at.map(() => 0.5), yaxis: lane.playback.axis,
      marker: { symbol, size: 11, color: event === "INTERRUPTED" ? colour("lost") : ink, line: { width: 1.5, color: colour("card") } }, hoverinfo: "skip", meta: { marks: at.map((p) => p.t) } });
  }

  const rows = Math.max(1, alertRows.length);
  const box = (a) => [...a.span, 1 - (a.row + 0.9) / rows, 1 - (a.row + 0.6) / rows];
  for (const severity of ["INFO", "NOTICE", "WARNING", "CRITICAL"]) {
    const some = data.alerts.filter((a) => a.severity === severity);
    made.push(rectangles("alerts", some.map(box), { fillcolor: colour(severity.toLowerCase()) }));
    made.push(labels("alerts", some.map((a) => ({
      x: a.span[0], y: 1 - (a.row + 0.3) / rows, end: a.room, until: a.span[1], text: `${severity.toLowerCase()}: ${a.text}`, flush: true,
    })), ink));
  }

  for (const state of ["IDLE", "LISTENING", "SPEAKING", "FAULT"]) {
    const some = data.states.filter((s) => s.state === state);
    made.push(rectangles("state", some.map((s) => [...s.span, 0, 1]), { fillcolor: colour(state.toLowerCase()), line: { width: 1, color: colour("card") }, meta: { edges: true } }));
    made.push(labels("state", some.map((s) => ({ x: s.span[0], y: 0.5, end: s.span[1], text: state.toLowerCase() + (s.detail ? ": " + s.detail : "") })), ink));
  }

  data.hops.forEach((hop, i) => made.push({
    type: "scatter", mode: "markers", x: hop.t, y: hop.ms.map((ms) => Math.max(ms, 0.1)), yaxis: lane.latency.axis,
    marker: { symbol: SYMBOLS[i % 8], size: hop.t.length > 300 ? 4 : 6, color: hopColour(i), opacity: 0.85 }, hoverinfo: "skip",
  }));
  return made;
}

// Round times at least 70 pixels apart, as minutes and seconds.
function ticks([from, to], width) {
  const steps = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 900000, 1800000, 3600000];
  const step = steps.find((s) => s * width >= 70 * (to - from)) || 3600000 * Math.ceil((to - from) / 36000000);
  const tickvals = [];
  for (let t = Math.ceil(Math.max(from, 0) / step) * step; t <= to; t += step) tickvals.push(t);
  const digits = step >= 1000 ? 0 : step >= 100 ? 1 : 2;
  return { tickmode: "array", tickvals, ticktext: tickvals.map((t) => clock(t, digits)) };
}
function clock(ms, digits) {
  const parts = 10 ** digits, total = Math.max(0, Math.round(ms * parts / 1000));
  const seconds = ((total % (60 * parts)) / parts).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const minutes = Math.floor(total / (60 * parts)), hours = Math.floor(minutes / 60);
  return (hours ? hours + ":" : "") + String(minutes % 60).padStart(2, "0") + ":" + seconds;
}

function layout() {
  const ink = colour("ink"), soft = colour("soft"), rule = colour("rule");
  const made = {
    width: lanes.clientWidth, height: HEIGHT, margin: { l: LEFT, r: RIGHT, t: TOP, b: BOTTOM, autoexpand: false }, showlegend: false, hovermode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    xaxis: {
      range: shown.slice(), domain: [0, 1], anchor: "free", position: 0, showgrid: true, gridcolor: rule, zeroline: false,
      tickcolor: rule, ticks: "outside", tickfont: { color: soft, size: 12 }, ...ticks(shown, plotWidth()),
    },
    annotations: [], shapes: [], images: [],
  };
  const ms = data.hops.flatMap((h) => h.ms);
  const most = ms.reduce((a, b) => Math.max(a, b), 10), least = ms.reduce((a, b) => Math.min(a, b), most);
  for (const l of LANES) {
    made["yaxis" + l.axis.slice(1)] = l.id === "latency" && l.count
      ? { domain: l.domain, anchor: "x", type: "log", gridcolor: rule, zeroline: false, tickfont: { color: soft, size: 11 },
        range: [Math.log10(Math.max(least, 0.1)) - 0.15, Math.log10(most) + 0.15], tickvals: [0.1, 1, 10, 100, 1000, 10000],
        ticktext: ["≤0.1", "1", "10", "100", "1 s", "10 s"] }
      : { domain: l.domain, anchor: "x", range: [0, 1], visible: false };
    const about = l.count && l.about ? `  <span style="color:${soft}">${plain(l.about)}</span>` : "";
    made.annotations.push({ xref: "paper", yref: "paper", x: 0, y: l.titleAt, xanchor: "left", yanchor: "bottom", xshift: -LEFT + 1,
      text: `<b>${l.title}</b>${about}`, showarrow: false, font: { size: 12.5, color: ink } });
    if (!l.count) made.annotations.push({ xref: "paper", yref: "paper", x: 0.5, y: (l.domain[0] + l.domain[1]) / 2, yanchor: "middle",
      text: `<i>${l.none}</i>`, showarrow: false, font: { size: 13, color: soft } });
    made.shapes.push({ type: "line", xref: "paper", yref: "paper", x0: 0, x1: 1, y0: l.domain[0], y1: l.domain[0], line: { color: rule, width: 1 }, layer: "below" });
  }
  return made;
}

// Epochs as lines through all lanes, as long as they are few enough to be told apart.
function epochMarks([from, to]) {
  const seen = data.epochs.filter((mark) => mark.t >= from && mark.t <= to);
  if (seen.length > 30) return { shapes: [], annotations: [] };
  const ink = colour("lost");
  return {
    shapes: seen.map((mark) => ({ type: "line", x0: mark.t, x1: mark.t, yref: "paper", y0: 0, y1: 1, line: { color: ink, width: 1, dash: "dot" }, layer: "below" })),
    annotations: seen.map((mark) => ({ x: mark.t, yref: "paper", y: 1, yanchor: "bottom", xanchor: mark.t > to - 0.03 * (to - from) ? "right" : "center", text: `epoch ${mark.epoch}`, showarrow: false, font: { size: 11, color: ink } })),
  };
}
