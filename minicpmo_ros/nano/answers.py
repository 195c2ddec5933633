"""What the robot should answer: from what was asked, what it sees, and what was said before.

Answers name first what was asked for and tell then what is so: "The cup is in the middle." A small
network finds a thing by the word that it has just said; before any word was said it had to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minicpmo_ros.media.world.things import Thing
from minicpmo_ros.nano.wordings import AT, NUMBERS

UNKNOWN = "I do not know."
NO_PICTURE = "I cannot see."
ENGLISH_ONLY = "I only speak English."
WORDS_PER_UNIT = 3
CHARACTERS_PER_UNIT = 26
# For so long a change is what "what changed" asks for.
RECENT_UNITS = 12

FIXED = {
    "hello": "Hello!",
    "how_are_you": "I am fine, thank you.",
    "name": "My name is Nano.",
    "ability": "I can see, listen and speak. Ask me what I see, or what to watch for.",
    "story": (
        "Once a small robot woke up. It saw a red ball and a blue box. It put the ball into the"
        " box, and went back to sleep."
    ),
    "thanks": "You are welcome.",
    "goodbye": "Goodbye!",
    "hear_me": "Yes, I hear you.",
    "unknown": UNKNOWN,
    "foreign": ENGLISH_ONLY,
}
SEEING = frozenset(
    (
        *("see", "colour_of", "where", "is_there", "how_many", "how_many_kind", "what_at"),
        *("size_of", "changed", "and_the", "its_colour", "its_place", "another"),
    )
)


@dataclass(frozen=True)
class Slots:
    """What fills a wording; of things that are spoken of, colour may be left out."""

    kind: str = ""
    colour: str = ""
    place: str = ""
    word: str = ""
    number: int = 0

    @property
    def thing(self) -> str:
        return f"{self.colour} {self.kind}".strip()

    def fill(self, wording: str) -> str:
        return wording.format(
            thing=self.thing,
            kind=self.kind,
            kinds=plural(self.kind),
            colour=self.colour,
            place=AT.get(self.place, ""),
            word=self.word,
            n=NUMBERS[self.number],
        )

    def matches(self, thing: Thing) -> bool:
        return thing.kind == self.kind and self.colour in ("", thing.colour)


@dataclass
class View:
    """What the camera shows in a unit. things: None where there is no camera. strange: it shows
    something from another world."""

    things: tuple[Thing, ...] | None
    strange: bool = False


@dataclass
class Memory:
    """What answers depend on beside the view.

    word: to be remembered. kind: spoken of last. topic: of the last question about it, "colour_of"
    or "where". changed: what changed last in view, as an answer,
    in changed_unit.
    """

    word: str = ""
    kind: str = ""
    topic: str = ""
    changed: str = ""
    watches: list[Watch] = field(default_factory=list)
    changed_unit: int = 0

    def see(self, unit: int, before: Sequence[Thing], now: Sequence[Thing]) -> list[Watch]:
        """Two pictures in a row, the second of this unit: what changed is kept for a while, and
        what was watched for and happened is given back, and not watched for any more."""
        if found := change(before, now):
            self.changed, self.changed_unit = found, unit
        elif unit - self.changed_unit > RECENT_UNITS:
            self.changed = ""
        happened = [watch for watch in self.watches if watch.happens(before, now)]
        self.watches = [watch for watch in self.watches if watch not in happened]
        return happened


@dataclass(frozen=True)
class Watch:
    """Something to tell of when it happens, once."""

    intent: str
    slots: Slots

    @property
    def promise(self) -> str:
        return f"I will tell you when {self._what('appears', 'disappears', 'turns', 'are')}."

    @property
    def alert(self) -> str:
        text = self._what("appeared", "disappeared", "turned", "are")
        return f"{text[0].upper()}{text[1:]}!"

    def _what(self, appears: str, leaves: str, turns: str, are: str) -> str:
        slots = self.slots
        return {
            "watch_appears": f"a {slots.thing} {appears}".replace("a orange", "an orange"),
            "watch_leaves": f"the {slots.thing} {leaves}",
            "watch_turns": f"the {slots.kind} {turns} {slots.colour}",
            "watch_count": f"there {are} {NUMBERS[slots.number]} things",
        }[self.intent]

    def happens(self, before: Sequence[Thing], now: Sequence[Thing]) -> bool:
        """Whether it happened between two pictures in a row."""
        slots = self.slots
        was, there = (any(slots.matches(one) for one in some) for some in (before, now))
        if self.intent == "watch_leaves":
            return was and not there
        if self.intent == "watch_count":
            return len(now) == slots.number != len(before)
        return there and not was


def answer(intent: str, slots: Slots, view: View, memory: Memory) -> str:
    """The answer, and what it leaves in the memory; "" where there is nothing to say."""
    if intent in FIXED:
        return FIXED[intent]
    if intent == "stop":
        return ""
    if intent == "count":
        return _capital(", ".join(NUMBERS[1 : slots.number + 1])) + "."
    if intent == "remember":
        memory.word = slots.word
        return f"I will remember {slots.word}."
    if intent == "recall":
        return f"{_capital(memory.word)}." if memory.word else "You told me no word."
    if intent == "repeat":
        return f"{_capital(slots.word)}."
    if intent == "cancel":
        memory.watches.clear()
        return "I will not."
    if intent.startswith("watch_"):
        memory.watches.append(Watch(intent, slots))
        memory.kind = slots.kind or memory.kind
        return memory.watches[-1].promise
    if view.things is None:
        return NO_PICTURE
    if view.strange:
        return UNKNOWN
    return _seen(intent, slots, view.things, memory)


def _seen(intent: str, slots: Slots, things: tuple[Thing, ...], memory: Memory) -> str:
    if intent == "changed":
        return memory.changed or "Nothing changed."
    if intent == "see":
        if len(things) == 1:
            memory.kind = things[0].kind
        return f"I see {listed(things)}."
    if intent == "how_many":
        return f"I see {NUMBERS[len(things)]}."
    if intent == "what_at":
        found = [one for one in things if one.place == slots.place]
        if len(found) == 1:
            memory.kind = found[0].kind
        return f"{_capital(listed(found))}."
    if intent == "how_many_kind":
        memory.kind = slots.kind
        return f"I see {NUMBERS[sum(one.kind == slots.kind for one in things)]}."
    if intent in ("and_the", "its_colour", "its_place", "another"):
        kind = slots.kind if intent == "and_the" else memory.kind
        topic = {"its_colour": "colour_of", "its_place": "where", "another": "another"}
        return _about(topic.get(intent, memory.topic), Slots(kind=kind), things, memory)
    return _about(intent, slots, things, memory)


def _about(topic: str, slots: Slots, things: tuple[Thing, ...], memory: Memory) -> str:
    """Of one kind of thing."""
    memory.kind = slots.kind
    if topic in ("colour_of", "where"):
        memory.topic = topic
    found = [one for one in things if slots.matches(one)]
    if topic == "another":
        return "Yes." if len(found) > 1 else "No."
    if not found:
        return f"The {slots.thing} is not there."
    if topic == "is_there":
        return f"The {slots.thing} is there."
    if topic == "colour_of":
        return f"The {slots.kind} is {found[0].colour}."
    if topic == "size_of":
        return f"The {slots.kind} is {found[0].size}."
    return f"The {slots.thing} is {AT[found[0].place]}."


def listed(things: Sequence[Thing]) -> str:
    """Things from left to right, in words."""
    names = [_a(f"{one.colour} {one.kind}") for one in sorted(things, key=lambda one: one.x)]
    if not names:
        return "nothing"
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def change(before: Sequence[Thing], now: Sequence[Thing]) -> str:
    """What changed between two pictures in a row, as an answer; "" where nothing did."""
    old, new = ({(one.kind, one.colour) for one in some} for some in (before, now))
    gone, come = sorted(old - new), sorted(new - old)
    for kind, colour in come:
        turned = [one for one in gone if one[0] == kind]
        if turned:
            return f"The {kind} turned {colour}."
        return f"The {colour} {kind} appeared."
    return f"The {gone[0][1]} {gone[0][0]} disappeared." if gone else ""


def chunks(text: str) -> list[str]:
    """The text in pieces of about a second of speech; all but the first begin with a space."""
    found: list[str] = []
    words = 0
    for word in text.split():
        if found and words < WORDS_PER_UNIT and len(found[-1]) + len(word) < CHARACTERS_PER_UNIT:
            found[-1] += f" {word}"
            words += 1
        else:
            found.append(f" {word}" if found else word)
            words = 1
    return found


def plural(kind: str) -> str:
    return {"person": "persons", "box": "boxes", "cross": "crosses"}.get(kind, f"{kind}s")


def _a(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
