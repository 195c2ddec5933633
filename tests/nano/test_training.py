"""Training goes on from any moment, and what is taught is what a conversation lives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the extra model")

from safetensors.torch import load_file, save_file  # noqa: E402

from minicpmo_ros.duplex.config import SamplerConfig  # noqa: E402
from minicpmo_ros.duplex.conversation import Conversation  # noqa: E402
from minicpmo_ros.duplex.pictures import Shown  # noqa: E402
from minicpmo_ros.errors import CheckpointError, InputError  # noqa: E402
from minicpmo_ros.model import prompts  # noqa: E402
from minicpmo_ros.model.tokenizer import Tokenizer  # noqa: E402
from minicpmo_ros.nano import training  # noqa: E402
from minicpmo_ros.nano.acoustics import OPEN_AIR  # noqa: E402
from minicpmo_ros.nano.cli import nano_app  # noqa: E402
from minicpmo_ros.nano.examples import Encoder, track  # noqa: E402
from minicpmo_ros.nano.gallery import KEPT, Gallery  # noqa: E402
from minicpmo_ros.nano.lessons import Lesson, Studio, lesson_at  # noqa: E402
from minicpmo_ros.nano.lines import Split  # noqa: E402
from minicpmo_ros.nano.living import CONFIG  # noqa: E402
from minicpmo_ros.nano.losses import ALERT, losses_of_words  # noqa: E402
from minicpmo_ros.nano.naming import Gaze  # noqa: E402
from minicpmo_ros.nano.packing import pack  # noqa: E402
from minicpmo_ros.nano.sizes import copy_settings, write_settings  # noqa: E402
from minicpmo_ros.nano.teaching import NO_LABEL  # noqa: E402
from minicpmo_ros.nano.training import Trainer, TrainingConfig  # noqa: E402
from minicpmo_ros.runtime.torch_runtime import TorchNetwork  # noqa: E402

CONFIGURED = TrainingConfig(steps=40, units_per_step=8, processes=1, checks=10**9)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_settings(tmp_path / "run")
    return tmp_path / "run"


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in trainer.parameters])


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(run: Path) -> None:
    whole = Trainer(run, CONFIGURED)
    for _ in range(3):
        whole.advance()
    first = Trainer(run, CONFIGURED)
    first.advance()
    first.save()
    again = Trainer(run, CONFIGURED)
    assert again.step == 1
    for _ in range(2):
        again.advance()
    assert torch.equal(weights(whole), weights(again))


def test_it_learns_what_it_is_shown(run: Path) -> None:
    trainer = Trainer(run, CONFIGURED)
    batches = (trainer.batch(Lesson(4, False), np.random.default_rng(seed)) for seed in range(20))
    same = next(
        one
        for one in batches
        if ((one.labels != NO_LABEL) & ~one.decides).any()
        and {Gaze.AWAITED, Gaze.FOUND} <= set(one.written.points[:, 1].tolist())
    )
    trainer.lesson = lambda step: Lesson(4, False)  # type: ignore[method-assign]
    trainer.batch = lambda lesson, rng: same  # type: ignore[method-assign]
    losses = [trainer.advance() for _ in range(12)]
    written = ("asked", "told", "awaited", "found")
    for name in ("decisions", "text", "words", "phonemes", *written):
        assert losses[-1][name] < losses[0][name] - 0.5


def test_it_learns_what_it_sees(run: Path) -> None:
    trainer = Trainer(run, CONFIGURED)
    same = trainer.studio.loose(np.random.default_rng(0), 12)
    trainer.lesson = lambda step: Lesson(0, True)  # type: ignore[method-assign]
    trainer.gallery.show = lambda step, count: same  # type: ignore[method-assign]
    losses = [trainer.advance() for _ in range(12)]
    for name in ("kinds", "colours", "slots"):
        assert losses[-1][name] < losses[0][name] - 0.2


def test_pictures_are_shown_again_and_the_same_ones_after_a_pause(run: Path) -> None:
    trainer = Trainer(run, CONFIGURED)
    drawn: list[int] = []
    loose = trainer.studio.loose
    trainer.studio.loose = lambda rng, count: (  # type: ignore[method-assign]
        drawn.append(count),
        loose(rng, count),
    )[1]
    gallery = Gallery(trainer.studio, 0, 0, 4)
    shown = [gallery.show(step, 10) for step in range(4)]
    assert drawn == [4] * 4
    assert [len(some) for some in shown] == [4, 8, 10, 10]
    pixels = {one.slice.pixels.tobytes() for some in shown[:3] for one in some}
    old = [one.slice.pixels.tobytes() in pixels for one in shown[3]]
    assert old == [False] * 4 + [True] * 6
    again = Gallery(trainer.studio, 0, 0, 4).show(3, 10)
    for one, other in zip(shown[3], again, strict=True):
        assert np.array_equal(one.slice.pixels, other.slice.pixels)
    far = Gallery(trainer.studio, 0, 0, 4)
    drawn.clear()
    far.show(1000, 10)
    assert len(drawn) == KEPT + 1


def test_lessons_grow_longer() -> None:
    rng = np.random.default_rng(0)
    early, late = ([lesson_at(share, rng).units for _ in range(50)] for share in (0.05, 0.99))
    assert set(early) == {4}
    assert lesson_at(0.05, rng, rank=1) == Lesson(0, True)
    assert max(late) == 24
    assert min(late) > 4


def test_nothing_to_pack_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no state\.pt"):
        pack(run, tmp_path / "packed")


def test_a_run_is_packed_with_the_tokenizer_that_it_learned_with(run: Path, tmp_path: Path) -> None:
    Trainer(run, CONFIGURED).save()
    file = run / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    packed = pack(run, tmp_path / "packed")
    assert (packed / "tokenizer.json").read_bytes() == file.read_bytes()


def test_a_run_goes_on_with_the_tokenizer_that_it_began_with(run: Path) -> None:
    Trainer(run, CONFIGURED).save()
    file = run / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    before = file.read_bytes()
    few = ["--steps", "1", "--processes", "1", "--units", "4", "--flite", "0"]
    done = CliRunner().invoke(nano_app, ["train", str(run), *few])
    assert done.exit_code == 0, done.output
    assert Trainer(run, CONFIGURED).step == 1
    assert file.read_bytes() == before


def test_a_run_begins_with_the_weights_of_a_checkpoint(run: Path, tmp_path: Path) -> None:
    Trainer(run, CONFIGURED).save()
    packed = pack(run, tmp_path / "packed")
    taught = replace(CONFIGURED, seed=1, start=str(packed), skipped=0.7)
    trainer = Trainer(run_of(packed, tmp_path / "next"), taught)
    assert trainer.share == 0.7
    kept = {name: one.clone() for name, one in trainer.nano.state_dict().items()}
    other = Trainer(run, replace(CONFIGURED, seed=1))
    for name, one in other.nano.state_dict().items():
        assert torch.allclose(kept[name], one, atol=1e-3)
    # Heads that the checkpoint does not have learn alone first.
    heads = trainer.hints.words[1].weight.detach().clone()
    told = trainer.advance()
    assert "words" in told
    assert "decisions" not in told
    assert not torch.equal(heads, trainer.hints.words[1].weight)
    assert all(torch.equal(kept[name], one) for name, one in trainer.nano.state_dict().items())
    trainer.step = training._SETTLE
    assert "decisions" in trainer.advance()
    changed = trainer.nano.state_dict()
    assert any(not torch.equal(one, changed[name]) for name, one in kept.items())
    trainer.save()
    card = (pack(trainer.folder, tmp_path / "again") / "README.md").read_text()
    assert "trained from\nthe weights of another run" in card


def run_of(packed: Path, folder: Path) -> Path:
    copy_settings(packed, folder)
    return folder


def test_what_is_no_checkpoint_is_not_begun_with(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        copy_settings(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_kind_of_network_is_not_begun_with(run: Path, tmp_path: Path) -> None:
    Trainer(run, CONFIGURED).save()
    packed = pack(run, tmp_path / "packed")
    file = packed / "model.safetensors"
    # What is read lies in the file, which is written below.
    weights = {name: one.clone() for name, one in load_file(file).items()}
    save_file(weights | {"tts.head": torch.zeros(3)}, file)
    taught = replace(CONFIGURED, start=str(packed))
    with pytest.raises(CheckpointError, match=r"1 weights that nano does not have.*tts\.head"):
        Trainer(run_of(packed, tmp_path / "more"), taught)
    del weights["llm.lm_head.weight"]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"lacks 1 weights, such as llm\.lm_head\.weight"):
        Trainer(run_of(packed, tmp_path / "less"), taught)


def test_a_missed_report_weighs_more_than_another_decision(run: Path) -> None:
    """Who waits has hundreds of seconds without anything to report for each one with it."""
    trainer = Trainer(run, CONFIGURED)
    speak = trainer.tokenizer.control.speak
    batches = (trainer.batch(Lesson(12, True), np.random.default_rng(seed)) for seed in range(30))
    batch = next(one for one in batches if Gaze.AWAITED in one.points[:, 1])
    row, at = batch.points[batch.points[:, 1] == Gaze.AWAITED][0, [0, 2]].tolist()
    batch.labels[batch.decides.bool()] = trainer.tokenizer.control.listen
    batch.labels[row, at] = speak
    with torch.inference_mode():
        states = trainer.nano.states(batch)
        with_it = losses_of_words(trainer.nano, batch, states, speak)["decisions"]
        without = losses_of_words(trainer.nano, batch, states, -1)["decisions"]
        logits = trainer.nano.logits(states.read.hidden[row, at][None])
        missed = torch.nn.functional.cross_entropy(logits, torch.tensor([speak]))
    assert float(with_it - without) == pytest.approx(
        (ALERT - 1) * float(missed) / int(batch.decides.sum()), rel=1e-3
    )


def test_words_that_tell_of_things_have_a_loss_of_their_own(run: Path) -> None:
    """Spoken and written ones alike, however few there are among all words."""
    trainer = Trainer(run, replace(CONFIGURED, units_per_step=24))
    batches = (trainer.batch(Lesson(12, True), np.random.default_rng(seed)) for seed in range(30))
    batch = next(one for one in batches if Gaze.CARRIED in one.points[:, 1])
    assert batch.written is not None
    with torch.inference_mode():
        states = trainer.nano.states(batch)
        assert states.written is not None
        speak = trainer.tokenizer.control.speak
        found = float(losses_of_words(trainer.nano, batch, states, speak)["looked_up"])
        wanted = 0.0
        for read, labels, points in (
            (states.read, batch.labels, batch.points),
            (states.written, batch.written.labels, batch.written.points),
        ):
            some = (points[:, 1] == Gaze.CARRIED) | (points[:, 1] == Gaze.DESCRIBED)
            places = sorted({(row, at) for row, _, at, _ in points[some].tolist()})
            row, at = torch.tensor(places).unbind(1)
            logits = trainer.nano.logits(read.hidden[row, at])
            wanted += float(torch.nn.functional.cross_entropy(logits, labels[row, at]))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_what_was_taught_is_what_is_lived(run: Path, tmp_path: Path) -> None:
    """Where a conversation says what was taught, its cache holds what teaching computed."""
    trainer = Trainer(run, CONFIGURED)
    trainer.save()
    directory = pack(run, tmp_path / "packed", torch.float32)
    tokenizer = Tokenizer(directory, trainer.sizes.llm.vocab)
    studio, encoder = Studio(trainer.sizes, tokenizer), Encoder(trainer.sizes, tokenizer)
    rng = np.random.default_rng(11)
    episode = studio.episode(rng, Lesson(8, True), Split(), fresh=True)
    assert {one.action for one in episode.units} >= {"listen", "speak"}
    sound = OPEN_AIR.hear(track(episode), rng)
    size = (126, 98)
    pictures = [encoder.pixels(episode.set, unit, rng, size) for unit in range(8)]
    rng = np.random.default_rng(11)
    studio.episode(rng, Lesson(8, True), Split(), fresh=True)
    example = encoder.example(episode, OPEN_AIR, rng, size)
    taught = iter([int(one) for one in example.labels if one != NO_LABEL])
    network = TorchNetwork.load(directory, device="cpu", precision="fp32", threads=1)
    everything = replace(CONFIG, window=replace(CONFIG.window, max_units=24))
    conversation = Conversation(network, tokenizer, everything, sampler=lambda logits: next(taught))
    conversation.open(*prompts.duplex_prompt("en", "omni").ids(tokenizer))
    for unit, second in enumerate(sound.reshape(8, -1)):
        outcome = conversation.hear(second, [Shown(unit, pictures[unit])])
        conversation.settle()
        assert outcome.utterance.text == episode.units[unit].text
        assert outcome.end_of_turn == episode.units[unit].ends
    assert next(taught, None) is None
    assert conversation.context.length == len(example.ids)
    batch = trainer._collated([example], [], np.random.default_rng(0))
    nano = trainer.nano.eval()
    with torch.inference_mode():
        cache = nano.llm.cache(len(example.ids))
        embeds = nano.llm.embed(batch.ids)[0].clone()
        heard, _ = nano.hear(batch.mel, torch.zeros_like(batch.offsets))
        embeds[batch.kinds[0] == 1] = heard[0]
        embeds[batch.kinds[0] == 2] = nano.look(batch.pictures.shown)[0].flatten(0, 1)
        nano.llm.extend(embeds, cache)
    rows = len(example.ids)
    np.testing.assert_allclose(
        conversation.context.keys(rows), cache.k[:, :, :rows].numpy(), atol=2e-3
    )


def test_what_is_packed_is_decoded_greedily_whatever_the_settings(
    run: Path, tmp_path: Path
) -> None:
    trainer = Trainer(run, CONFIGURED)
    trainer.save()
    directory = pack(run, tmp_path / "packed", torch.float32)
    tokenizer = Tokenizer(directory, trainer.sizes.llm.vocab)
    network = TorchNetwork.load(directory, device="cpu", precision="fp32", threads=1)
    said = []
    for seed in (1, 2):
        hot = replace(CONFIG, sampler=SamplerConfig(temperature=5.0, top_p=1.0))
        conversation = Conversation(network, tokenizer, hot, seed=seed)
        conversation.open(*prompts.duplex_prompt("en", "omni").ids(tokenizer))
        silence = np.zeros(16_000, np.float32)
        said.append([conversation.hear(silence).sampled for _ in range(3)])
    assert said[0] == said[1]


def test_the_card_tells_what_was_trained_and_measured(run: Path, tmp_path: Path) -> None:
    Trainer(run, CONFIGURED).save()
    figures = tmp_path / "figures.json"
    figures.write_text('{"figures": {"nano.R_R": 0.875}}')
    card = (pack(run, tmp_path / "packed", figures=figures) / "README.md").read_text()
    assert "| `nano.R_R` | 0.875 |" in card
    assert "6.5 million parameters, trained from\nrandom weights" in card
    with pytest.raises(InputError, match="no file of `minicpmo nano eval --json`"):
        pack(run, tmp_path / "packed", figures=tmp_path / "missing.json")


def test_users_differ_in_what_they_come_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some say nothing to the robot, some wait to be told of something, some look around."""
    studio = Trainer(run, CONFIGURED).studio
    made: list[frozenset[str]] = []

    def episode(rng, lesson, split, **wishes: bool) -> None:
        made.append(frozenset(name for name, wish in wishes.items() if wish))

    monkeypatch.setattr(studio, "episode", episode)
    monkeypatch.setattr(studio, "staged", lambda episode, rng, split, size: None)
    rng = np.random.default_rng(0)
    for _ in range(400):
        studio.example(rng, Lesson(8, True), Split(), (128, 96))
    assert not any("waits" in one and len(one) > 1 for one in made)
    assert 15 < sum("quiet" in one for one in made) < 60
    assert 90 < sum("waits" in one for one in made) < 150
    assert 120 < sum("looks" in one for one in made) < 210
    made.clear()
    for _ in range(50):
        studio.example(rng, Lesson(8, False), Split(), (128, 96))
    assert not any({"looks", "waits"} & one for one in made)
