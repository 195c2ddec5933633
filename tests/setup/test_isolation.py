"""Test runs do not hear one another over ROS."""

from __future__ import annotations

import os

from tests.conftest import DOMAINS, own_domain


def test_workers_of_a_run_have_domains_of_their_own() -> None:
    domains = {own_domain({"PYTEST_XDIST_WORKER": f"gw{i}"}, 500 + i, 100) for i in range(16)}
    assert len(domains) == 16


def test_a_domain_is_within_the_range_of_linux() -> None:
    assert all(1 <= own_domain({}, process, 1) <= 101 for process in range(5 * DOMAINS))


def test_this_run_is_local() -> None:
    assert os.environ["ROS_DOMAIN_ID"] != "0"
    local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    assert local or os.environ.get("ROS_LOCALHOST_ONLY") == "1"
