"""The pitch of each mel frame, by a small convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from minicpmo_ros.model.hift.config import HiftConfig


class F0Predictor(nn.Module):
    """Layers of convolution over three frames. Parameter names are those of hift.pt."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        width = config.f0_channels
        layers: list[nn.Module] = []
        for inputs in [config.mels] + [width] * (config.f0_layers - 1):
            layers += [nn.Conv1d(inputs, width, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """mel [mels, frames] -> Hz [frames], not negative."""
        x = self.condnet(mel[None])[0]
        return self.classifier(x.transpose(0, 1))[:, 0].abs()
