"""Parameters of a replay: from a file as nodes take it, and from single rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicpmo_ros.brains.build import OmniSettings
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.nodes import parameters
from minicpmo_ros.replay.parameters import omni_parameters, omni_settings


def given(tmp_path: Path, text: str, *rules: str) -> dict:
    path = tmp_path / "omni.yaml"
    path.write_text(text, encoding="utf-8")
    return omni_parameters(path, list(rules))


# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [
    "omni", "/omni", "/robot/omni", "/**/omni", "/**", "/*", "/*/omni", "/robot/**", "robot/omni",
])  # fmt: skip
def test_every_way_in_which_ros_names_the_node_is_read(tmp_path, node):
    text = f"{node}:\n  ros__parameters:\n    seed: 7\n"
    assert given(tmp_path, text) == {"seed": 7}


@pytest.mark.parametrize("node", ["mic", "/**/mic", "/omni/mic", "omnivore", "/omni2"])
def test_what_is_for_another_node_is_left_to_it(tmp_path, node):
    text = f"{node}:\n  ros__parameters:\n    whatever: 7\n"
    assert given(tmp_path, text) == {}


def test_a_namespace_may_stand_around_its_nodes(tmp_path):
    text = """\
robot:
  omni: {ros__parameters: {seed: 7}}
  mic: {ros__parameters: {source: silence}}
"""
    assert given(tmp_path, text) == {"seed": 7}


def test_later_entries_overrule_earlier_ones(tmp_path):
    text = """\
/**: {ros__parameters: {seed: 7, mode: streaming}}
/**/omni: {ros__parameters: {seed: 8}}
"""
    assert given(tmp_path, text) == {"seed": 8, "mode": "streaming"}


def test_our_own_file_is_taken_with_its_defaults(tmp_path):
    found = given(tmp_path, parameters.yaml_text())
    table = {p.name: p.default for p in parameters.TABLE["omni"]}
    del table["image_transport"], table["publish_timings"]
    assert found == table
    assert omni_settings(found) == OmniSettings(publish_timings=False)


@pytest.mark.parametrize("text", ["", "# nothing\n", "omni: {ros__parameters: }\n"])
def test_a_file_may_be_empty(tmp_path, text):
    assert given(tmp_path, text) == {}


def test_what_ros_gives_every_node_is_no_news_to_us(tmp_path):
    text = """\
omni:
  ros__parameters:
    use_sim_time: true
    qos_overrides:
      /decision: {publisher: {depth: 5}}
    seed: 7
"""
    assert given(tmp_path, text) == {"seed": 7}


@pytest.mark.parametrize(("text", "reason"), [
    ("omni: {seed: 7}\n", "'omni/seed' stands outside of ros__parameters"),
    ("mic:\n  source: silence\n", "'mic/source' stands outside"),
    ("- seed\n", "stands outside of ros__parameters"),
    ("seed\n", "stands outside of ros__parameters"),
    ("omni: {ros__parameters: [seed]}\n", "ros__parameters of 'omni' must be names with values"),
    ("omni: {ros__parameters: 7}\n", "must be names with values"),
    ("omni: [\n", "cannot be read"),
    ("\t- x", "cannot be read"),
])  # fmt: skip
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, text, reason):
    with pytest.raises(ConfigError, match=reason) as raised:
        given(tmp_path, text)
    assert "omni.yaml" in str(raised.value)


def test_a_file_that_is_not_there_or_is_no_text_is_refused(tmp_path):
    (tmp_path / "omni.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "gone.yaml", tmp_path, tmp_path / "omni.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            omni_parameters(path, [])


# -- rules ----------------------------------------------------------------------------------


def test_rules_overrule_the_file(tmp_path):
    text = "omni: {ros__parameters: {seed: 7, mode: streaming}}\n"
    assert given(tmp_path, text, "seed:=8") == {"seed": 8, "mode": "streaming"}


@pytest.mark.parametrize(("rule", "name", "value"), [
    ("brain:=local", "brain", "local"),
    ("seed:=3", "seed", 3),
    ("temperature:=1", "temperature", 1.0),
    ("temperature:=0.5", "temperature", 0.5),
    ("reference_compat:=true", "reference_compat", True),
    ("reference_compat:=no", "reference_compat", False),
    ('prompt:=""', "prompt", ""),
    ("prompt:=You are: a guide", "prompt", None),
    ("prompt:='a := b'", "prompt", "a := b"),
    ("checkpoint:=/models/o", "checkpoint", "/models/o"),
])  # fmt: skip
def test_a_rule_has_a_value_as_yaml(rule, name, value):
    if value is None:
        with pytest.raises(ConfigError, match=r"is of type dict|not YAML"):
            omni_parameters(None, [rule])
    else:
        found = omni_parameters(None, [rule])
        assert found == {name: value}
        assert type(found[name]) is type(value)


@pytest.mark.parametrize("rule", ["seed", "seed=7", ":=7", "seed:=", ""])
def test_a_rule_of_another_form_is_refused_with_the_right_one(rule):
    with pytest.raises(ConfigError, match=r"must be NAME:=VALUE, e\.g\. brain:=local"):
        omni_parameters(None, [rule])


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(ConfigError, match=r"rule 'seed:=\[': the value is not YAML"):
        omni_parameters(None, ["seed:=["])


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    for make in (
        lambda: omni_parameters(None, ["forced_listen:=3"]),
        lambda: given(tmp_path, "omni: {ros__parameters: {forced_listen: 3}}\n"),
    ):
        with pytest.raises(
            ConfigError, match=r"'forced_listen' \(did you mean 'forced_listens'\?\)"
        ):
            make()


@pytest.mark.parametrize(("rule", "reason"), [
    ("seed:=seven", "'seven' is of type str; a int"),
    ("seed:=0.5", "0.5 is of type float"),
    ("temperature:=true", "True is of type bool"),
    ("temperature:=99", "out of range; 1e-06 to 10"),
    ("mode:=dream", "'dream' is not one of duplex, streaming, chat"),
    ("checkpoint:=~", "None is of type NoneType"),
])  # fmt: skip
def test_a_value_of_no_use_is_refused_with_what_would_be(rule, reason):
    with pytest.raises(ConfigError, match=reason):
        omni_parameters(None, [rule])


# -- what is not ours -----------------------------------------------------------------------


def test_what_the_recording_decides_is_checked_and_dropped():
    rules = ["image_transport:=none", "publish_timings:=true", "seed:=1"]
    assert omni_parameters(None, rules) == {"seed": 1}
    assert omni_settings(omni_parameters(None, rules)).publish_timings is False


def test_a_session_takes_what_it_has_of_the_nodes_parameters():
    values = omni_parameters(None, ["diagnostics_hz:=2.0", "brain:=local", "kv_capacity:=512"])
    assert values["diagnostics_hz"] == 2.0
    assert omni_settings(values) == OmniSettings(
        brain="local", kv_capacity=512, publish_timings=False
    )


def test_a_number_without_a_point_is_one_as_it_is_for_ros() -> None:
    assert omni_parameters(None, ["temperature:=1e-3"]) == {"temperature": 1e-3}
