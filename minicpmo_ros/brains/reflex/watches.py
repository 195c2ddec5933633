"""From what is sensed to alerts: one watch a kind, and the sentence that each alert says."""

from __future__ import annotations

from minicpmo_ros.brains.api import Surroundings
from minicpmo_ros.brains.reflex import wording
from minicpmo_ros.brains.reflex.alerts import (
    CAMERA_COVERED,
    CAMERA_LOST,
    CAMERA_UNREADABLE,
    MICROPHONE_LOST,
    MOTION_AFTER_STILLNESS,
    RULES,
    SUDDEN_DARKNESS,
    SUDDEN_LIGHT,
    SUDDEN_LOUD_SOUND,
    Announcement,
    Watch,
)
from minicpmo_ros.brains.reflex.config import ReflexConfig
from minicpmo_ros.brains.reflex.endpoint import Phase
from minicpmo_ros.brains.reflex.hearing import Heard
from minicpmo_ros.brains.reflex.seeing import Seen
from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.timeline.unit import Unit


class Watches:
    """All kinds of alert. `follow` is called once a unit and gives what is to be announced."""

    def __init__(self, config: ReflexConfig) -> None:
        self._config = config
        self._watch = {kind: Watch(kind, config) for kind in RULES}
        self._last_picture: tuple[int, ...] = ()
        self._still_s = 0.0
        self._moving_units = 0

    def follow(
        self,
        now_s: float,
        unit: Unit,
        around: Surroundings,
        seen: Seen,
        heard: Heard,
        phase: Phase,
    ) -> list[Announcement]:
        """Announcements of this unit; now_s is the session's length in seconds at its end."""
        self._last_picture = seen.stamps[-1:] or self._last_picture
        return [
            *self._streams(now_s, around),
            *self._pictures(now_s, seen),
            *self._sound(now_s, heard),
            *self._stillness(now_s, unit, seen, phase),
        ]

    def _streams(self, now_s: float, around: Surroundings) -> list[Announcement]:
        microphone, camera = around.mic_lost_ms, around.camera_lost_ms
        return self._watch[MICROPHONE_LOST].state(
            now_s,
            microphone >= self._config.microphone_lost_ms,
            f"The microphone has sent no sound for {wording.seconds(microphone / 1000)}.",
        ) + self._watch[CAMERA_LOST].state(
            now_s,
            camera >= self._config.camera_lost_ms,
            f"The camera has sent no picture for {wording.seconds(camera / 1000)}.",
            self._last_picture,
        )

    def _pictures(self, now_s: float, seen: Seen) -> list[Announcement]:
        view = seen.view
        announced = self._watch[CAMERA_UNREADABLE].state(
            now_s,
            view is None if seen.stamps else None,
            "The camera's pictures cannot be read.",
            seen.stamps[-1:],
        )
        if view is None:
            return announced
        evidence = (view.stamp_ns,)
        announced += self._watch[CAMERA_COVERED].state(
            now_s, seen.covered, wording.covered(view), evidence
        )
        darkness, light = self._watch[SUDDEN_DARKNESS], self._watch[SUDDEN_LIGHT]
        if seen.light < 0:
            announced += light.clear(now_s, evidence)
            announced += darkness.event(now_s, "The picture suddenly became darker.", evidence)
        elif seen.light > 0:
            announced += darkness.clear(now_s, evidence)
            announced += light.event(now_s, "The picture suddenly became brighter.", evidence)
        return announced

    def _sound(self, now_s: float, heard: Heard) -> list[Announcement]:
        if heard.bang is None:
            return []
        return self._watch[SUDDEN_LOUD_SOUND].event(
            now_s, "There was a sudden loud sound.", (heard.bang.stamp_ns,)
        )

    def _stillness(self, now_s: float, unit: Unit, seen: Seen, phase: Phase) -> list[Announcement]:
        """Motion that lasts, after long without motion or voice."""
        if phase is not Phase.SILENCE:
            self._still_s = 0.0
        if seen.motion is None or seen.view is None:
            return []
        if seen.motion.fraction < self._config.motion_fraction:
            self._moving_units = 0
            self._still_s += (unit.end_ns - unit.start_ns) / NS_PER_S
            return []
        self._moving_units += 1
        if self._moving_units < self._config.confirm_units:
            return []
        still_s, self._still_s = self._still_s, 0.0
        if still_s < self._config.stillness_s:
            return []
        return self._watch[MOTION_AFTER_STILLNESS].event(
            now_s,
            f"Something moves after {wording.seconds(still_s)} of stillness.",
            (seen.view.stamp_ns,),
        )
