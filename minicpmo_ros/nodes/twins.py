"""Two nodes of one name would answer the same services and speak with two voices."""

from __future__ import annotations

from typing import Any

from minicpmo_ros.errors import ConfigError


class TwinError(ConfigError):
    """A node of this name runs already, or is not yet known to be gone."""


def full_name(node: Any) -> str:
    return f"{node.get_namespace().rstrip('/')}/{node.get_name()}"


def refuse_twin(node: Any) -> None:
    """Raises TwinError when another node of the name is there."""
    if _has_twin(node):
        raise TwinError(
            f"a node named {full_name(node)} runs already: stop it, or start this one in another "
            "namespace"
        )


def twin_problem(node: Any) -> str:
    """What to say of one that came later; empty when there is none."""
    if not _has_twin(node):
        return ""
    return f"another node named {full_name(node)} runs, too: stop one of them"


def _has_twin(node: Any) -> bool:
    own = (node.get_name(), node.get_namespace())
    return bool(node.get_node_names_and_namespaces().count(own) > 1)
