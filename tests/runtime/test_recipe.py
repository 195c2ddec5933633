"""Recipes: what comes with the package, and what is refused in one of one's own."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.recipe import LlmRecipe, Recipe
from minicpmo_ros.runtime.engines.recipe_rules import PRECISIONS, RUNTIMES

ROOT = Path(__file__).parents[2]
CPU = {"precision": "int8"}
RTX = {"runtime": "tensorrt_rtx", "precision": "fp16", "vision": {"patches": [1056]}}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    return file


def keys(kind: type = Recipe, prefix: str = "") -> list[str]:
    """All keys, sections gone through."""
    found = []
    for one in fields(kind):
        if is_dataclass(one.default_factory):
            found += keys(one.default_factory, f"{prefix}{one.name}.")
        else:
            found.append(prefix + one.name)
    return found


@pytest.mark.parametrize("name", [file.stem for file in sorted(ROOT.glob("engines/*.yaml"))])
def test_a_recipe_of_the_package_is_valid_and_says_all_that_a_build_needs(name):
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.description
    for part in loaded.parts.values():
        assert all(getattr(part, one.name) != "" for one in fields(part))


def test_there_is_a_recipe_for_each_kind_of_machine():
    assert recipe.names() == ["cpu", "jetson_orin", "jetson_thor", "nano", "rtx"]
    assert recipe.load("cpu").runtimes == recipe.load("nano").runtimes == {"onnxruntime"}
    assert recipe.load("rtx").runtimes == {"tensorrt_rtx"}
    assert recipe.load("jetson_orin").runtimes == {"tensorrt"}


def test_a_part_that_does_not_say_has_what_the_recipe_says():
    found = recipe.of(
        {"precision": "int8", "llm": {"precision": "int4"}, "speech": {"head": "fp32"}}
    )
    assert {part.runtime for part in found.parts.values()} == {"onnxruntime"}
    assert found.vision.precision == found.audio.precision == found.speech.precision == "int8"
    assert (found.llm.precision, found.llm.head) == ("int4", "int4")
    assert (found.speech.head, found.speech.embeddings) == ("fp32", "fp16")


def test_what_the_vocoder_says_stays_where_the_rest_is_filled_in():
    found = recipe.of({"precision": "int8", "vocoder": {"steps": 3}}).vocoder
    assert (found.runtime, found.precision, found.steps) == ("onnxruntime", "fp32", 3)
    assert recipe.of(CPU).vocoder.steps == 10


def test_parts_may_have_runtimes_of_their_own():
    found = recipe.of(
        {
            "precision": "fp16",
            "runtime": "tensorrt",
            "vision": {"patches": [1056]},
            "llm": {"runtime": "onnxruntime", "precision": "int4"},
        }
    )
    assert found.runtimes == {"tensorrt", "onnxruntime"}
    assert found.vision.patches == (1056,)


def test_a_card_may_be_named_where_something_runs_there_beside_tensorrt():
    for device in ("cuda", "cuda:0"):
        beside = {"device": device, "vocoder": {"runtime": "onnxruntime"}}
        assert recipe.of({**RTX, **beside}).device == device
    assert recipe.of({"precision": "fp16", "device": "cuda:1"}).device == "cuda:1"


def test_torch_runs_the_whole_network_in_one_precision():
    found = recipe.of({"runtime": "torch", "device": "auto"})
    assert {part.precision for part in found.parts.values()} == {"auto"}
    assert recipe.of({"runtime": "torch", "precision": "bf16"}).llm.head == "bf16"


@pytest.mark.parametrize("word", ["off", "'off'"])
def test_off_is_a_word_whatever_yaml_takes_it_for(tmp_path, word):
    found = recipe.load(written(tmp_path, f"precision: int8\nwindow: {{kind: {word}}}\n"))
    assert found.window.kind == "off"
    assert found.name == "own"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"runtme": "torch"}, "key 'runtme' is unknown (did you mean 'runtime'?)"),
        (
            {"llm": {"layer_per_file": 4}},
            "key 'llm.layer_per_file' is unknown (did you mean 'llm.layers_per_file'?)",
        ),
        ({"audio": {"patches": [9]}}, "'audio.patches' is unknown; audio has: runtime, precision"),
        ({"llm": 4}, "'llm' must be keys with values, not 4"),
        ({}, "vision.precision: is missing; onnxruntime takes fp32, fp16, int8"),
        ({"precision": "fp8"}, "precision: 'fp8' must be one of fp32, fp16, int8, int4"),
        ({**CPU, "kv_capacity": "8k"}, "kv_capacity: '8k' must be a whole number from 128 to"),
        ({**CPU, "threads": True}, "threads: True must be a whole number from 0 to 256"),
        ({**CPU, "threads": 1.5}, "threads: 1.5 must be a whole number"),
        ({**CPU, "llm": {"prefill": 8}}, "llm.prefill: 8 must be a whole number from 16 to 8192"),
        ({**CPU, "vocoder": {"steps": 11}}, "vocoder.steps: 11 must be a whole number from 1 to"),
        ({**CPU, "device": "gpu"}, "device: 'gpu' must be auto, cpu, cuda or cuda:N"),
        ({**CPU, "device": "auto"}, "device: 'auto' is for torch alone"),
        ({"precision": "fp16"}, "'fp16' is not for onnxruntime on a CPU"),
        ({"precision": "fp32", "device": "cuda"}, "'fp32' is not for onnxruntime on a card"),
        ({"precision": "int4"}, "vision.precision: 'int4' is not for onnxruntime, which takes"),
        ({**CPU, "vision": {"patches": [9]}}, "vision.patches: [9] has no effect: onnxruntime"),
        ({**CPU, "vision": {"patches": 9}}, "vision.patches: 9 must be a list"),
        ({**CPU, "vision": {"patches": [9, 9]}}, "vision.patches: [9, 9] must rise"),
        ({**CPU, "targets": ["sm86"]}, "targets: ['sm86'] has no effect: only tensorrt_rtx"),
        ({**CPU, "targets": ["sm90"]}, "targets: 'sm90' must be one of sm75, sm80, sm86"),
        ({**CPU, "scaling": "awq"}, "scaling: 'awq' has no effect"),
        ({**CPU, "scaling": "gptq"}, "scaling: 'gptq' must be one of awq, none"),
        ({**CPU, "window": {"low": 5000}}, "window.low: 5000 is above window.high, 4000"),
        ({**CPU, "kv_capacity": 2048}, "window.high: 4000 is above kv_capacity, 2048"),
        ({**CPU, "llm": {"runtime": "torch"}}, "llm.runtime: 'torch' runs the whole network"),
        ({"runtime": "torch", "precision": "int8"}, "precision: 'int8' is not torch's; must be"),
        (
            {"runtime": "torch", "llm": {"precision": "int4"}},
            "llm.precision: 'int4' has no effect: torch has one precision",
        ),
        ({"runtime": "tensorrt", "precision": "fp16"}, "vision.patches: is missing; tensorrt"),
        (
            {"runtime": "tensorrt", "precision": "fp16", "vision": {"patches": [9]}, "threads": 2},
            "threads: 2 has no effect with TensorRT",
        ),
        ({**RTX, "device": "cuda:1"}, "device: 'cuda:1' has no effect: TensorRT takes the first"),
        ({**RTX, "device": "cuda"}, "CUDA_VISIBLE_DEVICES says which one that is; leave it out"),
        (
            {**RTX, "device": "cuda:1", "vocoder": {"runtime": "onnxruntime"}},
            "device: 'cuda:1' is not where all of it would run: TensorRT takes the first card",
        ),
        ({**RTX, "targets": ["sm86", "sm86"]}, "targets: ['sm86', 'sm86'] has one twice"),
        ({"runtime": "torch", "llm": {"prefill": 96}}, "llm.prefill: 96 has no effect with torch"),
        (
            {"runtime": "torch", "llm": {"layers_per_file": 8}},
            "llm.layers_per_file: 8 has no effect with torch",
        ),
        (
            {"runtime": "tensorrt", "precision": "int8"},
            "vision.precision: 'int8' is not for tensorrt, which takes fp16 here (weights of eight",
        ),
        (
            {
                "runtime": "tensorrt_rtx",
                "precision": "fp16",
                "vision": {"patches": [1056]},
                "llm": {"precision": "int4"},
                "targets": ["sm75"],
            },
            "targets: 'sm75' has no products of four bits, which llm.precision asks for",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told_with_key_value_and_what_would_be_right(content, said):
    with pytest.raises(ConfigError) as caught:
        recipe.of(content)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kv_capacity: 3\nprecision: int8\n", "own.yaml: kv_capacity: 3 must be"),
        ("a: [", "own.yaml cannot be read"),
        ("- cpu\n", "own.yaml: a recipe must be keys with values"),
    ],
)
def test_a_message_names_the_file(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        recipe.load(written(tmp_path, text))
    assert said in str(caught.value)


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"'rtxx' is unknown \(did you mean 'rtx'\?\).*cpu, jets"):
        recipe.load("rtxx")
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read: .*No such file"):
        recipe.load("nowhere.yaml")


@given(st.sampled_from(keys()), st.integers(0), st.characters())
def test_any_misspelt_key_is_refused_by_name(key, place, letter):
    section, _, name = key.rpartition(".")
    place %= len(name) + 1
    wrong = name[:place] + letter + name[place:]
    kind = Recipe if not section else Recipe.__dataclass_fields__[section].default_factory
    assume(wrong not in kind.__dataclass_fields__)
    content = {section: {wrong: 1}} if section else {wrong: 1}
    with pytest.raises(ConfigError) as caught:
        recipe.of({**CPU, **content})
    assert f"'{section}.{wrong}'" in str(caught.value) or f"'{wrong}'" in str(caught.value)


@given(
    st.sampled_from(RUNTIMES),
    st.sampled_from(["vision", "audio", "llm", "speech"]),
    st.sampled_from(["precision", "head", "embeddings"]),
    st.sampled_from(PRECISIONS),
    st.sampled_from(["cpu", "cuda:1"]),
)
def test_a_precision_is_taken_as_it_is_or_refused_by_its_key(runtime, part, key, value, device):
    good = {"torch": "fp32", "onnxruntime": "int8"}.get(runtime, "fp16")
    content = {"runtime": runtime, "precision": good, "device": device}
    if runtime.startswith("tensorrt"):
        content |= {"vision": {"patches": [1056]}, "device": "cpu"}  # no other has an effect
    assume(key in Recipe.__dataclass_fields__[part].default_factory.__dataclass_fields__)
    content[part] = {**content.get(part, {}), key: value}
    said = ""
    try:
        found = recipe.of(content)
    except ConfigError as error:
        said = str(error)
    # Its head has what a part has, and may be what is refused.
    own = (f"{part}.{key}: '{value}'", f"{part}.head: '{value}'")
    assert said.startswith(own) if said else getattr(found.parts[part], key) == value


def test_eight_bits_are_onnxruntimes_and_bf16_is_torchs():
    """The facts of the table that are easiest to lose."""
    accepted = set()
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            content = {"runtime": runtime, "precision": precision}
            if runtime.startswith("tensorrt"):
                content |= {"vision": {"patches": [1056], "precision": "fp16"}}
                content |= {"audio": {"precision": "fp16"}}
            elif runtime == "onnxruntime":
                content |= {"vision": {"precision": "int8"}}
            try:
                recipe.of(content)
            except ConfigError:
                continue
            accepted.add((runtime, precision))
    assert accepted == {
        *(("onnxruntime", precision) for precision in ("fp32", "int8", "int4")),
        *((runtime, p) for runtime in ("tensorrt_rtx", "tensorrt") for p in ("fp16", "int4")),
        *(("torch", precision) for precision in ("auto", "fp32", "bf16", "fp16", "int4")),
    }


def test_values_are_checked_without_a_file_as_well():
    with pytest.raises(ConfigError, match=r"llm\.layers_per_file: 0 must be a whole number"):
        LlmRecipe(layers_per_file=0)


def test_the_table_of_the_documents_has_every_key():
    rows = [line.split("`")[1] for line in recipe.markdown().splitlines()[2:]]
    assert rows == keys()
    assert recipe.markdown() in (ROOT / "docs" / "engines.md").read_text()
