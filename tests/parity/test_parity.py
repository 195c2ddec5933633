"""`minicpmo parity`: the reference's pair passes, ours at other sizes passes, spoiled ones fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import InputError, MinicpmoError
from minicpmo_ros.parity import draws
from tests.parity.making import read_pair, write_pair, write_wide

Listed = dict[str, Any]

GOLDEN = Path(__file__).parent / "data" / "golden"


def parity(checkpoint: Path, prefix: Path) -> tuple[int, dict[str, str]]:
    """The exit code, and the rest of the row of each entry; errors of ours are raised."""
    arguments = ("--checkpoint", str(checkpoint), "--golden", str(prefix))
    ran = CliRunner().invoke(app, ["parity", *arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    print(ran.output)
    cells = [re.split(r" {2,}", line, maxsplit=1) for line in ran.output.splitlines()[1:]]
    return ran.exit_code, {line[0]: line[1] for line in cells if len(line) > 1}


def failed(rows: dict[str, str]) -> list[str]:
    return [entry for entry, rest in rows.items() if "FAIL" in rest]


@pytest.mark.timeout(600)  # 15 s alone; threads that wait for each other take longer beside others
def test_we_compute_what_the_reference_computed(published_vocabulary):
    code, rows = parity(published_vocabulary, GOLDEN)
    assert (code, failed(rows)) == (0, [])
    assert len(rows) == 102
    assert rows["duplex_context previous_ids"].startswith("exact")
    assert float(rows["llm.hidden"].split()[0]) < 1e-5


def test_nothing_depends_on_the_sizes(wide_checkpoint, wide_pair):
    code, rows = parity(wide_checkpoint, wide_pair)
    assert (code, failed(rows)) == (0, [])
    assert {"duplex_scripted vocoder", "vision.batch_90x60_900x500", "token_bytes"} <= rows.keys()


def test_of_another_seed_nothing_is_equal_that_weights_are_in(wide_pair, tmp_path):
    other = write_wide(tmp_path / "other", seed=8)
    code, rows = parity(other, wide_pair)
    assert code == 1
    weightless = ("slicing", "pixels", "tgt_sizes", "mel", "kv_len", "prompt", "token_bytes")
    for entry in failed(rows):
        assert not any(word in entry for word in weightless), entry
    for entry in ("vision.90x60_s1", "audio_stream.emb", "audio_ref.full", "llm.hidden"):
        assert entry in failed(rows)


def only(listed: Listed, *entries: str) -> Listed:
    """The pair cut down to some entries and the prompt."""
    return {name: listed[name] for name in listed if name in entries or name.startswith("prompt")}


SPOILED_ARRAYS = [
    "vision.900x500_s2", "vision.900x500_s2.pixels_head", "vision.90x60_s1.pixels_mean_std",
    "vision.batch_90x60_900x500", "audio_stream.emb", "audio_stream.mel2", "audio_ref.chunk1",
    "llm.hidden", "llm.logits.top_ids", "llm.logits.logsumexp", "tts.condition",
    "duplex_scripted.K_last8", "duplex_basic.K_last8",
    "duplex_scripted.unit_logits.top_values", "duplex_scripted.unit_logits.every_997th",
    "duplex_basic.unit_logits.top_ids", "duplex_basic.unit_logits.logsumexp",
]  # fmt: skip


def test_one_wrong_number_of_an_array_fails_it_and_no_other(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    for key in SPOILED_ARRAYS:
        array = arrays[key]
        place = np.unravel_index(array.size // 2, array.shape)
        # A little more than may be; or another token.
        array[place] += 1.2e-4 * np.abs(array).max() if array.dtype.kind == "f" else 1
    write_pair(tmp_path / "spoiled", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert (code, sorted(failed(rows))) == (1, sorted(SPOILED_ARRAYS))


SPOILED_ENTRIES: dict[str, Callable[[Listed], object]] = {
    "slicing": lambda listed: listed["slicing"][3]["cells"].pop(),
    "vision.900x500_s2 tgt_sizes": lambda listed: listed["vision"][1]["tgt_sizes"].pop(),
    "audio_stream kv_len": lambda listed: listed["audio_stream"]["kv_len"].reverse(),
    "audio_stream mel_frames": lambda listed: listed["audio_stream"]["mel_frames"].reverse(),
    "prompt_suffix_ids": lambda listed: listed["prompt_suffix_ids"].append(5),
    "tts chunk1": lambda listed: listed["tts"]["chunk1"].__setitem__(7, 5),
    "token_bytes": lambda listed: listed["token_bytes"].update({"270": "00"}),
}


def test_one_wrong_thing_in_the_json_fails_its_entry(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    for spoil in SPOILED_ENTRIES.values():
        spoil(listed)
    listed = {name: listed[name] for name in listed if not name.startswith("duplex")}
    write_pair(tmp_path / "spoiled", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert (code, sorted(failed(rows))) == (1, sorted(SPOILED_ENTRIES))


@pytest.mark.parametrize(
    ("entry", "key", "name"),
    [
        ("tts", "chunk2", "tts chunk2"),
        ("prompt_prefix_ids", None, "prompt_prefix_ids"),
    ],
)
def test_one_wrong_id_fails_its_entry(entry, key, name, wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    ids = listed[entry] if key is None else listed[entry][key]
    ids[-1] += 1
    write_pair(tmp_path / "spoiled", only(listed, entry), arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert (code, failed(rows)) == (1, [name])


def test_a_wrong_id_of_the_text_fails_with_all_that_follows(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    listed["llm"]["greedy"][-1] += 1
    write_pair(tmp_path / "spoiled", only(listed, "llm"), arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert code == 1
    assert {"llm greedy", "llm.hidden", "llm.logits.logsumexp"} <= set(failed(rows))
    assert "at [3, " in rows["llm.hidden"]


@pytest.mark.parametrize(
    ("field", "wrong"), [("source", [5, 5]), ("grid", [1, 9]), ("cells", [[[5, 5]]])]
)
def test_every_part_of_a_cut_is_compared(field, wrong, wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    listed["slicing"][3][field] = wrong
    write_pair(tmp_path / "spoiled", only(listed, "slicing"), arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert (code, failed(rows)) == (1, ["slicing"])
    assert f"900x500 in 4: {field}" in rows["slicing"]


SPOILED_FIELDS: dict[str, Callable[[Listed], object]] = {
    "listen": lambda session: session["rows"][3].update(listen=False),
    "end_of_turn": lambda session: session["rows"][2].update(end_of_turn=False),
    "n_tokens": lambda session: session["rows"][1].update(n_tokens=3),
    "n_tts_tokens": lambda session: session["rows"][3].update(n_tts_tokens=1),
    "cache": lambda session: session["rows"][0].update(cache=1),
    "units": lambda session: session["rows"][0].update(units=2),
    "preserve": lambda session: session["rows"][3].update(preserve=0),
    "sampled_ids": lambda session: session["rows"][1]["sampled_ids"].pop(),
    "text": lambda session: session["rows"][1].update(text="?"),
    "samples": lambda session: session["rows"][2].update(samples=24_000),
    "vocoder": lambda session: session["rows"][2]["vocoder"][-1].__setitem__(1, False),
    "scripted_ids_not_asked_for": lambda session: session["rows"][2].update(
        scripted_ids_not_asked_for=[]
    ),
    "prompt_cache_len": lambda session: session.update(prompt_cache_len=1),
    "total_ids": lambda session: session["total_ids"].pop(),
    "previous_ids": lambda session: session["previous_ids"].append(5),
    "a_field_we_do_not_know": lambda session: session["rows"][0].update(a_field_we_do_not_know=1),
}


def test_one_wrong_thing_of_a_session_fails_its_field(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    listed = only(listed, "duplex_scripted")
    for spoil in SPOILED_FIELDS.values():
        spoil(listed["duplex_scripted"])
    write_pair(tmp_path / "spoiled", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    expected = sorted(f"duplex_scripted {field}" for field in SPOILED_FIELDS)
    assert (code, sorted(failed(rows))) == (1, expected)


def test_one_wrong_code_of_speech_fails(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    listed = only(listed, "duplex_scripted")
    listed["duplex_scripted"]["rows"][1]["vocoder"][0][0][5] += 1
    write_pair(tmp_path / "spoiled", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert (code, failed(rows)) == (1, ["duplex_scripted vocoder"])


def test_where_codes_are_nearly_equal_the_reference_may_have_drawn_any(
    wide_checkpoint, wide_pair, tmp_path, monkeypatch
):
    listed, arrays = read_pair(wide_pair)
    listed = only(listed, "tts", "duplex_scripted")
    listed["tts"]["chunk2"][-1] += 1
    session = listed["duplex_scripted"]
    for given in session["rows"][2]["vocoder"]:
        given[0][-1] += 1
    listed["tts"]["temperature"] = session["tts_temperature"] = 0.01
    write_pair(tmp_path / "drawn", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "drawn")
    assert (code, failed(rows)) == (1, ["tts chunk2", "duplex_scripted vocoder"])
    monkeypatch.setattr(draws, "ODDS", 1e300)  # at which anything is nearly equal
    assert parity(wide_checkpoint, tmp_path / "drawn")[0] == 0


def test_a_slid_window_that_is_not_the_golden_one_fails(wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    listed = only(listed, "duplex_context")
    assert len(listed["duplex_context"]["previous_ids"]) == 4 + 9
    listed["duplex_context"]["options"]["context_max_units"] = 3
    write_pair(tmp_path / "spoiled", listed, arrays)
    code, rows = parity(wide_checkpoint, tmp_path / "spoiled")
    assert code == 1
    assert "duplex_context units" in failed(rows)


def test_what_nothing_lists_is_named(wide_checkpoint, wide_pair, tmp_path, capsys):
    listed, arrays = read_pair(wide_pair)
    write_pair(tmp_path / "cut", {"slicing": listed["slicing"]}, arrays | {"my.own": np.ones(3)})
    code, rows = parity(wide_checkpoint, tmp_path / "cut")
    assert (code, list(rows)) == (0, ["slicing"])
    assert "not compared, for nothing lists them: vision.90x60_s1, " in capsys.readouterr().out


def test_a_pair_of_nothing_does_not_pass(wide_checkpoint, tmp_path):
    write_pair(tmp_path / "nothing", {"seed": 3}, {})
    assert parity(wide_checkpoint, tmp_path / "nothing")[0] == 1


def without(key: str) -> Callable[[Listed, Listed], object]:
    return lambda listed, arrays: arrays.pop(key)


BROKEN: dict[str, tuple[Callable[[Listed, Listed], object], str]] = {
    "no picture": (without("vision.90x60_s1"), r"\.npz lacks vision\.90x60_s1, which .*asks for"),
    "no stream": (without("audio_stream.emb"), r"\.npz lacks audio_stream\.emb"),
    "no logits": (without("llm.logits.logsumexp"), r"\.npz lacks llm\.logits\.logsumexp"),
    "no keys": (without("duplex_basic.K_last8"), r"\.npz lacks duplex_basic\.K_last8"),
    "NaN": (
        lambda listed, arrays: arrays["tts.hidden"].fill(np.nan),
        r"array tts\.hidden holds what are no finite numbers",
    ),
    "another vocabulary": (
        lambda listed, arrays: listed["llm"]["greedy"].append(3000),
        "another vocabulary: it has the id 3000, and the checkpoint has 3000 tokens",
    ),
    "a longer vocabulary": (
        lambda listed, arrays: arrays.update({"llm.logits.every_997th": np.ones((4, 5))}),
        r"997ths of logits \(llm\.logits\.every_997th, \[4, 5\]\) are not 4 wide",
    ),
    "another width": (
        lambda listed, arrays: arrays.update({"llm.hidden": np.ones((4, 128))}),
        r"another checkpoint: its hidden states \(llm\.hidden, \[4, 128\]\) are not 256 wide",
    ),
    "no such field": (
        lambda listed, arrays: listed["duplex_basic"].pop("force_listen_count"),
        r"entry duplex_basic has no 'force_listen_count'",
    ),
    "malformed": (
        lambda listed, arrays: listed["vision"][0].update(size="90x60"),
        r"entry vision is malformed",
    ),
    "an entry we do not know": (
        lambda listed, arrays: listed.update(music={"seconds": 3}),
        r"entry music is malformed: what it pins is not known here; known are slicing",
    ),
    "an option we do not know": (
        lambda listed, arrays: listed["duplex_basic"]["options"].update(warmth=3),
        r"entry duplex_basic is malformed: options warmth; known are basic_window_high_tokens",
    ),
    "drawn by chance": (
        lambda listed, arrays: listed["tts"].update(temperature=0.8),
        r"entry tts is malformed: speech was drawn at a temperature of 0\.8",
    ),
    "fewer rows than units": (
        lambda listed, arrays: listed["duplex_basic"]["rows"].pop(),
        r"entry duplex_basic is malformed: 5 rows of 6 units",
    ),
    "a script that ends early": (
        lambda listed, arrays: listed["duplex_scripted"]["scripted_samples"][1].pop(),
        r"the script of a unit is over",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pair_is_one_clear_error(name, wide_checkpoint, wide_pair, tmp_path):
    listed, arrays = read_pair(wide_pair)
    spoil, message = BROKEN[name]
    spoil(listed, arrays)
    # The network is only asked where the pair alone does not tell.
    kept = {"NaN": ("tts",), "a script that ends early": ("duplex_scripted",)}.get(name, listed)
    write_pair(tmp_path / "broken", only(listed, *kept), arrays)
    with pytest.raises(InputError, match=message):
        parity(wide_checkpoint, tmp_path / "broken")


def test_half_a_pair_is_named(wide_checkpoint, wide_pair, tmp_path):
    with pytest.raises(InputError, match=r"golden\.json is not there; a golden pair is named by"):
        parity(wide_checkpoint, tmp_path / "golden")
    (tmp_path / "golden.json").write_text("{")
    with pytest.raises(InputError, match=r"golden\.json cannot be read as JSON"):
        parity(wide_checkpoint, tmp_path / "golden")
    (tmp_path / "golden.json").write_text("{}")
    with pytest.raises(InputError, match=r"golden\.npz is not there; its JSON is"):
        parity(wide_checkpoint, tmp_path / "golden")
    (tmp_path / "golden.npz").write_bytes(wide_pair.with_name("wide_pair.npz").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"golden\.npz cannot be read as a file of arrays"):
        parity(wide_checkpoint, tmp_path / "golden")


def test_what_is_no_checkpoint_is_named(wide_pair, tmp_path):
    with pytest.raises(MinicpmoError, match=r"has no config\.json, so it is no checkpoint"):
        parity(tmp_path, wide_pair)
