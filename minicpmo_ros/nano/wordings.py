"""What may be said to the robot, intent by intent: wordings to learn from, and wordings held out.

In braces stand slots: {thing} "red ball" or "ball", {kind} "ball", {kinds} "balls", {colour},
{place} "on the left", {word} a word to remember, {n} a number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """Ways to say one thing. held_out: never used in training, to measure understanding."""

    learned: tuple[str, ...]
    held_out: tuple[str, ...]


def _of(learned: str, held_out: str) -> Wordings:
    return Wordings(*(tuple(x.strip() for x in some.split("|")) for some in (learned, held_out)))


WORDS = (
    *("apple", "banana", "river", "window", "garden", "tiger", "rocket", "paper"),
    *("summer", "doctor", "island", "pocket"),
)
"""To remember and to repeat."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
AT = {"left": "on the left", "middle": "in the middle", "right": "on the right"}

INTENTS: dict[str, Wordings] = {
    # -- company
    "hello": _of(
        "hello | hi | hi there | hey | good morning | good evening | hello robot | hey robot"
        " | hello nano | nice to meet you",
        "hello there | hey there | hi nano | good afternoon",
    ),
    "how_are_you": _of(
        "how are you | how are you doing | how do you feel | how is it going | are you okay"
        " | how do you do | how are things",
        "how are you today | how are you feeling",
    ),
    "name": _of(
        "what is your name | who are you | what are you called | tell me your name"
        " | do you have a name | what's your name | what name do you have",
        "may I know your name | what should I call you | say your name",
    ),
    "ability": _of(
        "what can you do | how can you help me | what are you able to do | tell me what you can do"
        " | what are you good at | what can I ask you | help me",
        "what can you do for me | what do you know how to do",
    ),
    "story": _of(
        "tell me a story | tell a story | I want to hear a story | can you tell me a story"
        " | do you know a story | I would like a story",
        "let me hear a story | could you tell us a story",
    ),
    "thanks": _of(
        "thank you | thanks | thanks a lot | thank you very much | that was helpful | great thanks",
        "many thanks | thank you so much",
    ),
    "goodbye": _of(
        "goodbye | bye | bye bye | see you later | see you | good night | I have to go",
        "goodbye robot | see you tomorrow | bye for now",
    ),
    "hear_me": _of(
        "can you hear me | do you hear me | are you listening | are you there | did you hear me"
        " | is anybody there",
        "are you still there | can you hear my voice",
    ),
    # -- numbers and words
    "count": _of(
        "count to {n} | please count to {n} | can you count to {n} | count from one to {n}"
        " | I want you to count to {n}",
        "count up to {n} | could you count to {n} for me",
    ),
    "remember": _of(
        "remember the word {word} | please remember {word} | keep in mind {word}"
        " | the secret word is {word} | don't forget {word} | remember {word} for me"
        " | the word is {word}",
        "try to remember {word} | the password is {word}",
    ),
    "recall": _of(
        "what was the word | what did I say | what did I tell you to remember"
        " | what was the secret word | which word was it | what word did I say"
        " | do you know the word",
        "do you remember the word | tell me the secret word | which word did I tell you",
    ),
    "repeat": _of(
        "say {word} | repeat {word} | repeat after me {word} | can you say {word}"
        " | say the word {word} | I want you to say {word}",
        "please repeat {word} | could you say {word} for me",
    ),
    # -- what is seen
    "see": _of(
        "what do you see | what can you see | what is there | tell me what you see"
        " | describe what you see | what is in front of you | what are you looking at"
        " | what things do you see | what do you see now | describe the picture"
        " | what is in the picture | look around",
        "describe the scene | what can you see right now | which things are there",
    ),
    "colour_of": _of(
        "what colour is the {kind} | which colour is the {kind} | tell me the colour of the {kind}"
        " | what colour does the {kind} have | which colour does the {kind} have"
        " | the {kind} what colour is it | say the colour of the {kind}",
        "what is the colour of the {kind} | the colour of the {kind} please",
    ),
    "where": _of(
        "where is the {thing} | where do you see the {thing} | on which side is the {thing}"
        " | where can you see the {thing} | find the {thing} | the {thing} where is it"
        " | show me where the {thing} is",
        "tell me where the {thing} is | where exactly is the {thing}",
    ),
    "is_there": _of(
        "is there a {thing} | do you see a {thing} | can you see a {thing} | is a {thing} there"
        " | have you got a {thing} in view | is there a {thing} now",
        "can you find a {thing} | tell me if there is a {thing}",
    ),
    "how_many": _of(
        "how many things do you see | how many things are there | how many objects are there"
        " | count the things | how many can you see | how many objects do you see"
        " | the number of things",
        "how many objects can you see | how many things can you count",
    ),
    "how_many_kind": _of(
        "how many {kinds} are there | how many {kinds} do you see | count the {kinds}"
        " | the number of {kinds}",
        "how many {kinds} can you see",
    ),
    "what_at": _of(
        "what is {place} | what do you see {place} | which thing is {place} | what can you see"
        " {place} | tell me what is {place} | look {place}",
        "which object is {place} | describe what is {place}",
    ),
    "size_of": _of(
        "is the {kind} big or small | how big is the {kind} | what size is the {kind}"
        " | is the {kind} small or big | how large is the {kind}",
        "tell me how big the {kind} is | what size does the {kind} have",
    ),
    "changed": _of(
        "what changed | what is different now | what happened | did anything change"
        " | what is new | has something changed",
        "what has changed | is anything different",
    ),
    # -- going on from what was said
    "and_the": _of(
        "and the {kind} | what about the {kind} | and what about the {kind}",
        "how about the {kind}",
    ),
    "its_colour": _of(
        "what colour is it | which colour is it | what colour does it have", "which colour has it"
    ),
    "its_place": _of(
        "where is it | on which side is it | where do you see it", "where can I find it"
    ),
    "another": _of(
        "is there another one | do you see another one | are there more of them",
        "can you see another one",
    ),
    # -- what to watch for
    "watch_appears": _of(
        "tell me when a {thing} appears | let me know when a {thing} appears"
        " | say something when a {thing} comes | warn me when a {thing} appears"
        " | tell me when you see a {thing} | let me know when you see a {thing}"
        " | watch for a {thing}",
        "tell me as soon as you see a {thing} | wait for a {thing} and tell me",
    ),
    "watch_leaves": _of(
        "tell me when the {thing} disappears | let me know when the {thing} disappears"
        " | tell me when the {thing} is gone | warn me when the {thing} leaves"
        " | let me know when the {thing} goes away",
        "tell me as soon as the {thing} is gone | warn me when the {thing} disappears",
    ),
    "watch_turns": _of(
        "tell me when the {kind} turns {colour} | let me know when the {kind} turns {colour}"
        " | tell me when the {kind} becomes {colour} | warn me when the {kind} is {colour}",
        "tell me as soon as the {kind} is {colour}",
    ),
    "watch_count": _of(
        "tell me when there are {n} things | let me know when there are {n} things"
        " | tell me when you see {n} things | warn me when there are {n} objects",
        "tell me as soon as there are {n} things",
    ),
    "cancel": _of(
        "never mind | forget it | stop watching | you can stop watching | cancel that"
        " | don't tell me any more | no need to watch",
        "you don't have to watch any more | forget what I asked",
    ),
    # -- to be quiet
    "stop": _of(
        "stop | be quiet | quiet please | wait | hold on | stop talking | enough | stop it"
        " | wait a moment | please stop",
        "that is enough | hold on please | stop now",
    ),
    # -- beyond it
    "unknown": _of(
        "what is the capital of France | how old are you | what time is it | who is the president"
        " | how far is the moon | what is the weather like | can you play music"
        " | what day is it today | how do I cook rice | where do you live"
        " | what is five plus three | who wrote this book | open the door | turn on the light"
        " | what is the news | how tall is the tower | why is the sky dark | drive to the station",
        "how many people live in London | what is the meaning of life | switch off the radio"
        " | who won the match | when does the train leave",
    ),
}

EVERY_WORDING = frozenset(
    one for intent in INTENTS.values() for one in (*intent.learned, *intent.held_out)
)

OPENINGS = ("please", "hey robot", "okay", "so", "hey nano", "well", "now", "robot")
ENDINGS = ("please", "now", "robot", "nano")
OPEN_HELD_OUT = ("um", "excuse me")

BACKCHANNELS = ("mhm", "uh huh", "yeah", "right", "okay", "I see", "yes", "sure", "ah", "oh")
BACKCHANNELS_HELD_OUT = ("yep", "got it", "ah okay", "alright")
TICS = ("um", "uh", "hmm", "er", "ahem")

FOREIGN: dict[str, tuple[str, ...]] = {
    "de": (
        "wie spät ist es",
        "was siehst du hier",
        "wo ist der rote ball",
        "guten tag wie geht es",
    ),
    "fr": ("quelle heure est-il", "qu'est-ce que tu vois", "bonjour comment ça va"),
    "es": ("qué hora es", "qué ves aquí", "buenos días cómo estás", "dónde está la pelota"),
    "it": ("che ora è", "che cosa vedi", "buongiorno come stai"),
    "pl": ("która jest godzina", "co widzisz przed sobą"),
    "sv": ("vad är klockan", "vad ser du här framme"),
}
FOREIGN_HELD_OUT: dict[str, tuple[str, ...]] = {
    "pt": ("que horas são", "o que você vê aqui"),
    "nl": ("hoe laat is het", "wat zie je daar"),
    "fi": ("paljonko kello on", "mitä sinä näet täällä"),
}
