"""The engine cache: built once, whole or not at all, and never another's."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines import disk
from minicpmo_ros.runtime.engines.cache import EngineCache, default_folder
from minicpmo_ros.runtime.engines.cache_entry import EngineKey, verify

KEY = EngineKey("c0ffee", "llm.00", "int4", {"tokens": [1, 512]}, "onnxruntime", "1.20", "cpu")

# Builds KEY in the folder of argv[1]: tells that it has begun, and ends when there is a file `go`.
BUILDER = f"""
import signal, sys, time
# What runs in the background of a shell, as tests may, begins with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey

folder = Path(sys.argv[1])
key = EngineKey(**{asdict(KEY)!r})

def make(part):
    (part / "graph.onnx").write_bytes(b"half")
    with (folder / "builds").open("a") as log:
        log.write("built\\n")
    print("making", flush=True)
    while not (folder / "go").exists():
        time.sleep(0.01)
    (part / "graph.onnx").write_bytes(b"whole")

print(EngineCache(folder / "cache").ensure(key, make, lambda text: print(text, flush=True)))
"""


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def start(tmp_path):
    """Starts builders, and ends those that are left."""
    running = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BUILDER, str(tmp_path)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def make(part: Path) -> None:
    (part / "graph.onnx").write_bytes(b"graph")
    (part / "data").mkdir()
    (part / "data" / "weights.bin").write_bytes(bytes(range(200)))


def refuse(part: Path) -> None:
    raise AssertionError("it was there and should not be built")


def line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def in_cache(cache: EngineCache) -> list[str]:
    """All names but those of locks."""
    return sorted(path.name for path in cache.folder.iterdir() if path.name != ".locks")


def test_what_was_built_is_found_and_not_built_again(cache):
    assert cache.find(KEY) is None
    folder = cache.ensure(KEY, make, source="/checkpoints/one")
    assert (folder / "data" / "weights.bin").read_bytes() == bytes(range(200))
    assert cache.ensure(KEY, refuse) == folder
    entry = cache.find(KEY)
    assert (entry.folder, entry.key, entry.source) == (folder, KEY, "/checkpoints/one")
    assert entry.nbytes == 205
    assert [found.name for found in cache.entries()] == [KEY.name]
    assert in_cache(cache) == [KEY.name]
    verify(entry)


def test_two_processes_at_once_build_it_once(tmp_path, start):
    first = start()
    assert line(first) == "making"
    second = start()
    assert line(second) == f"waiting for process {first.pid}, which builds llm.00"
    (tmp_path / "go").touch()
    folder = EngineCache(tmp_path / "cache").folder / KEY.name
    assert line(second) == line(first) == str(folder)
    assert (tmp_path / "builds").read_text() == "built\n"
    assert (folder / "graph.onnx").read_bytes() == b"whole"


def test_a_killed_build_leaves_nothing_that_loads_and_holds_nobody_up(tmp_path, cache, start):
    first = start()
    assert line(first) == "making"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert cache.find(KEY) is None
    assert cache.entries() == []
    assert list(cache.broken()) == [f"{KEY.name}.part"]
    said: list[str] = []
    cache.ensure(KEY, make, said.append)
    assert said == []
    assert in_cache(cache) == [KEY.name]


def test_the_next_build_of_anything_sweeps_up_after_a_killed_one(cache, start):
    first = start()
    assert line(first) == "making"
    other = replace(KEY, stage="vision")
    cache.ensure(other, make)
    assert in_cache(cache) == [f"{KEY.name}.part", other.name], "it is still being built"
    first.kill()
    first.wait()
    cache.ensure(replace(KEY, stage="audio"), make)
    assert f"{KEY.name}.part" not in in_cache(cache)


def test_the_one_that_waits_builds_it_when_the_first_is_killed(tmp_path, start):
    first = start()
    assert line(first) == "making"
    second = start()
    assert line(second).startswith("waiting")
    first.kill()
    assert line(second) == "making"
    (tmp_path / "go").touch()
    assert line(second).endswith(KEY.name)
    assert (tmp_path / "builds").read_text() == "built\nbuilt\n"


def test_ctrl_c_removes_what_was_half_made(cache, start):
    first = start()
    assert line(first) == "making"
    first.send_signal(signal.SIGINT)
    assert first.wait() != 0
    assert in_cache(cache) == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, EngineError])
def test_what_a_build_raises_reaches_the_caller_and_leaves_nothing(cache, kind):
    def fail(part: Path) -> None:
        make(part)
        raise kind("of its own")

    with pytest.raises(kind, match="of its own"):
        cache.ensure(KEY, fail)
    assert in_cache(cache) == []
    cache.ensure(KEY, make)


def test_a_build_without_files_is_an_error(cache):
    with pytest.raises(EngineError, match=r"building llm\.00 gave no files"):
        cache.ensure(KEY, lambda part: None)
    assert in_cache(cache) == []


def truncate(folder: Path) -> None:
    (folder / "graph.onnx").write_bytes(b"grap")


def lose(folder: Path) -> None:
    (folder / "data" / "weights.bin").unlink()


def blank(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


def forget(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def other_format(folder: Path) -> None:
    change(folder, format=99)


def half(folder: Path) -> None:
    change(folder, files={"graph.onnx": {"size": 5}})


def change(folder: Path, **values: object) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, r"graph\.onnx has 4 of 5 bytes"),
        (lose, r"weights\.bin is missing"),
        (blank, r"manifest\.json is damaged"),
        (forget, r"manifest\.json is missing"),
        (other_format, r"manifest\.json is damaged \(format 99, not 1\)"),
        (half, r"manifest\.json is damaged"),
    ],
)
def test_a_damaged_entry_is_told_never_loaded_and_built_again(cache, damage, said):
    damage(cache.ensure(KEY, make))
    with pytest.raises(EngineError, match=f"{said}.*minicpmo engines clean {KEY.name}"):
        cache.find(KEY)
    assert list(cache.broken()) == [KEY.name]
    told: list[str] = []
    folder = cache.ensure(KEY, make, told.append)
    assert len(told) == 1 and told[0].endswith("it is built again")
    assert (folder / "graph.onnx").read_bytes() == b"graph"
    assert cache.broken() == {}


@given(st.integers(0, 199), st.integers(0, 7))
def test_any_changed_bit_is_found_when_all_bytes_are_read(tmp_path_factory, place, bit):
    cache = EngineCache(tmp_path_factory.mktemp("bits"))
    folder = cache.ensure(KEY, make)
    spoilt = bytearray(range(200))
    spoilt[place] ^= 1 << bit
    (folder / "data" / "weights.bin").write_bytes(spoilt)
    entry = cache.find(KEY)
    with pytest.raises(EngineError, match=r"weights\.bin is damaged: its bytes have changed"):
        verify(entry)


def test_another_engine_under_this_name_is_not_loaded(cache):
    folder = cache.ensure(KEY, make)
    foreign = replace(KEY, target="sm86")
    shutil.copytree(folder, cache.folder / foreign.name)
    with pytest.raises(EngineError, match=rf"holds another engine.*that of {KEY.name}"):
        cache.find(foreign)
    cache.ensure(foreign, make)
    assert cache.find(foreign).key == foreign


texts = st.text(max_size=8)
shapes = st.dictionaries(texts, st.lists(st.integers()) | texts | st.booleans(), max_size=3)
engine_keys = st.builds(
    EngineKey, texts, st.sampled_from(["vision", "llm.00"]), texts, shapes, texts, texts, texts
)


@given(engine_keys, engine_keys, st.sampled_from([one.name for one in fields(EngineKey)]))
def test_another_value_of_any_field_is_another_entry(key, other, name):
    changed = replace(key, **{name: getattr(other, name)})
    assert (changed.name == key.name) == (changed == key) == (changed.digest == key.digest)


@given(engine_keys)
def test_a_key_survives_json_and_the_order_of_its_shapes(key):
    assert EngineKey(**json.loads(json.dumps(asdict(key)))) == key
    turned = dict(reversed(key.shapes.items()))
    assert replace(key, shapes=turned).digest == key.digest


def test_a_key_is_the_same_in_another_process():
    code = (
        "from minicpmo_ros.runtime.engines.cache_entry import EngineKey\n"
        f"print(EngineKey(**{asdict(KEY)}).name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KEY.name


def test_tuples_and_lists_of_a_shape_are_the_same():
    assert replace(KEY, shapes={"tokens": (1, 512)}) == KEY
    assert hash(replace(KEY, shapes={"tokens": (1, 512)})) == hash(KEY)


@pytest.mark.parametrize("stage", ["", "LLM", "../llm", "llm 00"])
def test_a_stage_without_a_name_for_folders_is_an_error(stage):
    with pytest.raises(EngineError, match=f"stage '{stage}'"):
        replace(KEY, stage=stage)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_in_a_library() -> None:
    raise RuntimeError("write failed: No space left on device [type.cc:7]")


def full_behind_another() -> None:
    try:
        full()
    except OSError as error:
        raise ValueError("cannot serialise") from error


@pytest.mark.parametrize("fail", [full, full_in_a_library, full_behind_another])
def test_a_full_disk_is_told_with_what_was_needed_and_is_free(cache, monkeypatch, fail):
    usage = SimpleNamespace(free=4_000_000_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)

    def fill(part: Path) -> None:
        make(part)
        fail()

    with pytest.raises(EngineError) as caught:
        cache.ensure(KEY, fill, nbytes=3_000_000_000)
    for word in (str(cache.folder), "llm.00 was whole, which needs 3.00 GB", "4.00 GB are free"):
        assert word in str(caught.value)
    assert in_cache(cache) == []


def test_too_small_a_disk_is_told_before_anything_is_built(cache):
    with pytest.raises(EngineError, match=r"llm\.00 needs 1000000000\.00 GB of disk, .* are free"):
        cache.ensure(KEY, refuse, nbytes=10**18)


def test_a_folder_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"cannot be written to .*MINICPMO_ENGINES"):
        EngineCache(tmp_path / "file").ensure(KEY, make)


def test_what_is_being_built_is_not_cleaned_away(cache):
    def build(part: Path) -> None:
        make(part)
        done = cache.clean([part.name])
        assert (done.removed, done.locked) == ([], [part.name])

    cache.ensure(KEY, build)
    done = cache.clean([KEY.name])
    assert (done.removed, done.locked) == ([KEY.name], [])
    assert done.nbytes >= 205
    assert in_cache(cache) == []


def test_cleaning_knows_only_what_the_cache_has_made(cache):
    cache.ensure(KEY, make)
    (cache.folder / "photographs").mkdir()
    (cache.folder / "notes").write_text("mine")
    with pytest.raises(EngineError, match=f"'photographs' is not in .*; there is {KEY.name}"):
        cache.clean(["photographs"])
    cache.clean([entry.name for entry in cache.entries()])
    assert in_cache(cache) == ["notes", "photographs"]


def test_where_engines_are_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/home/robot")
    monkeypatch.delenv("MINICPMO_ENGINES", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == Path("/home/robot/.cache/minicpmo_ros/engines")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/minicpmo_ros/engines")
    monkeypatch.setenv("MINICPMO_ENGINES", "~/engines")
    assert default_folder() == Path("/home/robot/engines")


def test_a_wait_tells_again_that_it_goes_on_and_may_be_ended(tmp_path, cache, start, monkeypatch):
    monkeypatch.setattr("minicpmo_ros.runtime.engines.build_lock.REMIND_S", 0.01)
    first = start()
    assert line(first) == "making"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        cache.ensure(KEY, refuse, say)
    assert said[1].startswith(f"waiting for process {first.pid}, which builds llm.00 (")
