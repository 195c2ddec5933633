// The readout beside the lanes: all that was seen, heard, decided and said at one moment.

const readout = document.getElementById("readout");
const element = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const holds = (span, t) => span[0] <= t && t < span[1];
const milliseconds = (ms) => ms === null ? "" : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

function pictureAt(t) {
  const before = data.pictures.thumbnails.filter((shot) => shot.t <= t).pop();
  const lost = data.pictures.gaps.some((gap) => gap[0] < t && t < gap[1]);
  return { shot: before, lost };
}

function speechAt(turn, t) {
  const said = element("span");
  if (!turn.words.length) said.append(turn.text);
  for (const [text, start, stop, heard] of turn.words) {
    said.append(element(heard === false ? "del" : start <= t && t < stop ? "mark" : "span", text), " ");
  }
  return said;
}

function* rowsAt(t) {
  const unit = data.units.find((u) => holds(u.span, t));
  if (unit) {
    const sure = unit.pSpeak === null ? "" : `, p(speak) ${unit.pSpeak.toFixed(2)}`;
    yield ["unit " + unit.unit, `${unit.action}${sure}${unit.reason ? ": " + unit.reason : ""}`];
    if (unit.late !== null) yield ["decided", `${milliseconds(unit.late)} after its end`];
    if (unit.stages.length) yield ["brain", unit.stages.map(([name, ms]) => `${name} ${milliseconds(ms)}`).join(", ")];
    if (unit.kv[1]) yield ["KV cache", `${unit.kv[0]} of ${unit.kv[1]} tokens`];
    if (unit.filled) yield ["filled in", `${Math.round(unit.filled)} ms of silence`];
  }
  const voice = data.voice.find((v) => holds(v.span, t));
  if (voice) {
    const loud = voice.loudness === null ? "" : `, ${voice.loudness.toFixed(0)} dBFS`;
    yield ["voice", `someone speaks (p ${voice.p === null ? "?" : voice.p.toFixed(2)}${loud})`];
  }
  if (data.mic.lost.some((span) => holds(span, t))) yield ["mic", "no sound arrived"];
  if (data.mic.muted.some((span) => holds(span, t))) yield ["mic", "muted"];
  for (const turn of data.turns) {
    if (holds([turn.sounded[0], turn.unheard ? turn.unheard[1] : turn.sounded[1]], t)) yield ["turn " + turn.turn, speechAt(turn, t)];
  }
  for (const alert of data.alerts.filter((a) => holds(a.span, t))) {
    const text = element("span");
    text.append(element("span", alert.severity.toLowerCase(), "severity " + alert.severity.toLowerCase()), " ", alert.text);
    yield ["alert " + alert.number, text];
  }
  const state = data.states.find((s) => holds(s.span, t));
  if (state) yield ["state", state.state.toLowerCase() + (state.detail ? ": " + state.detail : "")];
  const epoch = data.epochs.filter((e) => e.t <= t).pop();
  if (epoch) yield ["epoch", String(epoch.epoch)];
}

let readAt = 0;
function show(t) {
  readAt = t;
  const parts = [element("h3", clock(t, 2))];
  if (data.pictures.count) {
    const { shot, lost } = pictureAt(t);
    if (shot && !lost) {
      const image = element("img");
      image.src = shot.src;
      image.alt = "Picture captured at " + clock(shot.t, 2);
      image.width = shot.w;
      image.height = shot.h;
      image.style.height = "auto";
      parts.push(image);
    } else parts.push(element("div", lost ? "camera lost" : "no picture yet", "noimage"));
  }
  const list = element("dl");
  for (const [name, value] of rowsAt(t)) {
    const cell = element("dd");
    cell.append(value);
    list.append(element("dt", name), cell);
  }
  if (!list.children.length) list.append(element("dt", "–"), element("dd", "nothing recorded here"));
  parts.push(list);
  readout.replaceChildren(...parts);
}
