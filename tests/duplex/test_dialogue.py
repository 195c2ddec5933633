"""Turn by turn: what is read, token for token, and what is drawn as a reply."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.duplex.config import SamplerConfig
from minicpmo_ros.duplex.dialogue import UNSPEAKABLE, Dialogue, DialogueConfig, unspeakable
from minicpmo_ros.errors import InputError, KvFullError
from minicpmo_ros.model.prompts import PromptText, chat_prompt, reply_turn
from tests.directed_network import DirectedNetwork
from tests.duplex.turns import shown, sound, speller

SYSTEM = "<|im_start|>system\nBe brief.<|im_end|>\n"
HEARD = "<|audio_start|>{sound}<|audio_end|>"
SEEN = "<image>{picture}</image>"
CELL = "<slice>{picture}</slice>"
REPLY = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n<|tts_bos|>"
NEXT = "<|tts_eos|><|im_end|>\n<|im_start|>user\n"


@pytest.fixture
def directed(network, tokenizer) -> DirectedNetwork:
    directed = DirectedNetwork(network, tokenizer)
    directed.rest = tokenizer.control.tts_eos
    return directed


@pytest.fixture
def written(tiny_checkpoint):
    return speller(tiny_checkpoint)


def opened(directed: DirectedNetwork, **config) -> Dialogue:
    dialogue = Dialogue(
        directed,
        directed.tokenizer,
        DialogueConfig(**{"kv_capacity": 1024, "high_tokens": 1024, "low_tokens": 512, **config}),
    )
    dialogue.open(chat_prompt("en", PromptText("Be brief."), voice=False))
    return dialogue


def reply(dialogue: Dialogue, limit: int = 0) -> str:
    """A whole reply."""
    dialogue.begin(reply_turn(), limit=limit)
    text = ""
    while dialogue.replying:
        text += dialogue.more(3).text
    return text


# -- what is read ---------------------------------------------------------------------------


def test_a_turn_is_opened_once_and_read_second_by_second(directed, written):
    dialogue = opened(directed)
    for second in range(3):
        dialogue.hear(sound(1, second))
    assert dialogue.context.transcript == written(
        SYSTEM + "<|im_start|>user\n" + HEARD + HEARD + HEARD
    )


def test_a_turn_is_heard_as_a_stream_of_its_own(directed, network):
    dialogue = opened(directed)
    for turn in range(2):
        for second in range(2):
            dialogue.hear(sound(1, 10 * turn + second))
        reply(dialogue)
    for turn in range(2):
        ears = network.ears()
        for second in range(2):
            expected = ears.step(sound(1, 10 * turn + second))
            assert bool((directed.heard[2 * turn + second] == expected).all())


def test_pictures_stand_before_their_second_of_sound(directed, written):
    dialogue = opened(directed)
    dialogue.hear(sound(1), [shown(1), shown(2)])
    dialogue.hear(sound(1, 1), [shown(3)])
    assert dialogue.context.transcript == written(
        SYSTEM + "<|im_start|>user\n" + SEEN + SEEN + HEARD + SEEN + HEARD
    )


@pytest.mark.parametrize(("max_slices", "width", "height", "expected"), [
    (1, 112, 112, SEEN),
    (2, 112, 56, SEEN + CELL + CELL),
    (4, 112, 112, SEEN + CELL + CELL + "\n" + CELL + CELL),
    (4, 56, 168, SEEN + CELL + "\n" + CELL + "\n" + CELL),
])  # fmt: skip
def test_a_large_picture_is_followed_by_its_slices(
    directed, written, max_slices, width, height, expected
):
    dialogue = opened(directed, max_slices=max_slices)
    dialogue.hear(sound(1), [shown(1, width, height)])
    assert dialogue.context.transcript == written(SYSTEM + "<|im_start|>user\n" + expected + HEARD)
    rows = [{"picture": 64, "sound": 10}.get(part, 1) for part in dialogue.context.transcript]
    assert dialogue.context.length == sum(rows)


def test_a_picture_may_have_a_limit_of_its_own(directed, written):
    dialogue = opened(directed)
    dialogue.hear(sound(1), [shown(1, 112, 56, max_slices=2), shown(2, 112, 56)])
    assert dialogue.context.transcript == written(
        SYSTEM + "<|im_start|>user\n" + SEEN + CELL + CELL + SEEN + HEARD
    )


def test_a_reply_is_opened_and_read_and_the_next_turn_closes_it(directed, written):
    """Also where the model has drawn what ends it: that is not read when it is drawn."""
    control = directed.tokenizer.control
    for end in (control.tts_eos, control.im_end, control.endoftext):
        dialogue = opened(directed)
        dialogue.hear(sound(1))
        directed.script += [*directed.tokenizer.encode("Yes, I do."), end]
        assert reply(dialogue) == "Yes, I do."
        dialogue.hear(sound(1))
        assert dialogue.context.transcript == written(
            SYSTEM + "<|im_start|>user\n" + HEARD + REPLY + "Yes, I do." + NEXT + HEARD
        )


@pytest.mark.parametrize("how", ["stopped", "spoken over", "too long"])
def test_a_reply_that_was_cut_is_closed_where_it_was(directed, written, how):
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    directed.replies("Yes, I do.")
    said = directed.tokenizer.encode("Yes, I do.")[:2]
    dialogue.begin(reply_turn(), limit=2 if how == "too long" else 0)
    piece = dialogue.more(2)
    assert piece.text == directed.tokenizer.decode(said)
    assert piece.done == (how == "too long")
    if how == "stopped":
        dialogue.stop()
    dialogue.hear(sound(1))
    assert not dialogue.replying
    expected = written(SYSTEM + "<|im_start|>user\n" + HEARD + REPLY)
    assert dialogue.context.transcript == expected + said + written(NEXT + HEARD)


def test_a_reply_that_is_nothing_at_all_is_a_turn_too(directed, written):
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    assert reply(dialogue) == ""
    dialogue.hear(sound(1))
    assert dialogue.context.transcript == written(
        SYSTEM + "<|im_start|>user\n" + HEARD + REPLY + NEXT + HEARD
    )


def test_a_voice_stands_in_the_prompt(directed, written, network):
    dialogue = opened(directed)
    dialogue.context.parts.clear()
    dialogue.open(chat_prompt("en", PromptText("Be brief.")), sound(2))
    expected = (
        "<|im_start|>system\nClone the voice in the provided audio prompt.<|audio_start|>{voice}"
        "<|audio_end|>Be brief.<|im_end|>\n"
    )
    assert dialogue.context.transcript == written(expected)
    assert bool((dialogue.context.parts[1] == network.voice(sound(2))).all())


def test_a_new_session_has_nothing_of_the_last(directed, written):
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    directed.replies("Yes.")
    dialogue.begin(reply_turn())
    dialogue.more(1)
    dialogue.context.parts.clear()
    dialogue.open(chat_prompt("en", PromptText("Be brief."), voice=False))
    assert not dialogue.replying
    dialogue.hear(sound(1))
    assert dialogue.context.transcript == written(SYSTEM + "<|im_start|>user\n" + HEARD)
    assert dialogue.context.length == len(dialogue.context.ids) + 10


# -- what cannot be read --------------------------------------------------------------------


def test_sound_or_pictures_of_no_use_leave_the_turn_as_it_was(directed, written):
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    length = dialogue.context.length
    broken = shown(1)
    for pixels in (broken.pixels[:, :, :2], broken.pixels.astype(np.float32)):
        with pytest.raises(InputError):
            dialogue.hear(sound(1), [type(broken)(1, pixels)])
    for bad in (sound(0.5), np.full(16_000, np.nan, np.float32)):
        with pytest.raises(InputError):
            dialogue.hear(bad)
    assert dialogue.context.length == length
    dialogue.hear(sound(1, 1))
    assert dialogue.context.transcript == written(SYSTEM + "<|im_start|>user\n" + HEARD + HEARD)


def test_a_turn_that_leaves_no_room_for_its_reply_is_refused_and_can_be_gone_on_with(
    directed, written
):
    dialogue = opened(directed, kv_capacity=128, high_tokens=128, low_tokens=64, reply_tokens=60)
    while not dialogue.must_reply:
        dialogue.hear(sound(1))
    dialogue.hear(sound(1))
    read = dialogue.context.transcript
    with pytest.raises(KvFullError, match="128 tokens"):
        dialogue.begin(reply_turn())
    assert not dialogue.replying
    assert dialogue.context.transcript == read
    directed.replies("Ok")
    assert reply(dialogue, limit=4) == "Ok"
    assert dialogue.context.transcript == read + written(REPLY + "Ok")


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_it_must_reply_just_before_another_second_would_leave_no_room(directed, pictures):
    dialogue = opened(directed, kv_capacity=512, high_tokens=512, low_tokens=64, reply_tokens=100)
    seconds = 0
    while not dialogue.must_reply:
        dialogue.hear(sound(1, seconds), [shown(10 * seconds + n) for n in range(pictures)])
        seconds += 1
    room = 512 - dialogue.context.length
    second = 12 + 66 * pictures
    before = dialogue.context.length
    dialogue.begin(reply_turn())
    reply_rows = 100 + dialogue.context.length - before
    turn_opening = 8  # counts as part of the first second
    assert reply_rows <= room < reply_rows + second + turn_opening
    assert seconds >= 2


# -- what is drawn --------------------------------------------------------------------------


def test_more_gives_so_many_tokens_and_says_when_it_is_done(directed):
    tokens = directed.tokenizer.encode("one two three")
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    directed.replies("one two three")
    dialogue.begin(reply_turn())
    pieces = [dialogue.more(2) for _ in range(len(tokens) // 2 + 1)]
    assert "".join(piece.text for piece in pieces) == "one two three"
    assert pieces[0].text == directed.tokenizer.decode(tokens[:2])
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert dialogue.more(2).done


@pytest.mark.parametrize(("limit", "drawn"), [(1, 1), (3, 3), (7, 7), (8, 7), (0, 7)])
def test_a_reply_has_at_most_so_many_tokens(directed, limit, drawn):
    dialogue = opened(directed, reply_tokens=7)
    dialogue.hear(sound(1))
    directed.rest = directed.tokenizer.encode("a")[0]
    assert reply(dialogue, limit) == "a" * drawn


def test_characters_come_whole(directed):
    """Each of them is several tokens to a tokenizer that does not know it."""
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    directed.replies("龘😀")
    dialogue.begin(reply_turn())
    pieces = []
    while dialogue.replying:
        pieces.append(dialogue.more(1).text)
    assert [piece for piece in pieces if piece] == ["龘", "😀"]
    assert len(pieces) > 4


def test_half_a_character_does_not_go_over_into_the_next_reply(directed):
    dialogue = opened(directed)
    for _ in range(2):
        dialogue.hear(sound(1))
        directed.script.clear()
        directed.replies("龘a")
        dialogue.begin(reply_turn())
        dialogue.more(1)
        dialogue.stop()
    dialogue.hear(sound(1))
    directed.script.clear()
    directed.replies("a")
    assert reply(dialogue) == "a"


def test_tokens_count_as_repeated_within_one_reply_only(directed):
    one, other = directed.tokenizer.encode("a")[0], directed.tokenizer.encode("b")[0]
    dialogue = opened(directed, sampler=SamplerConfig(greedy=True, repetition=4.0))
    for _ in range(2):
        directed.script += [{one: 1000, other: 900}] * 2
        dialogue.hear(sound(1))
        assert reply(dialogue) == "ab"


def test_signs_that_cannot_be_spoken_are_known(tokenizer):
    ids = unspeakable(tokenizer)
    assert ids == sorted(set(ids))
    assert set(tokenizer.bad_ids) <= set(ids)
    single = [sign for sign in UNSPEAKABLE if len(tokenizer.encode(sign)) == 1]
    assert {":", "#", "*", "/"} <= set(single)
    assert {tokenizer.encode(sign)[0] for sign in single} <= set(ids)
    others = set(ids) - set(tokenizer.bad_ids)
    assert all(tokenizer.decode([token]) in UNSPEAKABLE for token in others)


def test_what_is_forbidden_is_never_drawn(directed, tokenizer):
    allowed = sorted(tokenizer.encode(letter)[0] for letter in "abcde")
    forbidden = [token for token in range(len(tokenizer)) if token not in allowed]
    config = DialogueConfig(
        kv_capacity=512, reply_tokens=100, sampler=SamplerConfig(temperature=10, top_k=0, top_p=1)
    )
    dialogue = Dialogue(directed, tokenizer, config, forbidden=forbidden)
    dialogue.clear()
    directed.rest = None
    text = reply(dialogue)
    assert len(text) == 100
    assert set(text) == set("abcde")


def test_a_reply_differs_by_its_seed_alone(directed, tokenizer):
    directed.rest = None

    def said(seed: int) -> str:
        dialogue = Dialogue(directed, tokenizer, DialogueConfig(kv_capacity=256), seed=seed)
        dialogue.open(chat_prompt("en", voice=False))
        dialogue.hear(sound(1))
        return reply(dialogue, 20)

    assert said(1) == said(1) != said(2)


# -- equal to what is read at once ----------------------------------------------------------


def conversation(dialogue: Dialogue, rounds: int) -> None:
    for round_ in range(rounds):
        for second in range(1 + round_ % 2):
            dialogue.hear(sound(1, 10 * round_ + second), [shown(round_)] if round_ % 2 else [])
        dialogue.begin(reply_turn())
        while dialogue.replying:
            dialogue.more(4)
            if round_ == 1:
                dialogue.stop()


def test_a_dialogue_is_equal_to_its_whole_text_read_at_once(directed, network):
    directed.rest = None
    dialogue = opened(directed, reply_tokens=20)
    conversation(dialogue, 3)
    once = network.context(1024)
    once.read(*dialogue.context.parts)
    length = dialogue.context.length
    assert once.length == length
    keys, expected = (context.keys(length) for context in (dialogue.context, once))
    assert np.abs(keys - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


def test_a_greedy_reply_is_that_of_one_pass_over_the_same_tokens(directed, network, tokenizer):
    directed.rest = None
    config = DialogueConfig(
        kv_capacity=512, reply_tokens=30, sampler=SamplerConfig(greedy=True, repetition=1.0)
    )
    forbidden = unspeakable(tokenizer)
    dialogue = Dialogue(directed, tokenizer, config, forbidden=forbidden)
    dialogue.open(chat_prompt("en", voice=False))
    dialogue.hear(sound(1), [shown(1)])
    dialogue.begin(reply_turn())
    before = len(dialogue.context.parts)
    while dialogue.replying:
        dialogue.more(1)
    drawn = [token for part in dialogue.context.parts[before:] for token in part]
    assert len(drawn) > 5
    once = network.context(512)
    hidden = once.read(*dialogue.context.parts)
    first = once.length - len(drawn) - 1
    for number, token in enumerate(drawn):
        logits = once.logits(hidden[: first + number + 1])
        logits[forbidden] = -np.inf
        assert int(logits.argmax()) == token


# -- a long conversation --------------------------------------------------------------------


def test_hundreds_of_turns_stay_within_capacity_and_keep_the_prompt(directed):
    directed.rest = None
    dialogue = opened(directed, kv_capacity=320, high_tokens=240, low_tokens=100, reply_tokens=40)
    prompt = dialogue.context.length
    keys = dialogue.context.keys(prompt)
    lengths = []
    for round_ in range(150):
        for second in range(1 + round_ % 3):
            dialogue.hear(sound(1, second), [shown(round_)] if round_ % 5 == 0 else [])
            lengths.append(dialogue.context.length)
        dialogue.begin(reply_turn())
        dialogue.more(round_ % 30)
        dialogue.stop()
        lengths.append(dialogue.context.length)
        assert dialogue.context.length <= 240
        kept = sum(unit.rows for unit in dialogue.window.units)
        assert kept == dialogue.context.length - prompt
    assert max(lengths) <= 320
    assert dialogue.window.forgotten > 100
    length = dialogue.context.length
    np.testing.assert_array_equal(dialogue.context.keys(length)[:, :, :prompt], keys)


def test_what_is_left_after_a_slide_is_what_would_have_been_read_without_the_rest(
    directed, network, tokenizer
):
    """In the first layer, where keys know nothing of what was before them but their place."""
    dialogue = opened(directed, kv_capacity=512, high_tokens=120, low_tokens=60, reply_tokens=30)
    rounds = []
    while not dialogue.window.forgotten:
        start = len(dialogue.context.parts)
        dialogue.hear(sound(1, len(rounds)))
        directed.replies(f"Number {len(rounds)}.")
        reply(dialogue)
        rounds.append(dialogue.context.parts[start:])
    prefix, suffix = chat_prompt("en", PromptText("Be brief."), voice=False).ids(tokenizer)
    once = network.context(512)
    kept = rounds[dialogue.window.forgotten :]
    assert kept
    once.read(prefix, suffix, *(part for parts in kept for part in parts))
    length = once.length
    assert dialogue.context.length == length
    keys, expected = (context.keys(length)[0] for context in (dialogue.context, once))
    np.testing.assert_allclose(keys, expected, atol=1e-5)


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["hear", "begin", "more", "stop", "look"]), max_size=30))
def test_in_whatever_order_it_is_used_turns_are_opened_and_closed_in_pairs(
    network, tokenizer, steps
):
    directed = DirectedNetwork(network, tokenizer)
    directed.rest = tokenizer.encode("a")[0]
    dialogue = opened(directed, kv_capacity=2048, high_tokens=2048, reply_tokens=3)
    heard = False
    for step in steps:
        match step:
            case "hear" | "look":
                dialogue.hear(sound(1), [shown(1)] if step == "look" else [])
                heard = True
            case "begin" if heard:
                dialogue.begin(reply_turn())
                heard = False
            case "more":
                dialogue.more(2)
            case "stop":
                dialogue.stop()
    control = tokenizer.control
    counted = Counter(dialogue.context.ids)
    assert abs(counted[control.im_start] - counted[control.im_end]) <= 1
    assert counted[control.tts_bos] - counted[control.tts_eos] in (0, 1)
    rows = sum(len(part) for part in dialogue.context.parts)
    assert dialogue.context.length == rows


# -- what is remembered of a reply that was cut off -----------------------------------------------


def cut_off(directed, heard, *, says="one two three", more=False, ends=False):
    """A dialogue whose reply is cut off after these words; more: the user's next second was read
    before; ends: the model had ended it."""
    dialogue = opened(directed)
    dialogue.hear(sound(1))
    directed.script += directed.tokenizer.encode(says)
    dialogue.begin(reply_turn())
    dialogue.more(100 if ends else len(directed.tokenizer.encode(says)))
    if more:
        dialogue.stop()
        dialogue.hear(sound(1, 1))
    if heard is not None:
        dialogue.remember(heard)
    return dialogue


@pytest.mark.parametrize("ends", [False, True])
def test_only_the_words_of_a_reply_that_were_heard_stay_in_the_context(directed, ends):
    dialogue = cut_off(directed, "one two", ends=ends)
    other = cut_off(directed, None, says="one two")
    other.stop()
    assert not dialogue.replying
    assert dialogue.context.length == other.context.length
    rows = dialogue.context.length
    np.testing.assert_allclose(dialogue.context.keys(rows), other.context.keys(rows), atol=1e-5)
    assert [u.rows for u in dialogue.window.units] == [u.rows for u in other.window.units]
    for one in (dialogue, other):
        directed.script.clear()
        one.hear(sound(1, 1))
        directed.script += directed.tokenizer.encode("yes")
        assert reply(one) == "yes"
    assert [u.rows for u in dialogue.window.units] == [u.rows for u in other.window.units]


def test_what_was_read_behind_a_reply_stays(directed):
    dialogue = cut_off(directed, "one", more=True)
    other = cut_off(directed, None, says="one", more=True)
    assert dialogue.context.length == other.context.length
    assert dialogue._start == other._start


def test_a_reply_that_was_heard_stays_and_so_do_those_before_the_last_cut(directed):
    dialogue = cut_off(directed, "one two three")
    rows = dialogue.context.length
    assert rows == cut_off(directed, None).context.length
    dialogue.remember("")
    assert dialogue.context.length == rows
