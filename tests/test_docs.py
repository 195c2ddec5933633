"""The documents say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minicpmo_ros.nodes import parameters
from minicpmo_ros.reference import interfaces_page, topic_rows

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_holds_the_nodes_own_parameter_table():
    assert parameters.markdown() in (ROOT / "README.md").read_text()


def test_the_readme_holds_every_topic_with_its_quality_of_service():
    assert "\n".join(topic_rows()) in (ROOT / "README.md").read_text()


def test_the_default_configuration_is_the_parameter_table():
    assert (ROOT / "config" / "omni.yaml").read_text() == parameters.yaml_text()


def test_the_page_of_interfaces_is_what_the_interface_files_say():
    assert (ROOT / "docs" / "interfaces.md").read_text() == interfaces_page(ROOT)


def test_every_field_of_every_interface_has_a_comment():
    for kind in ("msg", "srv", "action"):
        for path in (ROOT / kind).glob(f"*.{kind}"):
            for line in path.read_text().splitlines():
                is_field = re.match(r"[\w/\[\]]+\s+\w+\s*(#.*)?$", line)
                assert not is_field or is_field.group(1), f"{path.name}: {line}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
