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
        " | hello nano | nice to meet you | hi robot | hello again | good day | good to see you"
        " | hello my friend | hey you | greetings | pleased to meet you",
        "hello there | hey there | hi nano | good afternoon",
    ),
    "how_are_you": _of(
        "how are you | how are you doing | how do you feel | how is it going | are you okay"
        " | how do you do | how are things | are you well | are you doing well"
        " | how have you been | is everything okay with you | how is your day"
        " | are you feeling good",
        "how are you today | how are you feeling",
    ),
    "name": _of(
        "what is your name | who are you | what are you called | tell me your name"
        " | do you have a name | what's your name | what name do you have | tell me who you are"
        " | say who you are | what do people call you | introduce yourself | who is speaking"
        " | I do not know your name",
        "may I know your name | what should I call you | say your name",
    ),
    "ability": _of(
        "what can you do | how can you help me | what are you able to do"
        " | tell me what you can do | what are you good at | what can I ask you | help me"
        " | can you help me | I need help | what kind of things can you do | what do you do"
        " | what are your skills | what should I ask you | show me what you can do"
        " | how do you help people",
        "what can you do for me | what do you know how to do",
    ),
    "story": _of(
        "tell me a story | tell a story | I want to hear a story | can you tell me a story"
        " | do you know a story | I would like a story | tell us a story | a story please"
        " | how about a story | read me a story | can I hear a story"
        " | could you tell me a story | do you have a story for me | entertain me with a story",
        "let me hear a story | could you tell us a story",
    ),
    "thanks": _of(
        "thank you | thanks | thanks a lot | thank you very much | that was helpful"
        " | great thanks | thanks for your help | thank you for that | thank you robot"
        " | okay thank you | I thank you | that is very kind | well done | good job"
        " | that's great thank you",
        "many thanks | thank you so much",
    ),
    "goodbye": _of(
        "goodbye | bye | bye bye | see you later | see you | good night | I have to go"
        " | see you soon | see you next time | bye robot | have a nice day | take care"
        " | farewell | I am leaving now | that's all goodbye | I will go now",
        "goodbye robot | see you tomorrow | bye for now",
    ),
    "hear_me": _of(
        "can you hear me | do you hear me | are you listening | are you there | did you hear me"
        " | is anybody there | can you understand me | do you listen to me | is anyone there"
        " | are you awake | are you ready | are you with me | am I loud enough"
        " | hello can you hear me",
        "are you still there | can you hear my voice",
    ),
    # -- numbers and words
    "count": _of(
        "count to {n} | please count to {n} | can you count to {n} | count from one to {n}"
        " | I want you to count to {n} | start counting to {n} | will you count to {n}"
        " | say the numbers from one to {n} | let me hear you count to {n}"
        " | go on and count to {n} | tell me the numbers to {n} | would you count to {n}",
        "count up to {n} | could you count to {n} for me",
    ),
    "remember": _of(
        "remember the word {word} | please remember {word} | keep in mind {word}"
        " | the secret word is {word} | don't forget {word} | remember {word} for me"
        " | the word is {word} | can you remember {word} | I want you to remember {word}"
        " | keep the word {word} in mind | do not forget the word {word}"
        " | my secret word is {word} | my word is {word} | here is a word {word}"
        " | learn the word {word} | you must remember {word}",
        "try to remember {word} | the password is {word}",
    ),
    "recall": _of(
        "what was the word | what did I say | what did I tell you to remember"
        " | what was the secret word | which word was it | what word did I say"
        " | do you know the word | what is the word | what is the secret word"
        " | say the secret word | which word did I say | what was my word"
        " | what did I ask you to remember | I forgot the word | what word was it"
        " | what should you remember",
        "do you remember the word | tell me the secret word | which word did I tell you",
    ),
    "repeat": _of(
        "say {word} | repeat {word} | repeat after me {word} | can you say {word}"
        " | say the word {word} | I want you to say {word} | please say {word}"
        " | say after me {word} | try to say {word} | let me hear you say {word}"
        " | just say {word} | would you say {word} | how do you say {word}",
        "please repeat {word} | could you say {word} for me",
    ),
    # -- what is seen
    "see": _of(
        "what do you see | what can you see | what is there | tell me what you see"
        " | describe what you see | what is in front of you | what are you looking at"
        " | what things do you see | what do you see now | describe the picture"
        " | what is in the picture | look around | what is here | what is there to see"
        " | say what you see | do you see anything | do you see something"
        " | what does the camera see | which things do you see | what objects do you see"
        " | list the things | name the things that you see | what do you notice"
        " | can you describe what you see | tell me about the picture | what's there"
        " | what have you got in front of you | what can be seen",
        "describe the scene | what can you see right now | which things are there",
    ),
    "colour_of": _of(
        "what colour is the {kind} | which colour is the {kind}"
        " | tell me the colour of the {kind} | what colour does the {kind} have"
        " | which colour does the {kind} have | the {kind} what colour is it"
        " | say the colour of the {kind} | tell me what colour the {kind} is"
        " | do you know what colour the {kind} is | can you tell me the colour of the {kind}"
        " | name the colour of the {kind} | which colour has the {kind}"
        " | can you see what colour the {kind} is | look at the {kind} what colour is it"
        " | say what colour the {kind} is | I want to know the colour of the {kind}"
        " | of what colour is the {kind} | what colour is that {kind}",
        "what is the colour of the {kind} | the colour of the {kind} please",
    ),
    "where": _of(
        "where is the {thing} | where do you see the {thing} | on which side is the {thing}"
        " | where can you see the {thing} | find the {thing} | the {thing} where is it"
        " | show me where the {thing} is | where's the {thing}"
        " | do you know where the {thing} is | I am looking for the {thing}"
        " | I cannot find the {thing} | which side is the {thing} on"
        " | is the {thing} left or right | where can I find the {thing}"
        " | can you show me the {thing} | say where the {thing} is"
        " | where in the picture is the {thing} | I want to know where the {thing} is"
        " | in which place is the {thing} | where does the {thing} stand",
        "tell me where the {thing} is | where exactly is the {thing}",
    ),
    "is_there": _of(
        "is there a {thing} | do you see a {thing} | can you see a {thing} | is a {thing} there"
        " | have you got a {thing} in view | is there a {thing} now | is there any {thing}"
        " | can you spot a {thing} | do you notice a {thing} | is a {thing} in the picture"
        " | is a {thing} in view | is there a {thing} in front of you"
        " | does the camera see a {thing} | do you see any {thing}"
        " | say whether there is a {thing} | do you have a {thing} there"
        " | are you seeing a {thing} | I wonder if there is a {thing}",
        "can you find a {thing} | tell me if there is a {thing}",
    ),
    "how_many": _of(
        "how many things do you see | how many things are there | how many objects are there"
        " | count the things | how many can you see | how many objects do you see"
        " | the number of things | how many things can you see | how many are there"
        " | how many things are in the picture | how many things are in front of you"
        " | count all things | count the objects | count what you see"
        " | tell me how many things there are | tell me how many things you see"
        " | do you know how many things there are | what number of things do you see"
        " | how many objects are in view | say how many things you see",
        "how many objects can you see | how many things can you count",
    ),
    "how_many_kind": _of(
        "how many {kinds} are there | how many {kinds} do you see | count the {kinds}"
        " | the number of {kinds} | count all {kinds} | tell me how many {kinds} there are"
        " | how many {kinds} are in the picture | how many {kinds} are in view"
        " | do you know how many {kinds} there are | say how many {kinds} you see"
        " | what number of {kinds} do you see | how many of the things are {kinds}"
        " | how many {kinds} have you got",
        "how many {kinds} can you see",
    ),
    "what_at": _of(
        "what is {place} | what do you see {place} | which thing is {place}"
        " | what can you see {place} | tell me what is {place} | look {place}"
        " | what is there {place} | what can be seen {place} | what have you got {place}"
        " | what stands {place} | say what is {place} | do you know what is {place}"
        " | what thing do you see {place} | {place} what is there | {place} what do you see"
        " | name the thing {place} | is there anything {place} | is something {place}"
        " | show me what is {place}",
        "which object is {place} | describe what is {place}",
    ),
    "size_of": _of(
        "is the {kind} big or small | how big is the {kind} | what size is the {kind}"
        " | is the {kind} small or big | how large is the {kind} | is the {kind} large or small"
        " | is the {kind} big | is the {kind} small | what is the size of the {kind}"
        " | tell me the size of the {kind} | say how big the {kind} is"
        " | tell me if the {kind} is big or small | do you know how large the {kind} is"
        " | of what size is the {kind} | is that a big {kind}",
        "tell me how big the {kind} is | what size does the {kind} have",
    ),
    "changed": _of(
        "what changed | what is different now | what happened | did anything change"
        " | what is new | has something changed | did something change | did something happen"
        " | has anything happened | is something new | is anything new | tell me what changed"
        " | tell me what is new | what is different | do you notice a change"
        " | do you see a change | what just happened | what is not the same",
        "what has changed | is anything different",
    ),
    # -- going on from what was said
    "and_the": _of(
        "and the {kind} | what about the {kind} | and what about the {kind} | and that {kind}"
        " | now the {kind} | and also the {kind} | and what of the {kind} | same for the {kind}"
        " | then the {kind}",
        "how about the {kind}",
    ),
    "its_colour": _of(
        "what colour is it | which colour is it | what colour does it have | what is its colour"
        " | tell me its colour | and its colour | which colour does it have"
        " | and what colour is it | of what colour is it | say what colour it is"
        " | do you know its colour",
        "which colour has it",
    ),
    "its_place": _of(
        "where is it | on which side is it | where do you see it | where is it now"
        " | and where is it | where can you see it | on what side is it | which side is it on"
        " | tell me where it is | do you know where it is | show me where it is",
        "where can I find it",
    ),
    "another": _of(
        "is there another one | do you see another one | are there more of them"
        " | is there one more | are there others | are there any more | do you see one more"
        " | do you see more of them | is there a second one"
        " | have you got another one",
        "can you see another one",
    ),
    # -- what to watch for
    "watch_appears": _of(
        "tell me when a {thing} appears | let me know when a {thing} appears"
        " | say something when a {thing} comes | warn me when a {thing} appears"
        " | tell me when you see a {thing} | let me know when you see a {thing}"
        " | watch for a {thing} | tell me when a {thing} comes | tell me if a {thing} comes"
        " | let me know if a {thing} appears | watch out for a {thing} | look out for a {thing}"
        " | call me when a {thing} comes | when a {thing} comes tell me"
        " | when you see a {thing} tell me | when a {thing} appears let me know"
        " | if you see a {thing} say something | if a {thing} comes let me know"
        " | warn me if a {thing} comes | I want to know when a {thing} comes"
        " | tell me the moment a {thing} appears | report when a {thing} appears"
        " | tell me when there is a {thing}",
        "tell me as soon as you see a {thing} | wait for a {thing} and tell me",
    ),
    "watch_leaves": _of(
        "tell me when the {thing} disappears | let me know when the {thing} disappears"
        " | tell me when the {thing} is gone | warn me when the {thing} leaves"
        " | let me know when the {thing} goes away | let me know when the {thing} is gone"
        " | tell me when the {thing} leaves | tell me when the {thing} goes away"
        " | tell me if the {thing} disappears | let me know if the {thing} goes away"
        " | say something when the {thing} is gone | when the {thing} is gone tell me"
        " | when the {thing} disappears let me know | call me when the {thing} goes away"
        " | I want to know when the {thing} is gone | report when the {thing} disappears"
        " | tell me the moment the {thing} leaves | warn me if the {thing} is gone",
        "tell me as soon as the {thing} is gone | warn me when the {thing} disappears",
    ),
    "watch_turns": _of(
        "tell me when the {kind} turns {colour} | let me know when the {kind} turns {colour}"
        " | tell me when the {kind} becomes {colour} | warn me when the {kind} is {colour}"
        " | let me know when the {kind} is {colour}"
        " | let me know when the {kind} becomes {colour} | tell me when the {kind} is {colour}"
        " | tell me if the {kind} turns {colour} | say something when the {kind} turns {colour}"
        " | warn me when the {kind} turns {colour} | when the {kind} turns {colour} tell me"
        " | when the {kind} is {colour} let me know | call me when the {kind} becomes {colour}"
        " | I want to know when the {kind} turns {colour}"
        " | tell me when the {kind} changes to {colour} | report when the {kind} is {colour}",
        "tell me as soon as the {kind} is {colour}",
    ),
    "watch_count": _of(
        "tell me when there are {n} things | let me know when there are {n} things"
        " | tell me when you see {n} things | warn me when there are {n} objects"
        " | let me know when you see {n} things | tell me when there are {n} objects"
        " | tell me if there are {n} things | say something when there are {n} things"
        " | when there are {n} things tell me | when you see {n} things let me know"
        " | call me when there are {n} things | I want to know when there are {n} things"
        " | warn me when you see {n} things | tell me when you can see {n} things",
        "tell me as soon as there are {n} things",
    ),
    "cancel": _of(
        "never mind | forget it | stop watching | you can stop watching | cancel that"
        " | don't tell me any more | no need to watch | forget about it | forget that"
        " | cancel it | you can forget it | don't watch any more | don't watch for it"
        " | no more watching | stop looking for it | never mind that | I don't need it any more"
        " | it is not important any more | you need not watch",
        "you don't have to watch any more | forget what I asked",
    ),
    # -- to be quiet
    "stop": _of(
        "stop | be quiet | quiet please | wait | hold on | stop talking | enough | stop it"
        " | wait a moment | please stop | okay stop | stop please | stop speaking | stop that"
        " | be silent | silence | quiet | hush | no more | not now | one moment | just a moment"
        " | that will do",
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
