"""The two TensorRT libraries, whose Python interfaces are nearly the same, and what they log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from minicpmo_ros.errors import EngineError

LIBRARIES = ("tensorrt_rtx", "tensorrt")
_log = logging.getLogger(__name__)
_INSTALL = {
    "tensorrt_rtx": (
        "install the extra rtx (pip install 'minicpmo_ros[rtx]', x86-64 Linux), or choose a recipe"
        " with another runtime"
    ),
    "tensorrt": (
        "it comes with JetPack (sudo apt install nvidia-jetpack; the environment needs"
        " --system-site-packages to see it), or choose a recipe with another runtime"
    ),
}
# What it logged before an error that it reports by giving back nothing.
_LINES_KEPT = 8


@dataclass(eq=False)
class Library:
    """One of LIBRARIES, imported.

    Attributes:
        module: the library itself.
        log: its logger; all builders and runtimes of a process share one, as the library does.
    """

    name: str
    module: Any
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.log = _logger(self.module)

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def text(self) -> str:
        """For people: TensorRT-RTX 1.7.1."""
        title = "TensorRT-RTX" if self.name == "tensorrt_rtx" else "TensorRT"
        return f"{title} {self.version}"

    @property
    def names_targets(self) -> bool:
        """Whether it builds for cards that are not in this machine."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def times_kernels(self) -> bool:
        """Whether building measures kernels, so that a timing cache saves time. TensorRT-RTX
        compiles its kernels where they run, and since 1.2 ignores timing caches."""
        return self.name == "tensorrt"

    def targets(self) -> list[str]:
        """Cards that engines can be built for by name: sm86, sm89, ..."""
        if not self.names_targets:
            return []
        names = self.module.ComputeCapability.__members__
        return sorted((name.lower() for name in names if name.startswith("SM")), key=_capability)

    @property
    def usual_targets(self) -> tuple[str, ...]:
        """Cards that an engine is built for unless others are named: all from sm80 on, for those
        before have no products of four bits. Fewer make it neither smaller nor sooner built."""
        return tuple(target for target in self.targets() if _capability(target) >= 80)


_loaded: dict[str, Library] = {}
_lock = threading.Lock()


def library(name: str) -> Library:
    """One of LIBRARIES.

    Raises:
        EngineError: it is not installed, or does not load.
    """
    if name not in LIBRARIES:
        raise EngineError(f"there is no runtime {name}; TensorRT comes as {', '.join(LIBRARIES)}")
    with _lock:
        if name not in _loaded:
            _loaded[name] = Library(name, _imported(name))
        return _loaded[name]


def words(lines: Sequence[str]) -> str:
    """What a library logged, as one sentence for an error."""
    return "; ".join(lines) if lines else "it gave no reason"


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # JetPack's module asks for others, which may be what is missing.
        missing = "" if error.name == name else f" ({error})"
        raise EngineError(f"{name} is not installed{missing}: {_INSTALL[name]}") from None
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} does not load ({error}): {_INSTALL[name]}") from error


def _capability(target: str) -> int:
    return int(target.removeprefix("sm"))


def _logger(module: Any) -> Any:
    errors = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)

    class Log(module.ILogger):  # type: ignore[misc]
        """Keeps the last errors, for the exception that tells of them."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self._errors: list[str] = []
            self._guard = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            _log.debug("%s", message)
            if severity not in errors:
                return
            line = " ".join(message.split())
            with self._guard:
                if line not in self._errors:
                    self._errors = [*self._errors, line][-_LINES_KEPT:]

        def taken(self) -> list[str]:
            """The errors since this was last asked."""
            with self._guard:
                found, self._errors = self._errors, []
                return found

    return Log()
