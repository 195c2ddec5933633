// Sound, and the cursor that follows it.

const whole = document.getElementById("conversation");
const line = { cursor: document.getElementById("cursor"), pointer: document.getElementById("pointer") };
let cursor = 0, used = false, playing = null, pointed = null;

function place(which, t) {
  const hidden = t === null || t < shown[0] || t > shown[1];
  line[which].hidden = hidden;
  if (hidden) return;
  line[which].style.left = timeToPixel(t) + "px";
  line[which].style.top = TOP + "px";
  line[which].style.height = HEIGHT - TOP - BOTTOM + "px";
}
function setCursor(t) {
  used = true;
  cursor = Math.min(Math.max(t, 0), data.duration);
  place("cursor", cursor);
  const sounds = playing && !playing.paused;
  if (sounds ? Math.abs(cursor - readAt) > 60 : pointed === null) show(cursor);
}
function seek(t) {
  setCursor(t);
  if (whole && data.conversation) {
    whole.currentTime = Math.min(Math.max((cursor - data.conversation.start) / 1000, 0), data.conversation.duration / 1000);
  }
}

// Where on the lanes that is which sounds: the conversation, or one turn from its first sample on.
function soundTime() {
  if (playing === whole) return data.conversation.start + whole.currentTime * 1000;
  return playing.turnStart + playing.currentTime * 1000;
}
function follow() {
  if (!playing || playing.paused) return;
  setCursor(soundTime());
  if (cursor > shown[1] && cursor < data.duration) moveBy(cursor - shown[0]);
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

