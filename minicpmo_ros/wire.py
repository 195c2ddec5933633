"""Dataclasses to ROS messages and back, for rclpy's types and for those that rosbags reads.

Both kinds have the same field names; they differ in how a message is made and in what holds an
array. `Types` hides that difference, so every field is named once.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.compressed import picture_from_compressed
from minicpmo_ros.media.image import picture_from_raw
from minicpmo_ros.messages import (
    MIC_RATE_HZ,
    NS_PER_S,
    Action,
    Alert,
    AudioChunk,
    Decision,
    Picture,
    Playback,
    PlaybackEvent,
    SessionState,
    Severity,
    SpeechChunk,
    StageTiming,
    State,
    VoiceActivity,
    WordMark,
)

Message = AudioChunk | SpeechChunk | Decision | Alert | Playback | VoiceActivity | SessionState

# Pictures larger than this are scaled down when they are decoded: no brain looks at more.
MAX_SIDE = 2048


class Types(Protocol):
    """Makes ROS messages: rclpy's or rosbags'."""

    def new(self, name: str, /, **fields: Any) -> Any:
        """A message of the type, e.g. "std_msgs/msg/Header"."""

    def int16(self, samples: np.ndarray) -> Any:
        """What an int16[] field takes."""


def stamp_ns(time: Any) -> int:
    """builtin_interfaces/Time to integer nanoseconds."""
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def samples_of(data: Any) -> np.ndarray:
    """An int16[] field as int16 [n], without a copy."""
    return np.frombuffer(data, np.int16) if len(data) else np.zeros(0, np.int16)


def to_ros(message: Message, types: Types) -> Any:
    """The ROS message that carries the dataclass."""
    return _WRITERS[type(message)](message, types)


def type_name(kind: type) -> str:
    """ROS type of a dataclass, e.g. "minicpmo_ros/msg/Decision"."""
    return f"minicpmo_ros/msg/{kind.__name__}"


def _time(at_ns: int, types: Types) -> Any:
    return types.new("builtin_interfaces/msg/Time", sec=at_ns // NS_PER_S, nanosec=at_ns % NS_PER_S)


def _header(at_ns: int, types: Types, frame_id: str = "") -> Any:
    return types.new("std_msgs/msg/Header", stamp=_time(at_ns, types), frame_id=frame_id)


def _write_audio(m: AudioChunk, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/AudioChunk",
        header=_header(m.stamp_ns, types, m.frame_id),
        sequence=m.sequence,
        sample_rate=m.sample_rate,
        channels=m.channels,
        muted=m.muted,
        data=types.int16(m.data.reshape(-1)),
    )


def audio_chunk(msg: Any) -> AudioChunk:
    """Raises InputError for a rate that cannot be, or channels that do not fit the samples."""
    data = samples_of(msg.data)
    channels = int(msg.channels)
    _check_rate("AudioChunk", int(msg.sample_rate))
    if not 1 <= channels <= 8:
        raise InputError(f"AudioChunk with channels={channels}: 1 to 8 are possible")
    if len(data) % channels:
        raise InputError(
            f"AudioChunk of {len(data)} samples cannot be {channels} interleaved channels: "
            f"the length must be a multiple of {channels}"
        )
    return AudioChunk(
        stamp_ns=stamp_ns(msg.header.stamp),
        data=data if channels == 1 else data.reshape(-1, channels),
        sample_rate=int(msg.sample_rate),
        sequence=int(msg.sequence),
        muted=bool(msg.muted),
        frame_id=str(msg.header.frame_id),
    )


def _check_rate(kind: str, rate_hz: int) -> None:
    if not 4_000 <= rate_hz <= 192_000:
        raise InputError(f"{kind} with sample_rate={rate_hz} Hz: 4000 to 192000 are possible")


def asked_sound(msg: Any) -> np.ndarray:
    """The sound of a chat goal as int16 [n] at 16 kHz, empty where there is none."""
    if not len(msg.data):
        return np.zeros(0, np.int16)
    chunk = audio_chunk(msg)
    if chunk.sample_rate != MIC_RATE_HZ or chunk.channels != 1:
        raise InputError(
            f"the sound of a chat has {chunk.sample_rate} Hz and {chunk.channels} channels: "
            f"{MIC_RATE_HZ} Hz and 1 channel are expected"
        )
    return chunk.data


def picture(msg: Any) -> Picture:
    """sensor_msgs/Image, decoded when looked at. Raises InputError for a message that lies."""
    return picture_from_raw(
        stamp_ns=stamp_ns(msg.header.stamp),
        width=int(msg.width),
        height=int(msg.height),
        encoding=str(msg.encoding),
        step=int(msg.step),
        is_bigendian=bool(msg.is_bigendian),
        data=msg.data,
        frame_id=str(msg.header.frame_id),
        max_side=MAX_SIDE,
    )


def compressed_picture(msg: Any) -> Picture:
    """sensor_msgs/CompressedImage, decoded when looked at. Raises InputError."""
    return picture_from_compressed(
        stamp_ns=stamp_ns(msg.header.stamp),
        format=str(msg.format),
        data=msg.data,
        frame_id=str(msg.header.frame_id),
        max_side=MAX_SIDE,
    )


def _write_speech(m: SpeechChunk, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/SpeechChunk",
        header=_header(m.stamp_ns, types),
        epoch=m.epoch,
        turn=m.turn,
        sequence=m.sequence,
        unit=m.unit,
        last=m.last,
        sample_rate=m.sample_rate,
        text=m.text,
        words=[
            types.new(
                "minicpmo_ros/msg/WordMark",
                text=w.text,
                start_sample=w.start_sample,
                end_sample=w.end_sample,
            )
            for w in m.words
        ],
        data=types.int16(m.data),
    )


def speech_chunk(msg: Any) -> SpeechChunk:
    """Raises InputError for a rate that no speaker plays."""
    rate = int(msg.sample_rate)
    _check_rate("SpeechChunk", rate)
    return SpeechChunk(
        stamp_ns=stamp_ns(msg.header.stamp),
        epoch=int(msg.epoch),
        turn=int(msg.turn),
        sequence=int(msg.sequence),
        unit=int(msg.unit),
        data=samples_of(msg.data),
        text=str(msg.text),
        words=tuple(WordMark(w.text, int(w.start_sample), int(w.end_sample)) for w in msg.words),
        last=bool(msg.last),
        sample_rate=rate,
    )


def _write_decision(m: Decision, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/Decision",
        header=_header(m.stamp_ns, types),
        unit=m.unit,
        epoch=m.epoch,
        turn=m.turn,
        action=int(m.action),
        text=m.text,
        end_of_turn=m.end_of_turn,
        reason=m.reason,
        brain=m.brain,
        mode=m.mode,
        p_listen=m.p_listen,
        p_speak=m.p_speak,
        pictures=[_time(at, types) for at in m.pictures],
        audio_filled_ms=m.audio_filled_ms,
        kv_length=m.kv_length,
        kv_capacity=m.kv_capacity,
        timings=[
            types.new("minicpmo_ros/msg/StageTiming", stage=t.stage, ms=t.ms) for t in m.timings
        ],
    )


def decision(msg: Any) -> Decision:
    return Decision(
        stamp_ns=stamp_ns(msg.header.stamp),
        unit=int(msg.unit),
        epoch=int(msg.epoch),
        action=Action(int(msg.action)),
        turn=int(msg.turn),
        text=str(msg.text),
        end_of_turn=bool(msg.end_of_turn),
        reason=str(msg.reason),
        brain=str(msg.brain),
        mode=str(msg.mode),
        p_listen=float(msg.p_listen),
        p_speak=float(msg.p_speak),
        pictures=tuple(stamp_ns(at) for at in msg.pictures),
        audio_filled_ms=float(msg.audio_filled_ms),
        kv_length=int(msg.kv_length),
        kv_capacity=int(msg.kv_capacity),
        timings=tuple(StageTiming(t.stage, float(t.ms)) for t in msg.timings),
    )


def _write_alert(m: Alert, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/Alert",
        header=_header(m.stamp_ns, types),
        kind=m.kind,
        number=m.number,
        severity=int(m.severity),
        active=m.active,
        text=m.text,
        unit=m.unit,
        epoch=m.epoch,
        evidence=[_time(at, types) for at in m.evidence],
        expires=_time(m.expires_ns, types),
    )


def alert(msg: Any) -> Alert:
    return Alert(
        stamp_ns=stamp_ns(msg.header.stamp),
        kind=str(msg.kind),
        number=int(msg.number),
        severity=Severity(int(msg.severity)),
        active=bool(msg.active),
        text=str(msg.text),
        unit=int(msg.unit),
        epoch=int(msg.epoch),
        evidence=tuple(stamp_ns(at) for at in msg.evidence),
        expires_ns=stamp_ns(msg.expires),
    )


def _write_playback(m: Playback, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/Playback",
        header=_header(m.stamp_ns, types),
        epoch=m.epoch,
        turn=m.turn,
        event=int(m.event),
        sample_rate=m.sample_rate,
        turn_samples=m.turn_samples,
        heard=m.heard,
        queued_samples=m.queued_samples,
        concealed_samples=m.concealed_samples,
    )


def playback(msg: Any) -> Playback:
    """Raises InputError for a rate that no speaker plays."""
    event = PlaybackEvent(int(msg.event))
    _check_rate("Playback", int(msg.sample_rate))
    return Playback(
        stamp_ns=stamp_ns(msg.header.stamp),
        epoch=int(msg.epoch),
        turn=int(msg.turn),
        event=event,
        turn_samples=int(msg.turn_samples),
        heard=str(msg.heard),
        queued_samples=int(msg.queued_samples),
        concealed_samples=int(msg.concealed_samples),
        sample_rate=int(msg.sample_rate),
    )


def _write_voice(m: VoiceActivity, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/VoiceActivity",
        header=_header(m.stamp_ns, types),
        speaking=m.speaking,
        segment=m.segment,
        probability=m.probability,
        loudness=m.loudness,
    )


def voice_activity(msg: Any) -> VoiceActivity:
    return VoiceActivity(
        stamp_ns=stamp_ns(msg.header.stamp),
        speaking=bool(msg.speaking),
        segment=int(msg.segment),
        probability=float(msg.probability),
        loudness=float(msg.loudness),
    )


def _write_state(m: SessionState, types: Types) -> Any:
    return types.new(
        "minicpmo_ros/msg/SessionState",
        header=_header(m.stamp_ns, types),
        state=int(m.state),
        epoch=m.epoch,
        turn=m.turn,
        unit=m.unit,
        mode=m.mode,
        brain=m.brain,
        detail=m.detail,
    )


def session_state(msg: Any) -> SessionState:
    return SessionState(
        stamp_ns=stamp_ns(msg.header.stamp),
        state=State(int(msg.state)),
        epoch=int(msg.epoch),
        turn=int(msg.turn),
        unit=int(msg.unit),
        mode=str(msg.mode),
        brain=str(msg.brain),
        detail=str(msg.detail),
    )


_WRITERS: dict[type, Any] = {
    AudioChunk: _write_audio,
    SpeechChunk: _write_speech,
    Decision: _write_decision,
    Alert: _write_alert,
    Playback: _write_playback,
    VoiceActivity: _write_voice,
    SessionState: _write_state,
}

READERS: dict[str, Any] = {
    "sensor_msgs/msg/Image": picture,
    "sensor_msgs/msg/CompressedImage": compressed_picture,
    "minicpmo_ros/msg/AudioChunk": audio_chunk,
    "minicpmo_ros/msg/SpeechChunk": speech_chunk,
    "minicpmo_ros/msg/Decision": decision,
    "minicpmo_ros/msg/Alert": alert,
    "minicpmo_ros/msg/Playback": playback,
    "minicpmo_ros/msg/VoiceActivity": voice_activity,
    "minicpmo_ros/msg/SessionState": session_state,
}
