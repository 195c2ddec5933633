"""Which topics of a bag are ours: by relative name under one namespace, or by a mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicpmo_ros.errors import InputError
from minicpmo_ros.topics import ALL, IMAGE, IMAGE_COMPRESSED, Topic

_BY_NAME = {topic.name: topic for topic in ALL}
_OUR_PACKAGE = "minicpmo_ros/"


@dataclass(frozen=True)
class Names:
    """namespace: "" or "/robot1". topics: (name in the bag, type) to topic. skipped: why not."""

    namespace: str
    topics: dict[tuple[str, str], Topic]
    skipped: dict[str, str]


def match_names(
    found: Iterable[tuple[str, str]],
    remap: Mapping[str, str],
    namespace: str | None,
    bag: str,
) -> Names:
    """Match (name, type) pairs of a bag with our topics.

    Raises `InputError` for a mapping that fits nothing, several namespaces, or no topic of ours.
    """
    found = list(found)
    if not found:
        raise InputError(f"bag {bag} is empty: nothing was recorded into it")
    mapped = _mapped(found, remap, bag)
    rest = [pair for pair in found if pair[0] not in {name for name, _ in mapped}]
    placed = [(pair, place) for pair in rest if (place := _place(*pair)) is not None]
    chosen = _namespace([p for _, p in placed], namespace, bool(mapped), bag)
    taken = {topic.name for topic in mapped.values()}
    topics = dict(mapped)
    skipped: dict[str, str] = {}
    for pair, (space, topic) in placed:
        if space != chosen or topic.name in taken:
            continue
        if pair[1] != topic.type:
            skipped[pair[0]] = f"its type is {pair[1]}, and {topic.name} carries {topic.type}"
        else:
            topics[pair] = topic
    if not topics:
        listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(found)) or "none"
        raise InputError(
            f"bag {bag} holds no topic of ours ({', '.join(_BY_NAME)}); it holds: {listed}. "
            "Say what is what with a mapping, e.g. camera/image:=image_raw"
        )
    return Names(chosen, topics, skipped)


def _mapped(
    found: list[tuple[str, str]], remap: Mapping[str, str], bag: str
) -> dict[tuple[str, str], Topic]:
    mapped: dict[tuple[str, str], Topic] = {}
    for source, target in remap.items():
        source, target = "/" + source.strip("/"), target.strip("/")
        if target not in _BY_NAME:
            raise InputError(f"no topic '{target}' to map {source} to: {', '.join(_BY_NAME)}")
        hits = {pair: _typed(_BY_NAME[target], pair[1]) for pair in found if pair[0] == source}
        if target == IMAGE.name:  # image_transport puts the compressed pictures beside the raw ones
            hits |= {p: IMAGE_COMPRESSED for p in found if p[0] == f"{source}/compressed"}
        fitting = {pair: topic for pair, topic in hits.items() if pair[1] == topic.type}
        if not fitting:
            listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(found)) or "none"
            raise InputError(
                f"bag {bag} holds no {source} of type {_BY_NAME[target].type} to take for "
                f"{target}; it holds: {listed}"
            )
        mapped.update(fitting)
    return mapped


def _typed(topic: Topic, kind: str) -> Topic:
    """Pictures on one topic, compressed or not: the type says which it is."""
    if topic in (IMAGE, IMAGE_COMPRESSED):
        return IMAGE if kind == IMAGE.type else IMAGE_COMPRESSED
    return topic


def _place(name: str, kind: str) -> tuple[str, Topic] | None:
    """(namespace, topic) of a name that ends like one of ours."""
    for topic in sorted(ALL, key=lambda topic: -len(topic.name)):
        if name == f"/{topic.name}" or name.endswith(f"/{topic.name}"):
            # "/joint/state" of other types is no more ours than any other topic.
            ours = topic.type.startswith(_OUR_PACKAGE) and "/" in topic.name
            if kind == topic.type or ours:
                return name[: -len(topic.name) - 1], topic
            return None
    return None


def _namespace(placed: list[tuple[str, Topic]], wanted: str | None, mapped: bool, bag: str) -> str:
    """The one namespace whose topics are taken: of our own types if there are any, else of any."""
    if wanted is not None:
        wanted = "/" + wanted.strip("/") if wanted.strip("/") else ""
        known = sorted({space for space, _ in placed})
        if wanted not in known and not mapped:
            raise InputError(
                f"bag {bag} holds nothing of ours in the namespace '{wanted or '/'}'; "
                f"it does in: {', '.join(space or '/' for space in known) or 'none'}"
            )
        return wanted
    own = {space for space, topic in placed if topic.type.startswith(_OUR_PACKAGE)}
    spaces = sorted(own or {space for space, _ in placed})
    if len(spaces) > 1:
        raise InputError(
            f"bag {bag} holds topics of ours in several namespaces "
            f"({', '.join(space or '/' for space in spaces)}): say which with `namespace`"
        )
    return spaces[0] if spaces else ""
