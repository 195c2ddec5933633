// What a pointer does over the lanes: read out, set the cursor, play a turn, zoom and move.

const selection = document.getElementById("selection");
let pressed = null, lastClick = -1e9;

function spotOf(event) {
  const box = lanes.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const inside = x >= LEFT - 4 && x <= LEFT + plotWidth() + 4 && y >= 0 && y <= HEIGHT - BOTTOM;
  return { inside, x, t: pixelToTime(Math.min(Math.max(x, LEFT), LEFT + plotWidth())), y: 1 - (y - TOP) / (HEIGHT - TOP - BOTTOM) };
}
function turnUnder(spot) {
  if (spot.y < lane.speech.domain[0] || spot.y > lane.speech.domain[1]) return -1;
  return data.turns.findIndex((t) => holds([t.sounded[0], t.unheard ? t.unheard[1] : t.sounded[1]], spot.t));
}
function point(t) {
  pointed = t;
  place("pointer", t);
  if (!playing || playing.paused) show(t === null ? cursor : t);
}
function select(a, b) {
  selection.hidden = false;
  Object.assign(selection.style, { left: Math.min(a, b) + "px", width: Math.abs(a - b) + "px", top: TOP + "px", height: HEIGHT - TOP - BOTTOM + "px" });
}

lanes.addEventListener("pointerdown", (event) => {
  const spot = spotOf(event);
  if (event.button !== 0 || !spot.inside) return;
  // A finger moves the lanes, as everywhere; a mouse selects what to zoom to.
  pressed = { ...spot, at: event.timeStamp, moves: event.shiftKey || event.pointerType !== "mouse", from: shown, dragged: false };
  if (event.pointerType === "mouse") event.preventDefault();
});
window.addEventListener("pointermove", (event) => {
  const spot = spotOf(event);
  if (!pressed) {
    const over = spot.inside && event.pointerType === "mouse" && lanes.contains(event.target);
    if (over || pointed !== null) point(over ? spot.t : null);
    lanes.style.cursor = over && turnUnder(spot) >= 0 ? "pointer" : "crosshair";
    return;
  }
  const way = spot.x - pressed.x;
  pressed.dragged = pressed.dragged || Math.abs(way) > 4;
  if (!pressed.dragged) return;
  if (pressed.moves) zoomTo(pressed.from[0] - way / pixelsPerMs(), pressed.from[1] - way / pixelsPerMs());
  else select(timeToPixel(pressed.t), timeToPixel(spot.t));
});
window.addEventListener("pointerup", (event) => {
  const start = pressed;
  pressed = null;
  selection.hidden = true;
  if (!start) return;
  const spot = spotOf(event);
  if (start.dragged) {
    if (!start.moves) zoomTo(Math.min(start.t, spot.t), Math.max(start.t, spot.t));
    return;
  }
  if (event.timeStamp - lastClick < 350) {
    lastClick = -1e9;
    zoomTo(...WHOLE);
    return;
  }
  lastClick = event.timeStamp;
  const turn = turnUnder(spot);
  if (turn >= 0) playTurn(turn); else seek(spot.t);
});
window.addEventListener("pointercancel", () => { pressed = null; selection.hidden = true; });
document.documentElement.addEventListener("pointerleave", () => { if (pointed !== null) point(null); });
lanes.addEventListener("wheel", (event) => {
  const spot = spotOf(event), sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
  if (!spot.inside || !(event.ctrlKey || event.metaKey || sideways)) return;
  event.preventDefault();
  if (event.ctrlKey || event.metaKey) zoomBy(Math.exp(event.deltaY / 300), spot.t); else moveBy(sideways / pixelsPerMs());
}, { passive: false });

document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
  const by = { in: 0.5, out: 2 }[button.dataset.zoom];
  const middle = used && cursor > shown[0] && cursor < shown[1] ? cursor : (shown[0] + shown[1]) / 2;
  return by ? zoomBy(by, middle) : zoomTo(...WHOLE);
}));
document.addEventListener("keydown", (event) => {
  if (event.target.closest("button, a, audio, input") || event.altKey || event.ctrlKey || event.metaKey) return;
  const width = shown[1] - shown[0];
  const acts = {
    ArrowLeft: () => moveBy(-width / 4), ArrowRight: () => moveBy(width / 4), "0": () => zoomTo(...WHOLE),
    "+": () => zoomBy(0.5, (shown[0] + shown[1]) / 2), "-": () => zoomBy(2, (shown[0] + shown[1]) / 2),
    " ": () => whole && (whole.paused ? whole.play() : whole.pause()),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

const state = document.documentElement.dataset;
document.addEventListener("lanes", () => { place("cursor", used ? cursor : null); place("pointer", pointed); });
draw().then(() => {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = lanes.clientWidth;
  new ResizeObserver(() => {
    if (lanes.clientWidth === width) return;
    width = lanes.clientWidth;
    fit();
  }).observe(lanes);
  show(0);
  state.report = "ready";
}).catch((error) => { state.report = "failed: " + error.message; throw error; });
