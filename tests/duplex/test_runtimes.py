"""A conversation cannot tell which runtime it has: torch and files under onnxruntime give the same
words, codes and decisions; fewer bits give others, but the same ones every time."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.duplex.chat import answer
from minicpmo_ros.duplex.config import DuplexConfig, SamplerConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.dialogue import Dialogue, DialogueConfig
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.model.prompts import PromptText, chat_prompt, reply_turn
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Network
from tests.directed_network import DirectedNetwork
from tests.duplex.talking import PREFIX, SUFFIX, Talk, picture, same, second
from tests.duplex.turns import shown, sound

UNITS = 45  # the audio encoder forgets after 29 s
EXACT = 1e-4
CONTEXT = WindowConfig("context", max_units=6, previous_tokens=20)
BASIC = WindowConfig("basic", high_tokens=400, low_tokens=250)


class Life:
    """A conversation of all that may happen in one; a voice in its prompt.

    outcomes: of its units. rows: of the context behind each, and units that are forgotten.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        window: WindowConfig,
        *,
        seed: int = 0,
        early: bool = True,
        units: int = UNITS,
    ) -> None:
        directed = DirectedNetwork(network, tokenizer)
        # A random network hardly ever draws these by itself.
        control = tokenizer.control
        directed.script = deque([{control.listen: 14.0, control.turn_eos: 3.0}] * 5000)
        config = DuplexConfig(
            SamplerConfig(length_penalty=0.5), window, kv_capacity=700, forced_listens=1
        )
        self.talk = talk = Conversation(directed, tokenizer, config, seed=seed)
        talk.open(PREFIX, SUFFIX, np.concatenate([second(900), second(901)]))
        self.outcomes: list[Outcome] = []
        self.rows: list[tuple[int, int]] = []
        for unit in range(units):
            whole, cut = picture(10 * unit), picture(10 * unit + 1, cells=4)
            seen = {0: [whole], 3: [whole, cut], 5: [cut]}.get(unit % 7, [])
            if early and unit % 3 == 0:
                talk.show(seen[:1])
            if unit in (8, 19, 33):
                talk.interrupt()
            deaf = unit in (14, 21)
            self.outcomes.append(talk.hear(None if deaf else second(unit), seen))
            talk.settle()
            self.rows.append((talk.context.length, talk.window.forgotten))

    @property
    def keys(self) -> np.ndarray:
        return self.talk.context.keys(self.talk.context.length)


def facts(outcome: Outcome) -> tuple[Any, ...]:
    """All of a unit that is whole numbers or words."""
    said = outcome.utterance
    return (
        (outcome.listens, outcome.end_of_turn, outcome.ids, outcome.sampled, outcome.fed),
        (said.text, said.codes, said.problem),
    )


def chances(life: Life) -> np.ndarray:
    return np.array([(one.p_listen, one.p_speak) for one in life.outcomes])


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("window", [CONTEXT, BASIC], ids=lambda window: window.mode)
def test_a_long_conversation_is_the_same_word_for_word(network, ours, tokenizer, window) -> None:
    mine, reference = (Life(one, tokenizer, window) for one in (ours, network))
    assert [facts(one) for one in mine.outcomes] == [facts(one) for one in reference.outcomes]
    assert mine.rows == reference.rows
    np.testing.assert_allclose(chances(mine), chances(reference), rtol=EXACT)
    assert error(mine.keys, reference.keys) < EXACT
    # Else there would be little to see here.
    listens = [one.listens for one in reference.outcomes]
    assert 5 < sum(listens) < UNITS - 5
    assert sum(one.end_of_turn for one in reference.outcomes) > 2
    assert sum(len(one.utterance.codes) for one in reference.outcomes) > 25 * 5
    forgotten = [count for _, count in reference.rows]
    assert len(set(forgotten)) > 4
    assert forgotten[-1] > UNITS // 2


def test_another_seed_gives_other_words(ours, tokenizer) -> None:
    lives = [Life(ours, tokenizer, CONTEXT, seed=seed, units=6) for seed in (0, 1)]
    ids = [[one.ids for one in life.outcomes] for life in lives]
    assert ids[0] != ids[1]


def streamed(network: Network, tokenizer: Tokenizer) -> tuple[list[Any], np.ndarray]:
    """Rounds of a streamed dialogue whose window slides: what is said, and what is kept."""
    config = DialogueConfig(kv_capacity=800, reply_tokens=40, high_tokens=600, low_tokens=300)
    dialogue = Dialogue(network, tokenizer, config, seed=5)
    dialogue.open(chat_prompt("en", PromptText("Be brief."), voice=True), sound(2, 9))
    said: list[Any] = []
    for round_ in range(6):
        for number in range(3):
            pictures = [shown(10 * round_ + number, 112, 56, max_slices=2)] if number == 1 else []
            dialogue.hear(sound(1, 10 * round_ + number), pictures)
        dialogue.begin(reply_turn())
        while dialogue.replying and not (round_ == 2 and len(said) % 4 == 3):
            said.append((dialogue.more(7), dialogue.context.length))
        dialogue.stop()
        said.append(dialogue.window.forgotten)
    return said, dialogue.context.keys(dialogue.context.length)


def test_streamed_turns_are_the_same(network, ours, tokenizer) -> None:
    (said, keys), (expected, expected_keys) = (streamed(one, tokenizer) for one in (ours, network))
    assert said == expected
    assert error(keys, expected_keys) < EXACT
    assert expected[-1] > 2  # rounds are forgotten


@pytest.mark.parametrize(
    ("pictures", "seconds"), [(0, 0.0), (1, 0.0), (2, 0.0), (1, 1.7), (3, 2.5)]
)
def test_questions_have_the_same_answers(network, ours, tokenizer, pictures, seconds) -> None:
    """In text, with pictures that are cut, with sound, and with a video."""
    seen = [shown(key, 168, 112) for key in range(pictures)]
    heard = sound(seconds, 3) if seconds else None
    answers = []
    for one in (ours, network):
        dialogue = Dialogue(one, tokenizer, DialogueConfig(kv_capacity=2048), seed=1)
        pieces = answer(dialogue, "What is that?", seen, heard, limit=40)
        answers.append((list(pieces), dialogue.context.length))
    assert answers[0] == answers[1]
    assert len("".join(answers[0][0])) > 20


# -- fewer bits -----------------------------------------------------------------------------


def scripted(network: Network, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Units whose words are given, so that all networks have read the same: the logits at every
    word, and the chances of listening and speaking."""
    talk = Talk(network, tokenizer, window=BASIC, kv_capacity=700)
    found = []
    for unit in range(12):
        seen = [picture(unit)] if unit % 3 == 0 else []
        words = ("speak", "h", "i", "turn_eos", "chunk_eos") if unit % 4 == 3 else ("listen",)
        outcome = talk.unit(*words, shown=seen)
        found.append((outcome.p_listen, outcome.p_speak))
    return np.array(talk.told.logits), np.log(found)


def test_with_fewer_bits_decisions_are_near(network, rounded, tokenizer) -> None:
    (logits, chances), (exact, expected) = (scripted(one, tokenizer) for one in (rounded, network))
    far = np.linalg.norm(logits - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.01 < far.max() < 0.35
    assert np.abs(chances - expected).max() < 1.5


def test_with_fewer_bits_the_same_is_said_every_time(rounded, tokenizer) -> None:
    """Bit for bit, whether pictures were looked at early or not."""
    first, again, late = (
        Life(rounded, tokenizer, CONTEXT, early=early, units=20) for early in (True, True, False)
    )
    for other in (again, late):
        assert all(map(same, first.outcomes, other.outcomes))
        np.testing.assert_array_equal(first.keys, other.keys)
