// Sound, the cursor that follows it, and what a pointer on the lanes does.

const whole = document.getElementById("conversation");
const line = { cursor: document.getElementById("cursor"), pointer: document.getElementById("pointer") };
let cursor = 0, playing = null, pressed = null, pointed = null;

const cursorInView = () => { const [from, to] = range(); return cursor > from && cursor < to ? cursor : undefined; };
function place(which, t) {
  const [from, to] = range();
  line[which].hidden = t === null || t < from || t > to;
  if (line[which].hidden) return;
  line[which].style.left = timeToPixel(t) + "px";
  line[which].style.top = TOP + "px";
  line[which].style.height = HEIGHT - TOP - BOTTOM + "px";
}
function setCursor(t) {
  cursor = Math.min(Math.max(t, 0), data.duration);
  place("cursor", cursor);
  if (pointed === null) show(cursor);
}
function seek(t) {
  setCursor(t);
  if (whole && data.conversation) {
    whole.currentTime = Math.min(Math.max((cursor - data.conversation.start) / 1000, 0), data.conversation.duration / 1000);
  }
}

// What sounds: the conversation, or one turn from its first sample on. A turn's words hold both
// places in its sound and times on the lanes, so the cursor also keeps to them where it was late.
function soundTime() {
  if (playing === whole) return data.conversation.start + whole.currentTime * 1000;
  return playing.turnStart + playing.currentTime * 1000;
}
function follow() {
  if (!playing || playing.paused) return;
  setCursor(soundTime());
  const [from, to] = range();
  if (cursor > to && cursor < WHOLE[1] && from > WHOLE[0] + 1) zoomTo(cursor, cursor + (to - from));
  requestAnimationFrame(follow);
}
function started(audio) {
  if (playing && playing !== audio) playing.pause();
  playing = audio;
  requestAnimationFrame(follow);
}
if (whole) {
  whole.addEventListener("play", () => started(whole));
  whole.addEventListener("seeked", () => { if (whole.paused) setCursor(data.conversation.start + whole.currentTime * 1000); });
}
function playTurn(i) {
  const audio = document.getElementById("turn-" + i);
  if (!audio) return;
  if (!audio.paused) return audio.pause();
  audio.currentTime = 0;
  audio.turnStart = data.turns[i].sounded[0];
  audio.play();
}
data.turns.forEach((_, i) => {
  const audio = document.getElementById("turn-" + i), button = document.querySelector(`[data-turn="${i}"]`);
  if (!audio) return;
  const row = document.getElementById("row-" + i);
  const showState = () => {
    row.classList.toggle("on", !audio.paused);
    button.textContent = audio.paused ? "▶" : "❚❚";
  };
  audio.addEventListener("play", () => { started(audio); showState(); });
  audio.addEventListener("pause", showState);
  audio.addEventListener("ended", showState);
  button.addEventListener("click", () => playTurn(i));
});
document.querySelectorAll("[data-at]").forEach((link) => link.addEventListener("click", () => {
  const turn = data.turns[Number(link.dataset.at)], end = turn.unheard ? turn.unheard[1] : turn.sounded[1];
  seek(turn.sounded[0]);
  zoomTo(turn.sounded[0] - 1500, end + 1500);
}));

function inChart(event) {
  const box = lanes.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const left = chartLeft(), inside = x >= left && x <= left + lanes._fullLayout.xaxis._length && y >= 0 && y <= HEIGHT - BOTTOM;
  return inside ? { t: pixelToTime(x), y: 1 - (y - TOP) / (HEIGHT - TOP - BOTTOM) } : null;
}
function turnUnder(spot) {
  if (spot.y < lane.speech.domain[0] || spot.y > lane.speech.domain[1]) return -1;
  return data.turns.findIndex((t) => holds([t.sounded[0], t.unheard ? t.unheard[1] : t.sounded[1]], spot.t));
}
function point(t) {
  pointed = t;
  place("pointer", t);
  show(t === null ? cursor : t);
}
lanes.addEventListener("pointermove", (event) => {
  const spot = inChart(event);
  if (event.pointerType !== "mouse" || event.buttons) return;
  point(spot ? spot.t : null);
  const drag = lanes.querySelector(".nsewdrag");
  lanes.classList.toggle("playable", Boolean(spot && turnUnder(spot) >= 0));
  if (drag) lanes.querySelectorAll(".nsewdrag").forEach((d) => { d.style.cursor = lanes.classList.contains("playable") ? "pointer" : "crosshair"; });
});
lanes.addEventListener("pointerleave", () => point(null));
lanes.addEventListener("pointerdown", (event) => {
  pressed = event.button === 0 && inChart(event) ? { x: event.clientX, y: event.clientY, at: event.timeStamp } : null;
}, true);
// Plotly covers the page while a button is down, so its release is seen on the window only.
let lastClick = 0;
window.addEventListener("pointerup", (event) => {
  const start = pressed;
  pressed = null;
  if (!start || Math.hypot(event.clientX - start.x, event.clientY - start.y) > 4 || event.timeStamp - start.at > 600) return;
  const spot = inChart(event);
  if (!spot) return;
  if (event.timeStamp - lastClick < 350) {
    lastClick = 0;
    zoomTo(...WHOLE);
    return;
  }
  lastClick = event.timeStamp;
  const turn = turnUnder(spot);
  if (turn >= 0) playTurn(turn); else seek(spot.t);
}, true);
document.addEventListener("lanes", () => { place("cursor", cursor); place("pointer", pointed); });

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const state = document.documentElement.dataset;
draw(WHOLE).then(() => {
  lanes.on("plotly_relayout", fit);
  dark.addEventListener("change", () => draw(range()));
  setCursor(0);
  state.report = "ready";
}).catch((error) => { state.report = "failed: " + error.message; throw error; });
