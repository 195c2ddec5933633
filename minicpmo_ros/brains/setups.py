"""What a brain can be opened with: modes, prompts, languages and voices that it has."""

from __future__ import annotations

from dataclasses import replace

from minicpmo_ros.brains.api import Brain, SessionSetup
from minicpmo_ros.errors import ConfigError


def in_mode(brain: Brain, setup: SessionSetup, mode: str) -> SessionSetup:
    """Raises ConfigError when the brain cannot do it."""
    modes = brain.capabilities.modes
    if mode not in modes:
        raise ConfigError(f"mode '{mode}': the brain '{brain.name}' can do {', '.join(modes)}")
    return replace(setup, mode=mode)


def with_prompt(brain: Brain, setup: SessionSetup, prompt: str, language: str) -> SessionSetup:
    """language: empty: as it is. Raises ConfigError when the brain takes no prompt, or not the
    language."""
    can = brain.capabilities
    language = language or setup.language
    if prompt and not can.takes_prompt:
        raise ConfigError(f"the brain '{brain.name}' takes no prompt")
    if language not in can.languages:
        raise ConfigError(f"language '{language}' is not one of {', '.join(can.languages)}")
    return replace(setup, prompt=prompt, language=language)


def with_voice(brain: Brain, setup: SessionSetup, voice: str) -> SessionSetup:
    """voice: empty: the brain's own. Raises ConfigError for one that there is not."""
    names = brain.voices()
    if voice and voice not in names:
        there = f"has {', '.join(names)}" if names else "has none to choose from"
        raise ConfigError(f"voice '{voice}': the brain '{brain.name}' {there}")
    return replace(setup, voice=voice)
