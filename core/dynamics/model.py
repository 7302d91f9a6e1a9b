"""`Dynamics`: a trained network, ready to write bars, and the folder that it lives in.

Letters: S sequences, B bars, L tokens of a bar, D dims of a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgen.core.checkpoint import rebuild, save_model
from mgen.core.dynamics.config import DynamicsConfig
from mgen.core.dynamics.network import Condition, DynamicsNetwork

KIND = "dynamics"


class Dynamics:
    """A trained dynamics model.

    Attributes
    ----------
    config
        Its shape, and the ids of the models that it goes with.
    id
        Hash of its config and weights; the same wherever the folder lies.
    network
        The network itself, in eval mode.
    """

    def __init__(self, network: DynamicsNetwork, model_id: str = "") -> None:
        self.network = network.eval()
        self.config = network.config
        self.id = model_id

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.network.mean_D.device

    @torch.inference_mode()
    def clean(
        self, x_SBLD: Tensor, t_SB: Tensor, condition: Condition, causal: bool = False
    ) -> Tensor:
        """Clean bars as the network sees them in noisy ones, in the space of the flow; float32.

        Parameters
        ----------
        x_SBLD
            Noisy bars in the space of the flow.
        t_SB
            Their noise levels.
        condition
            Tempo and actions.
        causal
            Whether no bar sees a later one.
        """
        out_SBLD: Tensor = self.network(x_SBLD, t_SB, condition, causal).float()
        if self.config.prediction == "x":
            return out_SBLD
        return x_SBLD - t_SB[..., None, None] * out_SBLD


def save_dynamics(network: nn.Module, folder: Path, about: dict[str, Any]) -> str:
    """Write a model's folder; gives its id.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    assert isinstance(network, DynamicsNetwork)
    config = {"dynamics": network.config.to_json(), **about}
    return save_model(folder, network.state_dict(), config, KIND)


def load_dynamics(folder: Path, device: str = "cpu") -> Dynamics:
    """Read a dynamics model from its folder. Raises as `mgen.core.checkpoint.rebuild`."""
    network, model_id = rebuild(
        folder, KIND, lambda c: DynamicsNetwork(DynamicsConfig.from_json(c))
    )
    return Dynamics(network.to(device), model_id)
