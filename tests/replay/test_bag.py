"""Bags: what is written is read back, other robots' bags fit, bad ones are named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from minicpmo_ros import messages as m
from minicpmo_ros import topics as t
from minicpmo_ros.errors import InputError
from minicpmo_ros.replay.bag import BagWriter, open_bag
from minicpmo_ros.replay.interfaces import interface_folder, typestore
from minicpmo_ros.topics import Topic

S = m.NS_PER_S
START = 1_700_000_000 * S
EVERY_KIND = {
    t.MIC: m.AudioChunk(START, np.arange(-800, 800, dtype=np.int16), 16_000, 7, True, "head"),
    t.PLAYED: m.AudioChunk(START, np.zeros((240, 2), np.int16), 24_000),
    t.SPEECH: m.SpeechChunk(
        START + 5, 2, 3, 1, 9, np.arange(50, dtype=np.int16), "hi you",
        (m.WordMark("hi", 0, 20), m.WordMark("you", 20, 50)), True,
    ),
    t.DECISION: m.Decision(
        START, 4, 1, m.Action.SPEAK, 2, "yes", True, "why", "reflex", "duplex", 0.25, 0.75,
        (START - 5, START - 1), 12.5, 10, 100, (m.StageTiming("brain", 1.5),),
    ),
    t.ALERT: m.Alert(
        START, "bang", 1, m.Severity.WARNING, True, "A bang.", 4, 1, (1, 2), START + 9
    ),
    t.PLAYBACK: m.Playback(START, 2, 3, m.PlaybackEvent.INTERRUPTED, 50, "hi", 0, 5),
    t.VOICE: m.VoiceActivity(START, True, 1, 0.5, -20.0),
    t.STATE: m.SessionState(START, m.State.SPEAKING, 2, 3, 4, "duplex", "reflex", "why"),
}  # fmt: skip


def equal(one: object, other: object) -> bool:
    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return (value.shape, value.tolist())
        return value

    return type(one) is type(other) and all(
        plain(getattr(one, name)) == plain(getattr(other, name))
        for name in one.__dataclass_fields__  # type: ignore[attr-defined]
    )


def write_mics(path: Path, count: int = 5, **options: object) -> Path:
    with BagWriter(path, **options) as bag:  # type: ignore[arg-type]
        for i in range(count):
            at = START + i * S // 10
            bag.write(t.MIC, at, m.AudioChunk(at, np.full(1600, i, np.int16), sequence=i))
    return path


def write_foreign(path: Path, topics: dict[str, str]) -> Path:
    """A bag of another program: one message on each topic, by name and type."""
    store = typestore()
    header = store.types["std_msgs/msg/Header"](
        store.types["builtin_interfaces/msg/Time"](1, 2), "cam"
    )
    pixels = np.arange(12, dtype=np.uint8)
    made = {
        "sensor_msgs/msg/Image": (header, 2, 2, "rgb8", 0, 6, pixels),
        "std_msgs/msg/String": ("hello",),
        "minicpmo_ros/msg/AudioChunk": (header, 0, 16_000, 1, False, np.zeros(8, np.int16)),
    }
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for at, (name, kind) in enumerate(topics.items()):
            link = bag.add_connection(name, kind, typestore=store)
            message = store.types[kind](*made[kind])
            bag.write(link, START + at, store.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize("topic", EVERY_KIND, ids=lambda topic: topic.name)
def test_every_message_comes_back_as_it_was_written(tmp_path: Path, topic: Topic) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(topic, START + 3, EVERY_KIND[topic])
    with open_bag(tmp_path / "bag") as bag:
        [(found, log_ns, message)] = bag.messages()
    assert (found, log_ns) == (topic, START + 3)
    assert equal(message, EVERY_KIND[topic])


def test_a_picture_comes_back_as_the_same_scene(tmp_path: Path) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :32] = (200, 30, 60)
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(t.IMAGE_COMPRESSED, START, m.Picture.of(START - 7, rgb, "head"))
    with open_bag(tmp_path / "bag") as bag:
        [(topic, _, picture)] = bag.messages()
    assert isinstance(picture, m.Picture)
    assert (topic, picture.stamp_ns, picture.frame_id) == (t.IMAGE_COMPRESSED, START - 7, "head")
    assert np.abs(picture.rgb()[:, :24].astype(int) - (200, 30, 60)).max() < 8


def test_messages_come_in_order_of_log_time_and_of_writing_where_that_is_equal(
    tmp_path: Path,
) -> None:
    times = [5, 1, 3, 3, 2, 3]
    with BagWriter(tmp_path / "bag") as bag:
        for i, at in enumerate(times):
            bag.write(t.MIC, START + at, m.AudioChunk(START, np.zeros(1, np.int16), sequence=i))
    with open_bag(tmp_path / "bag") as bag:
        order = [message.sequence for _, _, message in bag.messages()]  # type: ignore[union-attr]
    assert order == [1, 4, 2, 3, 5, 0]


def test_same_messages_give_same_bytes_whatever_the_bag_is_called(tmp_path: Path) -> None:
    for name in ("one", "another"):
        with BagWriter(tmp_path / name) as bag:
            for topic, message in EVERY_KIND.items():
                bag.write(topic, START, message)
    for file in ("data.mcap", "metadata.yaml"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "another" / file).read_bytes()


def test_records_copy_a_bag_byte_for_byte(tmp_path: Path) -> None:
    source = write_mics(tmp_path / "source")
    with open_bag(source) as bag, BagWriter(tmp_path / "copy") as copy:
        for record in bag.records():
            copy.write_raw(record.topic, record.log_ns, record.raw)
    assert (source / "data.mcap").read_bytes() == (tmp_path / "copy/data.mcap").read_bytes()


def test_bag_says_what_it_holds(tmp_path: Path) -> None:
    with open_bag(write_mics(tmp_path / "bag", 11)) as bag:
        assert bag.counts == {t.MIC: 11}
        assert bag.start_ns == START
        assert bag.duration_s == 1.0


def test_written_topics_carry_type_definition_and_quality_of_service(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(t.ALERT, START, EVERY_KIND[t.ALERT])
    with Reader(tmp_path / "bag") as reader:
        [link] = reader.connections
    assert link.digest == typestore().hash_rihs01(t.ALERT.type)
    assert "string kind" in link.msgdef.data
    assert "MSG: std_msgs/Header" in link.msgdef.data
    [qos] = link.ext.offered_qos_profiles
    assert (qos.reliability.name, qos.durability.name) == ("RELIABLE", "TRANSIENT_LOCAL")
    assert qos.depth == 10


@pytest.mark.parametrize("name", ["data.mcap", "alone.mcap"])
def test_a_single_mcap_file_opens(tmp_path: Path, name: str) -> None:
    bag = write_mics(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    file = (bag / "data.mcap").rename(tmp_path / name)
    with open_bag(file) as opened:
        assert sum(1 for _ in opened.messages()) == 5


def test_a_folder_without_metadata_opens_by_its_only_file(tmp_path: Path) -> None:
    bag = write_mics(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    with open_bag(bag) as opened:
        assert sum(1 for _ in opened.messages()) == 5


def test_topics_under_a_namespace_are_found(tmp_path: Path) -> None:
    with open_bag(write_mics(tmp_path / "bag", namespace="robot1")) as bag:
        assert bag.namespace == "/robot1"
        assert bag.topics == (t.MIC,)


def test_our_types_decide_between_namespaces(tmp_path: Path) -> None:
    image = "sensor_msgs/msg/Image"
    path = write_foreign(
        tmp_path / "bag",
        {"/rear/image_raw": image, "/r/audio/mic": t.MIC.type, "/r/image_raw": image},
    )
    with open_bag(path) as bag:
        assert bag.namespace == "/r"
        assert set(bag.topics) == {t.MIC, t.IMAGE}


def test_two_robots_in_a_bag_must_be_told_apart(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "bag", {"/a/audio/mic": t.MIC.type, "/b/audio/mic": t.MIC.type})
    with pytest.raises(InputError, match=r"/a, /b.*say which"):
        open_bag(path)
    with open_bag(path, namespace="b") as bag:
        assert [r.log_ns for r in bag.records()] == [START + 1]
    with pytest.raises(InputError, match=r"'/c'.*/a, /b"):
        open_bag(path, namespace="/c")


def test_remapping_takes_another_drivers_topic(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "bag", {"/camera/image": "sensor_msgs/msg/Image"})
    with open_bag(path, remap={"camera/image": "image_raw"}) as bag:
        [(topic, _, picture)] = bag.messages()
    assert topic is t.IMAGE
    assert isinstance(picture, m.Picture)
    assert picture.rgb().tolist() == np.arange(12).reshape(2, 2, 3).tolist()


def test_a_remapping_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "bag", {"/chat": "std_msgs/msg/String"})
    with pytest.raises(InputError, match=r"no /nothing of type .*holds: /chat"):
        open_bag(path, remap={"nothing": "image_raw"})
    with pytest.raises(InputError, match="no topic 'pictures' to map"):
        open_bag(path, remap={"chat": "pictures"})
    with pytest.raises(InputError, match=r"no /chat of type sensor_msgs/msg/Image"):
        open_bag(path, remap={"chat": "image_raw"})


def test_a_bag_without_our_topics_lists_what_it_has(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "bag", {"/chat": "std_msgs/msg/String"})
    with pytest.raises(InputError, match=r"no topic of ours.*/chat \(std_msgs/msg/String\)"):
        open_bag(path)


def test_an_empty_bag_is_refused(tmp_path: Path) -> None:
    BagWriter(tmp_path / "bag").close()
    with pytest.raises(InputError, match="is empty: nothing was recorded"):
        open_bag(tmp_path / "bag")


def test_a_topic_of_ours_with_another_type_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_foreign(
        tmp_path / "bag", {"/audio/mic": t.MIC.type, "/audio/speech": "std_msgs/msg/String"}
    )
    with caplog.at_level(logging.WARNING), open_bag(path) as bag:
        assert bag.topics == (t.MIC,)
    assert len(caplog.records) == 1
    assert "/audio/speech: its type is std_msgs/msg/String" in caplog.text


@pytest.mark.parametrize("alone", [False, True], ids=["folder", "single file"])
def test_a_type_recorded_with_other_fields_is_not_misread(tmp_path: Path, alone: bool) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = t.VOICE.type
    store.register(get_types_from_msg("std_msgs/Header header\nfloat64 older", kind))
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        bag.add_connection("/voice", kind, typestore=store)
    path = tmp_path / "bag/bag.mcap" if alone else tmp_path / "bag"
    with pytest.raises(InputError, match=r"/voice: its minicpmo_ros/msg/VoiceActivity has other"):
        open_bag(path)


def test_messages_that_cannot_be_decoded_are_counted_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_mics(tmp_path / "good", 2)
    with open_bag(path) as good:
        raws = [record.raw for record in good.records()]
    with BagWriter(tmp_path / "bag") as bag:
        for i, raw in enumerate([raws[0], raws[0][:40], b"", raws[1]]):
            bag.write_raw(t.MIC, START + i, raw)
    with caplog.at_level(logging.WARNING), open_bag(tmp_path / "bag") as bag:
        assert [at - START for _, at, _ in bag.messages()] == [0, 3]
        assert bag.faults["audio/mic"].count == 2
        assert t.MIC.type in bag.faults["audio/mic"].first
    assert caplog.text.count("is left out") == 1


def test_a_picture_that_cannot_be_is_counted(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_jpeg(START, START, b"no picture at all")
        bag.write(t.VOICE, START + 1, EVERY_KIND[t.VOICE])
    with open_bag(tmp_path / "bag") as bag:
        assert [topic for topic, _, _ in bag.messages()] == [t.VOICE]
        assert bag.faults["image_raw/compressed"].count == 1


@pytest.mark.parametrize("size", [0, 5, 30, 0.5, -1])
def test_a_truncated_bag_is_refused_with_a_way_out(tmp_path: Path, size: float) -> None:
    file = write_mics(tmp_path / "bag", 100) / "data.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * size) if isinstance(size, float) else size])
    with pytest.raises(InputError, match=r"bag.*damaged or was cut off.*mcap recover"):
        open_bag(tmp_path / "bag")


def test_a_bag_damaged_inside_says_how_far_it_was_good(tmp_path: Path) -> None:
    file = write_mics(tmp_path / "bag", 1000) / "data.mcap"
    data = bytearray(file.read_bytes())
    data[2_000_000:2_008_000] = b"\xff" * 8_000
    file.write_bytes(data)
    with open_bag(tmp_path / "bag") as bag, pytest.raises(InputError, match=r"damaged after \d+"):
        for _ in bag.records():
            pass


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "does not exist"), ("film.mp4", "from-video"), ("empty", "is no bag: a folder")],
)
def test_what_is_no_bag_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "film.mp4").write_bytes(b"film")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        open_bag(tmp_path / name)


def test_an_existing_bag_is_overwritten_only_when_told(tmp_path: Path) -> None:
    path = write_mics(tmp_path / "bag", 5)
    with pytest.raises(InputError, match="exists already"):
        BagWriter(path)
    write_mics(path, 2, overwrite=True)
    with open_bag(path) as bag:
        assert bag.counts == {t.MIC: 2}


def test_overwriting_never_removes_what_is_no_bag(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is no bag, so it is not overwritten"):
        BagWriter(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_writer_that_breaks_off_leaves_a_whole_bag(tmp_path: Path) -> None:
    def break_off() -> None:
        with BagWriter(tmp_path / "bag") as bag:
            bag.write(t.VOICE, START, EVERY_KIND[t.VOICE])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    with open_bag(tmp_path / "bag") as opened:
        assert opened.counts == {t.VOICE: 1}


def test_a_message_on_the_wrong_topic_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag, pytest.raises(InputError, match="carries"):
        bag.write(t.MIC, START, EVERY_KIND[t.VOICE])


def test_the_interfaces_are_found() -> None:
    assert (interface_folder() / "srv" / "Interrupt.srv").is_file()
