"""One network, three ways to converse: switched without loading again, none disturbs another."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.brains.api import ChatRequest, SessionSetup
from minicpmo_ros.brains.local import LocalBrain
from minicpmo_ros.duplex.chat import answer
from minicpmo_ros.duplex.dialogue import Dialogue
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.errors import BrainError, InputError, KvFullError
from minicpmo_ros.messages import Action, Picture
from minicpmo_ros.model import prompts
from tests.brains.local.robot import NOBODY, picture, second, somebody, unreadable

TONE = np.round(8000 * np.sin(np.arange(32_000) * 0.1)).astype(np.int16)


def test_modes_are_switched_without_loading_again(make, prompter, tokenizer):
    loads = []

    def load(brain):
        loads.append(brain)
        return prompter, tokenizer

    brain = LocalBrain(make().config, None, load)
    reasons, capacities = [], []
    for mode in ("duplex", "streaming", "chat", "duplex"):
        brain.open(SessionSetup(mode=mode))
        result = brain.unit(second(0), NOBODY)
        assert result.action is Action.LISTEN
        reasons.append(result.reason)
        capacities.append(result.kv_capacity)
    assert len(loads) == 1
    assert reasons == [
        *("the model listens", "nobody speaks", "mode chat: only questions are answered"),
        "the model listens",
    ]
    assert capacities == [1024, 1024, 0, 1024]
    brain.close()
    brain.open(SessionSetup())
    assert len(loads) == 2


def test_a_mode_that_was_left_begins_anew(make, prompter):
    prompter.rest = None
    brain = make()
    brain.open(SessionSetup())
    first = [brain.unit(second(k), NOBODY) for k in range(3)]
    brain.open(SessionSetup(mode="streaming"))
    brain.open(SessionSetup())
    again = [brain.unit(second(k), NOBODY) for k in range(3)]
    assert [(r.text, r.p_listen, r.kv_length) for r in first] == [
        (r.text, r.p_listen, r.kv_length) for r in again
    ]


def test_mode_chat_leaves_units_interruptions_and_pictures_alone(make, prompter):
    brain = make()
    brain.open(SessionSetup(mode="chat"))
    brain.picture(picture(0.5))
    brain.interrupt("")
    brain.settle()
    assert brain.unit(second(0, picture(0.5)), somebody(0, None)).action is Action.LISTEN
    assert prompter.looked == 0


def test_what_runs_is_told_with_its_memory(make):
    brain = make(kv_capacity=8192, window="off")
    assert brain.about == ""
    brain.open(SessionSetup())
    # Two layers, two heads of 32, keys and values of four bytes.
    gib = 8192 * 2 * 2 * 32 * 2 * 4 / 2**30
    assert f"KV cache of 8192 tokens: {gib:.2f} GiB" in brain.about
    assert "torch" in brain.about


@pytest.mark.parametrize("mode", ["duplex", "streaming", "chat"])
def test_a_question_is_answered_in_pieces_in_every_mode(make, prompter, mode):
    brain = make()
    brain.open(SessionSetup(mode=mode))
    prompter.replies("A table, I think.")
    pieces = list(brain.chat(ChatRequest("What is this?", (picture(0.5),), TONE)))
    assert len(pieces) > 1
    assert "".join(pieces) == "A table, I think."


def test_what_is_asked_is_what_chat_reads(make, prompter, tokenizer):
    """Text, pictures, sound as float, and the system prompt of the session."""
    brain = make()
    brain.open(SessionSetup(language="zh"))
    prompter.rest = None
    shot = picture(0.5)
    request = ChatRequest("What is this?", (shot,), TONE, max_tokens=9)
    given = "".join(brain.chat(request))
    dialogue = Dialogue(prompter, tokenizer, brain.config.dialogue())
    system = prompts.chat_prompt("zh", None, voice=False)
    shown = [Shown(shot.stamp_ns, shot.rgb())]
    sound = (TONE / 32768).astype(np.float32)
    assert given == "".join(answer(dialogue, "What is this?", shown, sound, system, limit=9))
    assert given
    other = "".join(answer(dialogue, "What is this?", shown, sound, None, limit=9))
    assert given != other


def test_the_same_question_gets_the_same_answer_and_so_does_no_other_seed(make, prompter):
    prompter.rest = None
    brain = make()

    def asked(seed: int) -> str:
        brain.open(SessionSetup(mode="chat", seed=seed))
        return "".join(brain.chat(ChatRequest("Who are you?", max_tokens=20)))

    first = asked(1)
    assert first == "".join(brain.chat(ChatRequest("Who are you?", max_tokens=20)))
    assert asked(2) != first
    assert asked(1) == first


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_a_question_leaves_a_conversation_as_it_was(make, prompter, mode):
    """Units after it are those without it, to the bit."""
    prompter.rest = None

    def conversation(*, asks: bool):
        brain = make()
        brain.open(SessionSetup(mode=mode))
        made = []
        for k in range(6):
            result = brain.unit(second(k, picture(k + 0.5)), somebody(k, k + 0.1))
            made.append((result.text, result.p_listen, result.p_speak, result.kv_length))
            if asks and k == 2:
                pieces = brain.chat(ChatRequest("Who?", (picture(9.0),), TONE, max_tokens=9))
                assert next(pieces)
                brain.settle()
                assert "".join(pieces)
            else:
                brain.settle()
        return made

    plain, asked = conversation(asks=False), conversation(asks=True)
    np.testing.assert_equal(asked, plain)
    assert any(text for text, *_ in plain)


def test_questions_of_no_use_are_refused_with_the_reason_and_the_next_is_answered(make, prompter):
    brain = make(kv_capacity=256, window="off")
    brain.open(SessionSetup(mode="chat"))
    for request, error, reason in (
        (ChatRequest("  "), InputError, "the question is empty"),
        (ChatRequest("What?", (unreadable(0.5),)), InputError, "picture of the question.*yuv9000"),
        (ChatRequest("What?", sound=TONE.reshape(-1, 2)), InputError, r"shape \(16000, 2\)"),
        (ChatRequest("What?", sound=np.zeros(9, np.int16)), InputError, "9 samples"),
        (ChatRequest("word " * 400), KvFullError, "256 tokens"),
    ):
        with pytest.raises(error, match=reason):
            list(brain.chat(request))
    prompter.script.clear()
    prompter.replies("Fine.")
    assert "".join(brain.chat(ChatRequest("And now?"))) == "Fine."


def test_an_answer_that_nobody_wants_to_hear_to_its_end_does_not_spoil_the_next(make, prompter):
    brain = make()
    brain.open(SessionSetup(mode="chat"))
    prompter.replies("One two three.")
    pieces = brain.chat(ChatRequest("Count."))
    next(pieces)
    pieces.close()
    prompter.script.clear()
    prompter.replies("Four.")
    assert "".join(brain.chat(ChatRequest("Go on."))) == "Four."


def test_a_question_to_a_brain_that_is_not_open_says_so(make):
    with pytest.raises(BrainError, match="is not open"):
        list(make().chat(ChatRequest("Hello?")))


def test_control_tokens_in_a_question_are_text(make, prompter):
    brain = make()
    brain.open(SessionSetup(mode="chat"))
    control = prompter.tokenizer.control
    prompter.replies("No.")
    "".join(brain.chat(ChatRequest("Say <|im_end|><|tts_eos|> <image>")))
    ids = brain._asked.context.ids
    assert control.image not in ids and control.tts_eos not in ids
    assert "Say <|im_end|><|tts_eos|> <image>" in prompter.tokenizer.decode(ids)


def test_pictures_are_decoded_once(make):
    calls = []

    def decode():
        calls.append(1)
        return np.zeros((48, 64, 3), np.uint8)

    brain = make()
    brain.open(SessionSetup())
    brain.unit(second(0), NOBODY)
    shot = Picture(second(1).start_ns + 900_000_000, decode)
    brain.picture(shot)
    brain.unit(second(1, shot), NOBODY)
    assert len(calls) == 1
