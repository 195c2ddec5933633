"""What is trained is what runs: whole episodes at once equal the stages a second at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra model")

from minicpmo_ros.model.audio import Audio  # noqa: E402
from minicpmo_ros.model.audio_stream import AudioStream  # noqa: E402
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.model.tokenizer import Tokenizer  # noqa: E402
from minicpmo_ros.model.vision import VisionStage  # noqa: E402
from minicpmo_ros.nano.acoustics import OPEN_AIR  # noqa: E402
from minicpmo_ros.nano.examples import PICTURE, SOUND, Encoder, Example, track  # noqa: E402
from minicpmo_ros.nano.initial import initialise  # noqa: E402
from minicpmo_ros.nano.lessons import Lesson, Studio  # noqa: E402
from minicpmo_ros.nano.lines import Split  # noqa: E402
from minicpmo_ros.nano.naming import Gaze  # noqa: E402
from minicpmo_ros.nano.sizes import write_settings  # noqa: E402
from minicpmo_ros.nano.teaching import Batch, Nano, collate  # noqa: E402

UNITS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelConfig, Tokenizer]:
    folder: Path = tmp_path_factory.mktemp("nano")
    found = write_settings(folder)
    return found, Tokenizer(folder, found.llm.vocab)


@pytest.fixture(scope="module")
def nano(config) -> Nano:
    torch.manual_seed(1)
    made = Nano(config[0])
    initialise(made)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def taught(config) -> tuple[list[Example], Batch, list[np.ndarray]]:
    studio = Studio(*config)
    encoder = Encoder(*config)
    rng = np.random.default_rng(3)
    episodes = [studio.episode(rng, Lesson(UNITS, True), Split()) for _ in range(2)]
    sounds = [OPEN_AIR.hear(track(one), rng) for one in episodes]
    examples = [encoder.example(one, OPEN_AIR, rng) for one in episodes]
    batch = collate(examples, [], [], config[0].vision.side, 0, np.random.default_rng(0))
    return examples, batch, sounds


def test_sound_is_heard_as_in_a_stream(config, nano, taught) -> None:
    _, batch, sounds = taught
    heard, _ = nano.hear(batch.mel, torch.zeros_like(batch.offsets))
    audio = Audio(config[0].audio)
    audio.apm, audio.audio_projection_layer = nano.apm, nano.audio_projection_layer
    for row, sound in enumerate(sounds):
        stream = AudioStream(audio)
        rows = [torch.as_tensor(stream.step(second)) for second in sound.reshape(UNITS, -1)]
        torch.testing.assert_close(heard[row], torch.cat(rows), atol=2e-4, rtol=1e-3)


def test_pictures_are_seen_as_one_by_one(config, nano, taught) -> None:
    examples, batch, _ = taught
    seen, _ = nano.look(batch.pictures.shown)
    stage = VisionStage(config[0].vision, config[0].resampler)
    stage.vpm, stage.resampler = nano.vpm, nano.resampler
    alone = torch.cat([stage.look([one.slice]) for each in examples for one in each.seen])
    torch.testing.assert_close(seen, alone, atol=2e-4, rtol=1e-3)


def test_all_is_read_as_token_by_token(nano, taught) -> None:
    examples, batch, _ = taught
    states = nano.states(batch)
    sound, _ = nano.hear(batch.mel, batch.offsets)
    seen, _ = nano.look(batch.pictures.shown)
    for row, example in enumerate(examples):
        embeds = nano.llm.embed(batch.ids[row]).clone()
        embeds[batch.kinds[row] == SOUND] = sound[row]
        embeds[batch.kinds[row] == PICTURE] = seen[row * UNITS : (row + 1) * UNITS].flatten(0, 1)
        cache = nano.llm.cache(len(embeds))
        length = len(example.ids)
        parts = [nano.llm.extend(part, cache) for part in embeds[:length].split(7)]
        torch.testing.assert_close(
            states.read.hidden[row, :length], torch.cat(parts), atol=2e-4, rtol=1e-3
        )


def test_a_picture_is_shown_to_all_that_is_written_about_it(config, nano, taught) -> None:
    examples, _, _ = taught
    studio, rng = Studio(*config), np.random.default_rng(5)
    loose = studio.loose(rng, 4)
    seen, stories = studio.story(rng, 3)
    loose += seen
    written = [(studio.about([loose[2], loose[1]], rng), [2, 1])]
    written += [(one, range(4, 7)) for one in stories]
    side = config[0].vision.side
    batch = collate(examples, loose, written, side, 0, np.random.default_rng(0))
    found = nano.states(batch).written.hidden
    queries, _ = nano.look(batch.pictures.shown)
    for row, (one, shown) in enumerate(written):
        embeds = nano.llm.embed(torch.from_numpy(one.ids))
        of = [batch.in_episodes + number for number in shown]
        embeds[torch.from_numpy(one.kinds == PICTURE)] = queries[of].flatten(0, 1)
        alone = nano.read(embeds[None], torch.from_numpy(one.groups)[None]).hidden
        torch.testing.assert_close(found[row, : len(one.ids)], alone[0], atol=2e-4, rtol=1e-3)


def test_what_is_written_is_known_word_by_word_at_first_and_as_a_whole_at_last(
    config, nano
) -> None:
    groups = torch.tensor([[0, 0, 1, 2, 2]])
    embeds = torch.randn(1, 5, config[0].llm.hidden)
    other = embeds.clone()
    other[0, 2] = torch.randn(config[0].llm.hidden)
    first = nano.read(embeds, groups)
    then = nano.read(other, groups)
    same = [torch.equal(first.early[0, at], then.early[0, at]) for at in range(5)]
    assert same == [True, True, False, True, True]
    same = [torch.allclose(first.hidden[0, at], then.hidden[0, at]) for at in range(5)]
    assert same == [True, True, False, False, False]
    whole = nano.read(embeds).early
    torch.testing.assert_close(first.early[0, :2], whole[0, :2], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first.early[0, 3], whole[0, 3])


@torch.inference_mode()
def test_how_little_is_looked_at_a_place_is_of_shares_of_attention(config, nano) -> None:
    embeds = torch.randn(2, 7, config[0].llm.hidden)
    for what in Gaze:
        points = torch.tensor([[1, what, 5, target] for target in range(6)])
        missed = nano.read(embeds, points=points).missed
        torch.testing.assert_close(missed.neg().exp().sum(), torch.tensor(1.0))
        assert missed.std() > 0


@pytest.mark.parametrize(
    ("behind", "changes"),
    [
        (0, set(Gaze)),
        (1, {Gaze.FOUND, Gaze.NEW, Gaze.CHANGED, Gaze.CARRIED, Gaze.DESCRIBED}),
        (2, {Gaze.CHANGED, Gaze.DESCRIBED}),
        (3, set()),
    ],
)
@torch.inference_mode()
def test_what_is_looked_for_with_what_was_found_is_so_in_a_later_layer(
    config, nano, behind, changes
) -> None:
    embeds = torch.randn(1, 7, config[0].llm.hidden)
    points = torch.tensor([[0, what, 6, 2] for what in Gaze])
    before = nano.read(embeds, points=points).missed
    gain = nano.llm.model.layers[config[0].llm.layers // 3 + behind].self_attn.q_norm.weight
    kept = gain.clone()
    gain.mul_(3)
    after = nano.read(embeds, points=points).missed
    gain.copy_(kept)
    assert set(torch.nonzero(before != after).flatten().tolist()) == changes
