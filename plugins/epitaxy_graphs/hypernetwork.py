"""A perceptron whose weights are computed, for each row anew, by other perceptrons."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

N_LAYERS = 4  # of the perceptron, the last one linear
N_HIDDEN = 4  # layers with tanh in front of the linear one that gives its weights
START = 0.1  # factor on the initial weights of that linear one


class Hypernetwork(nn.Module):
    """y = W_4 n(W_3 n(W_2 n(W_1 x + b_1) + b_2) + b_3) + b_4 with n = tanh(layer norm).

    Each (W_k, b_k) is the output of its own perceptron of the conditions.

    Source: Ha, Dai, Le, arXiv 1609.09106, in the form of Sitzmann, Zollhöfer, Wetzstein, arXiv
    1906.01618, as CGAT uses it (Schmidt et al., Sci. Adv. 7, eabi7948 (2021)).

    Args:
        width: of x, y, the conditions and all hidden layers. Weights take memory of
            4 (width^2 + width) numbers per row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(weights_of_layer(width) for _ in range(N_LAYERS))

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Return (n, width).

        Args:
            x: (n, width).
            conditions: (n, width), what the weights depend on.
        """
        n, width = x.shape
        for k, layer in enumerate(self.layers):
            numbers = layer(conditions)
            weight = numbers[:, : width * width].view(n, width, width)  # out, in
            x = torch.bmm(weight, x[:, :, None]).squeeze(-1) + numbers[:, width * width :]
            if k < N_LAYERS - 1:
                x = torch.tanh(layer_norm(x, (width,)))
        return x


def weights_of_layer(width: int) -> nn.Sequential:
    """Return the perceptron that gives the weights and biases of one layer."""
    layers: list[nn.Module] = []
    for _ in range(N_HIDDEN):
        layers += [nn.Linear(width, width), nn.Tanh()]
    last = nn.Linear(width, width * width + width)
    for layer in (*layers, last):
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        last.weight.mul_(START)
    return nn.Sequential(*layers, last)


__all__ = ["Hypernetwork"]
