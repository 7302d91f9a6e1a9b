"""`Dynamics`: a trained network, ready to write bars, and the folder that it lives in.

Letters: S sequences, B bars, L tokens of a bar, D dims of a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgen.core.checkpoint import rebuild, save_model
from mgen.core.devices import use_bf16
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
    bf16
        Whether products are computed in bf16, which takes 57 % of the time on a CPU that has it
        and moves an estimate by 1 %; where the hardware has it, unless it is said otherwise.
    """

    def __init__(
        self, network: DynamicsNetwork, model_id: str = "", *, bf16: bool | None = None
    ) -> None:
        self.network = network.eval()
        self.config = network.config
        self.id = model_id
        self.bf16 = use_bf16("auto", self.device) if bf16 is None else bf16

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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
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
