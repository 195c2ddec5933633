"""espeak-ng's voices in files of their names, so that one is found without reading all of them.

espeak-ng looks for a file of the voice's name, in lower case, and then for a voice of that tag in
all 130 files, for every fresh library anew: 3 ms, twice what speaking a sentence takes. In a folder
of links "en-us" is the name of a file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from minicpmo_ros.media.espeak_library import EspeakLibrary

# espeak-ng 1.51 holds the path of its data in 160 bytes, with the names of files after it.
_LONGEST_PATH = 100


def tagged_data(espeak: EspeakLibrary, folder: Path) -> str:
    """Make the folder of links within `folder`, once; gives the path for `fresh_library`'s data.

    Empty where it cannot be made (no right to write, a path too long for espeak-ng, a layout that
    is not known): the system's data give the same voices, only slower.
    """
    system = Path(espeak.data_path)
    voices = sorted(path for path in system.glob("lang/**/*") if path.is_file())
    described = [str(system), *(f"{path} {path.stat().st_mtime_ns}" for path in voices)]
    name = "espeak-" + hashlib.blake2b("\n".join(described).encode(), digest_size=8).hexdigest()
    made = folder.absolute() / name
    if not voices or len(os.fsencode(made)) > _LONGEST_PATH:
        return ""
    if not made.is_dir():
        try:
            _link(system, voices, made)
        except OSError:
            return ""
    return str(made)


def _link(system: Path, voices: list[Path], made: Path) -> None:
    made.parent.mkdir(parents=True, exist_ok=True)
    # Made whole beside its place: another process may be at it, too.
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=made.name) as temporary:
        data = Path(temporary) / "whole" / "espeak-ng-data"
        (data / "lang").mkdir(parents=True)
        for path in system.iterdir():
            if path.name != "lang":
                (data / path.name).symlink_to(path)
        names: dict[str, Path] = {}
        for path in voices:
            names.setdefault(path.name.lower(), path)
        for name, path in names.items():
            (data / "lang" / name).symlink_to(path)
        try:
            (Path(temporary) / "whole").rename(made)
        except OSError:
            if not made.is_dir():
                raise
