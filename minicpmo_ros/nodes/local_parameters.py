"""The omni node's parameters for the local brain, and what goes with it; see parameters.py."""

from __future__ import annotations

from minicpmo_ros.nodes.parameter import Parameter

P = Parameter

LOCAL = (
    P(
        "checkpoint",
        "nano",
        "Local brain: nano, the small checkpoint inside this package; or the directory of another "
        "one, as published.",
    ),
    P(
        "recipe",
        "",
        "Local brain: what runs each part of the network, by the name of a file in engines/ (cpu, "
        "nano, rtx, jetson_orin, jetson_thor) or the path of one's own; what is not built yet is "
        "built first. Empty: nano for the checkpoint nano, else torch, as the next two say.",
    ),
    P("device", "auto", "Local brain: cpu, cuda, cuda:N, or auto (cuda if there is one)."),
    P(
        "precision",
        "auto",
        "Local brain: precision of weights and caches; auto: the checkpoint's own; int4: four bits "
        "in the language model, bf16 in all else.",
        choices=("auto", "fp32", "bf16", "fp16", "int4"),
    ),
    P(
        "threads",
        0,
        "Local brain: threads of the network on a CPU; 0: one a core. Fewer are faster where other "
        "programs use the cores, too.",
        "",
        0,
        256,
    ),
    P(
        "reference_voice",
        "",
        "Local brain: sound file with the voice to speak in, 1 to 60 s; empty: the one that comes "
        "with the checkpoint.",
    ),
    P(
        "voices",
        "",
        "Local brain: folder of sound files (wav, flac or ogg), each a voice of its name; empty: "
        "none.",
    ),
    P(
        "speaker",
        "",
        "Local brain: the voice of that folder to speak in, by its name; empty: reference_voice. "
        "The service set_voice chooses another.",
    ),
    P(
        "synthesiser_fallback",
        True,
        "Local brain: espeak-ng speaks its text where the checkpoint has no voice of its own.",
    ),
    P(
        "speech_chunks",
        "8 17 25",
        "Local brain: codes of speech (40 ms each) in the first chunks of a turn, the last for all "
        "that follow: fewer sound sooner and cost more; 5 to 50.",
    ),
    P(
        "speech_lead_ms",
        280,
        "Local brain: silence before a turn that goes on beyond its first second, of whose sound "
        "280 ms come only with the next; with less, the turn has a gap there.",
        "ms",
        0,
        5000,
    ),
    P(
        "speech_steps",
        0,
        "Local brain: steps of the vocoder's solver; 5 or 3 are faster and sound worse. 0: as the "
        "recipe says, or 10.",
        "",
        0,
        100,
    ),
    P(
        "forgets_unheard",
        True,
        "Local brain: when it is interrupted, it remembers of its turn only the words that were "
        "heard; false: all of it, as the published code does.",
    ),
    P("prompt_file", "", "Local brain: text file with a system prompt; empty: the model's own."),
    P(
        "scene",
        "omni",
        "Local brain: which of the model's own prompts; audio where there is no camera.",
        choices=("omni", "audio"),
    ),
    P(
        "kv_capacity",
        0,
        "Local brain: context that is kept in memory, 128 or more; 0: as the recipe says, or 8192.",
        "tokens",
        0,
        1_000_000,
    ),
    P(
        "window",
        "auto",
        "Local brain: what is forgotten of a long conversation: nothing (off), the oldest units "
        "(basic), or those but for what the robot said (context); auto: as the recipe says, or "
        "basic.",
        choices=("auto", "off", "basic", "context"),
    ),
    P(
        "window_high_tokens",
        0,
        "Window basic: above so many tokens the oldest units go; 0: as the recipe says, or 4000.",
        "tokens",
        0,
        1_000_000,
    ),
    P(
        "window_low_tokens",
        0,
        "Window basic: they go down to so many; 0: as the recipe says, or 3500.",
        "tokens",
        0,
        1_000_000,
    ),
    P(
        "window_units",
        0,
        "Window context: units that are kept; 0: as the recipe says, or 24.",
        "units",
        0,
        100_000,
    ),
    P(
        "window_previous_tokens",
        -1,
        "Window context: what the robot said before them, at most; -1: as the recipe says, or 500.",
        "tokens",
        -1,
        100_000,
    ),
    P("temperature", 0.7, "Local brain: how freely words are drawn.", "", 1e-6, 10.0),
    P("length_penalty", 1.1, "Local brain: above 1, turns are longer.", "", 0.1, 10.0),
    P(
        "listen_scale",
        1.0,
        "Local brain: factor on the probability of listening.",
        "",
        1e-3,
        1e3,
    ),
    P(
        "forced_listens",
        -1,
        "Local brain: so many first units only listen; -1: as the recipe says, or 3.",
        "units",
        -1,
        1000,
    ),
    P(
        "max_slices",
        0,
        "Local brain: pieces that a large picture is cut into; 0: as the checkpoint says.",
        "",
        0,
        100,
    ),
    P(
        "audio_overlap_s",
        10,
        "Local brain: seconds of sound that the encoder remembers at least once it has heard 29 s; "
        "0: it then forgets all.",
        "s",
        0,
        14,
    ),
    P("turn_end_ms", 600, "Mode streaming: silence that ends the user's turn.", "ms", 100, 10_000),
    P(
        "unasked_after_s",
        3.0,
        "Local brain: speaking after so long a silence of everybody is an alert, too.",
        "s",
        0.0,
        3600.0,
    ),
    P(
        "reference_compat",
        False,
        "Local brain: also make the mistakes of the published code (docs/model.md).",
    ),
    P(
        "interrupting_severity",
        "critical",
        "Lowest severity of new alerts that cut off what the robot is saying.",
        choices=("info", "notice", "warning", "critical", "never"),
    ),
    P(
        "fallback",
        "reflex",
        "What decides when the brain has failed too often: reflex, or none.",
        choices=("reflex", "none"),
    ),
    P("fallback_failures", 3, "Units in a row that must fail for it.", "units", 1, 1000),
    P("fallback_retry_units", 10, "Units until the brain is tried again.", "units", 1, 100_000),
)
