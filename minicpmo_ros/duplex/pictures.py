"""Pictures of the unit that is open: looked at when they come, read before the unit closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.timing import Stages
from minicpmo_ros.errors import InputError
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.tokenizer import ControlIds
from minicpmo_ros.runtime.api import Network, Part, Rows


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture. key: its capture stamp; equal keys are one picture. pixels: uint8
    [height, width, 3] RGB. max_slices: into how many it may be cut; None: the conversation's."""

    key: int
    pixels: NDArray[np.uint8]
    max_slices: int | None = None


class Gaze:
    """Embeddings of the pictures of one unit, each made once."""

    def __init__(
        self, network: Network, control: ControlIds, max_slices: int, max_pictures: int
    ) -> None:
        self._network = network
        self._control = control
        self._max_slices = max_slices
        self._max_pictures = max_pictures
        self._seen: dict[int, Sequence[Rows]] = {}

    def look(self, shown: Sequence[Shown], stages: Stages) -> None:
        """Encode those that were not encoded yet, one after the other: in a batch, how many there
        are would show in the last digits.

        Raises:
            InputError: there are too many, or one is no picture; none of them has been encoded.
        """
        if len(shown) > self._max_pictures:
            raise InputError(
                f"a unit has {len(shown)} pictures; at most {self._max_pictures} are taken"
                " (max_pictures)"
            )
        fresh = {one.key: one for one in shown if one.key not in self._seen}
        config = self._network.config.slices
        with stages.timed("picture"):
            cut = {
                key: slices(one.pixels, one.max_slices or self._max_slices, config)
                for key, one in fresh.items()
            }
        with stages.timed("vision"):
            for key, pieces in cut.items():
                self._seen[key] = self._network.look(pieces)

    def parts(self, key: int) -> list[Part]:
        """A picture as a duplex unit has it: the whole, then its slices, each between its signs."""
        control = self._control
        whole, *cells = self._seen[key]
        found: list[Part] = [[control.image], whole, [control.image_end]]
        for cell in cells:
            found += [[control.slice], cell, [control.slice_end]]
        return found

    def forget(self) -> None:
        self._seen.clear()
