"""The reflex brain: senses, a person's turn, alerts and honest sentences. No model, no clock."""

from minicpmo_ros.brains.reflex.brain import ReflexBrain
from minicpmo_ros.brains.reflex.config import ReflexConfig
from minicpmo_ros.brains.reflex.voice import Synthesiser, Utterance, say

__all__ = ["ReflexBrain", "ReflexConfig", "Synthesiser", "Utterance", "say"]
