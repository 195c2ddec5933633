"""Extras: which of them this machine can hold, and the reason for those it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import pytest

from scripts.bootstrap import extras
from scripts.bootstrap.extras import EXTRAS, PROFILES, Extra, choose_extras
from scripts.bootstrap.machine import Python

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Python("/usr/bin/python3.11", (3, 11))
PIPELINE = (
    os.environ.get("CI") == "true" and sys.platform == "linux" and platform.machine() == "x86_64"
)
# What tests are skipped for the lack of: the network, its files, and the engines made of them.
TESTED_WITH = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
TESTED_WITH += ("tensorrt_rtx", "cuda.bindings.runtime")


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (Extra("x", "", 10, newest=(3, 10)), "Python 3.10 to 3.10, this is Python 3.11"),
        (Extra("x", "", 10, machines=("aarch64",)), "aarch64, this is x86_64"),
        (Extra("x", "", 10, nvidia=True), "NVIDIA"),
        (Extra("x", "", 1000), "1000 MB of disk, 500 MB are free"),
    ],
)
def test_an_extra_that_does_not_fit_says_why(extra: Extra, reason: str) -> None:
    assert reason in str(extra.obstacle(PYTHON, 500, "x86_64", nvidia=False))


def test_an_extra_that_fits_has_no_obstacle() -> None:
    extra = Extra("x", "", 500, machines=("x86_64",), nvidia=True)
    assert extra.obstacle(PYTHON, 500, "x86_64", nvidia=True) is None


def test_space_is_shared_out_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "EXTRAS", (Extra("a", "first", 400), Extra("b", "second", 400)))
    usage = type("Usage", (), {"free": 700e6})
    monkeypatch.setattr(extras.shutil, "disk_usage", lambda folder: usage)
    chosen, skipped = choose_extras("extras", PYTHON, tmp_path)
    assert chosen == ["a"]
    assert skipped == ["extra b (second) is left out: it needs 400 MB of disk, 300 MB are free"]


@pytest.mark.parametrize(
    ("free_mb", "without", "left_out"),
    [
        (20_000, "", []),
        (5_000, "", ["it needs 9000 MB of disk, 4600 MB are free"]),
        (20_000, "video, model", ["MINICPMO_WITHOUT says so"]),
    ],
)
def test_the_tests_do_without_the_network_where_it_has_no_place(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    free_mb: float,
    without: str,
    left_out: list[str],
) -> None:
    usage = type("Usage", (), {"free": free_mb * 1e6})
    monkeypatch.setattr(extras.shutil, "disk_usage", lambda folder: usage)
    chosen, skipped = choose_extras("test", PYTHON, tmp_path, without)
    expected = set(PROFILES["test"]) - ({"model"} if left_out else set())
    assert set(chosen) == expected
    assert skipped == [f"extra model (the network in torch) is left out: {why}" for why in left_out]


def test_pip_offers_the_same_extras() -> None:
    offered = set(importlib.metadata.metadata("minicpmo-ros").get_all("Provides-Extra") or [])
    # Set-up chooses a ROS by itself, and compiles nothing that is only there to compare with.
    assert {extra.name for extra in EXTRAS} == offered - {"ros", "ros-jazzy", "llamacpp"}


def test_every_extra_has_its_list_and_every_profile_knows_its_extras() -> None:
    names = {extra.name for extra in EXTRAS}
    assert all((ROOT / "requirements" / f"{name}.txt").is_file() for name in names)
    assert all(names.issuperset(wanted) for wanted in PROFILES.values())


@pytest.mark.skipif(not PIPELINE, reason="for a pipeline: CI=true, on x86-64 Linux")
@pytest.mark.parametrize("module", TESTED_WITH)
def test_where_a_pipeline_runs_no_test_is_skipped_for_want_of_an_extra(module: str) -> None:
    """Elsewhere they are, with the reason; there that would pass for a check."""
    importlib.import_module(module)
