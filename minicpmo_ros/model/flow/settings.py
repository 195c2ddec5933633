"""flow.yaml: what the weights do not tell, and whether the rest agrees with them.

The file names Python classes to be constructed (hyperpyyaml). Nothing is constructed here: the text
is parsed into nodes, and a few plain values are looked up among them.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.flow.config import GUIDANCE, FlowConfig

Value = str | int | float | bool
# The published file has two thousand bytes.
MOST_BYTES = 2**18
_GUIDANCE = "flow.decoder.inference_cfg_rate"
# What this code does, and the weights would not show if they were for something else.
_ASSUMED: dict[str, Value] = {
    "flow.output_type": "mel",
    "flow.encoder.input_layer": "linear",
    "flow.encoder.pos_enc_layer_type": "rel_pos_espnet",
    "flow.encoder.selfattention_layer_type": "rel_selfattn",
    "flow.encoder.activation_type": "swish",
    "flow.encoder.normalize_before": True,
}


class FlowSettings:
    """The values of a flow.yaml, by paths such as `flow.encoder.num_blocks`.

    Raises:
        CheckpointError: the file is not there or no YAML.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            if file.stat().st_size > MOST_BYTES:
                raise CheckpointError(f"{file} has {file.stat().st_size} bytes; it is no flow.yaml")
            self._root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointError(f"{file} is not YAML: {error}") from None

    def get(self, path: str) -> Value | None:
        """A plain value, or None where there is none."""
        node = self._root
        for name in path.split("."):
            if not isinstance(node, yaml.MappingNode):
                return None
            found = [value for key, value in node.value if key.value == name]
            if not found:
                return None
            node = found[-1]
        if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith("tag:yaml.org,2002:"):
            return None
        return yaml.safe_load(node.value) if node.style is None else node.value

    @property
    def guidance(self) -> float:
        """Of classifier-free guidance; the published 0.7 where the file does not say."""
        found = self.get(_GUIDANCE)
        if found is None:
            return GUIDANCE
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 100:
            raise CheckpointError(f"{self.file}: {_GUIDANCE} is {found!r}, not a number from 0 up")
        return float(found)

    def check(self, config: FlowConfig) -> None:
        """Hold what the file says against what the weights are for.

        Raises:
            CheckpointError: naming all that differs.
        """
        conformer, estimator = config.conformer, config.estimator
        wanted: dict[str, Value] = _ASSUMED | {
            "flow.input_size": conformer.hidden,
            "flow.output_size": config.mels,
            "flow.spk_embed_dim": config.voice,
            "flow.vocab_size": config.tokens,
            "flow.encoder.output_size": conformer.hidden,
            "flow.encoder.pre_lookahead_len": conformer.look_ahead,
            "flow.encoder.num_blocks": conformer.layers,
            "flow.encoder.num_up_blocks": conformer.up_layers,
            "flow.encoder.up_stride": conformer.up,
            "flow.encoder.up_scale_factor": conformer.up,
            "flow.encoder.attention_heads": conformer.heads,
            "flow.encoder.key_bias": conformer.key_bias,
            "flow.encoder.linear_units": conformer.ffn,
            "flow.decoder.estimator.in_channels": 4 * config.mels,
            "flow.decoder.estimator.out_channels": config.mels,
            "flow.decoder.estimator.depth": estimator.layers,
            "flow.decoder.estimator.num_heads": estimator.heads,
            "flow.decoder.estimator.head_dim": estimator.head_dim,
            "flow.decoder.estimator.hidden_size": estimator.hidden,
        }
        said = {path: self.get(path) for path in wanted}
        wrong = [
            f"{path} is {said[path]!r} instead of {value!r}"
            for path, value in wanted.items()
            if said[path] is not None and said[path] != value
        ]
        if wrong:
            raise CheckpointError(f"{self.file} does not fit the weights: {'; '.join(wrong)}")
