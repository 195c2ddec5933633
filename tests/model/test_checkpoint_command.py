"""`minicpmo checkpoint`: makes one, looks into one, says what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.model import contents, hub
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json
from minicpmo_ros.model.weight_files import SINGLE


def minicpmo(*arguments: str | Path) -> str:
    """What the command prints; its errors are raised."""
    ran = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_tiny_makes_what_inspect_prints(tmp_path: Path) -> None:
    minicpmo("tiny", tmp_path / "a", "--vocab", "600", "--size", "wide", "--shards", "2")
    printed = minicpmo("inspect", tmp_path / "a")
    for wanted in ("language model", "speech decoder", "fp32", "bf16", "int4", "main memory"):
        assert wanted in printed


def test_tiny_overwrites_only_if_told_to(tiny_checkpoint: Path, own_checkpoint: Path) -> None:
    with pytest.raises(MinicpmoError, match="--force"):
        minicpmo("tiny", own_checkpoint, "--seed", "1")
    minicpmo("tiny", own_checkpoint, "--seed", "1", "--force")
    assert (own_checkpoint / SINGLE).read_bytes() != (tiny_checkpoint / SINGLE).read_bytes()


def test_tiny_names_an_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(MinicpmoError, match="'int4'; known are float32, bfloat16, float16"):
        minicpmo("tiny", tmp_path, "--dtype", "int4")


def test_inspect_sees_a_tokenizer_of_another_model(own_checkpoint: Path) -> None:
    minicpmo("tiny", own_checkpoint.parent / "other", "--vocab", "5000")
    other = own_checkpoint.parent / "other" / "tokenizer.json"
    (own_checkpoint / "tokenizer.json").write_bytes(other.read_bytes())
    with pytest.raises(MinicpmoError, match="ids up to 4999, the language model only 1024"):
        minicpmo("inspect", own_checkpoint)


def test_fetch_ends_with_a_checkpoint_that_opens(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mirror:
        def files(self, repository: str, revision: str) -> tuple[str, dict[str, int]]:
            found = [file for file in tiny_checkpoint.iterdir() if file.is_file()]
            return revision * 2, {file.name: file.stat().st_size for file in found}

        def download(self, repository: str, commit: str, files: list[str], directory: Path) -> None:
            for name in files:
                (directory / name).write_bytes((tiny_checkpoint / name).read_bytes())

    monkeypatch.setattr(hub, "HuggingFace", Mirror)
    printed = minicpmo("fetch", tmp_path / "got", "--revision", "v1")
    assert "at v1v1" in printed
    assert "is whole" in printed
    assert Checkpoint(tmp_path / "got").config == Checkpoint(tiny_checkpoint).config


def test_sizes_add_up(tiny_checkpoint: Path) -> None:
    opened = Checkpoint(tiny_checkpoint)
    parts = contents.parts_of(opened)
    stored = sum(entry.bytes for entry in opened.entries.values())
    unused = sum(e.bytes for k, e in opened.entries.items() if contents.is_unused(k))
    assert unused > 0
    assert sum(part.bytes["fp32"] for part in parts) == stored - unused
    assert all(part.bytes["bf16"] * 2 == part.bytes["fp32"] for part in parts)
    llm, *others = parts
    assert llm.bytes["int4"] < llm.bytes["bf16"]
    assert all(part.bytes["int4"] == part.bytes["bf16"] for part in others)


def test_the_published_kv_cache_is_144_kib_a_token() -> None:
    llm = ModelConfig.from_json(config_json("full")).llm
    assert contents.kv_bytes(llm, 8192, "int4") == contents.kv_bytes(llm, 8192, "bf16")
    assert contents.kv_bytes(llm, 8192, "bf16") == 8192 * 144 * 1024


@pytest.mark.parametrize(("gigabytes", "capacity"), [(7.0, 8), (7.3, 10), (20.0, 24), (200, None)])
def test_what_fits_leaves_a_tenth_to_the_system(gigabytes: float, capacity: int | None) -> None:
    weights = int(gigabytes * 1e9) - contents.WORKING_BYTES
    assert contents.Need("bf16", weights, kv=0, vocoder=0).capacity_gb == capacity
