"""What lies beside the code goes into the wheel, however deep; without compiling anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkpoint_in_the_package_is_installed_with_its_engines(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "requirements", source / "requirements")
    checkpoint = source / "minicpmo_ros" / "nano" / "checkpoint"
    entry = checkpoint / "engines" / "llm.00-0123456789abcdef"
    entry.mkdir(parents=True)
    for folder in (checkpoint.parent, checkpoint.parents[1]):
        (folder / "__init__.py").touch()
    files = [checkpoint / name for name in ("config.json", "model.safetensors", "SHA256SUMS")]
    files += [entry / name for name in ("stage.onnx", "stage.bin", "manifest.json")]
    for file in files:
        file.write_text(file.name)
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build_py",
         "--build-lib", str(tmp_path / "lib")],
        cwd=source,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = {file.relative_to(source) for file in files}
    installed = {file.relative_to(tmp_path / "lib") for file in (tmp_path / "lib").rglob("*")}
    assert wanted <= installed
