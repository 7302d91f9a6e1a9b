"""The dynamics model: writes bars of latents from actions, tempo and the bars around them."""

from mgen.core.dynamics.config import HOWS, SIZES, DynamicsConfig, make_dynamics_config
from mgen.core.dynamics.guidance import Guidance
from mgen.core.dynamics.model import Dynamics, load_dynamics, save_dynamics
from mgen.core.dynamics.network import Condition, DynamicsNetwork
from mgen.core.dynamics.sampling import Sampling, autoregress, inpaint

__all__ = [
    "HOWS", "SIZES", "Condition", "Dynamics", "DynamicsConfig", "DynamicsNetwork", "Guidance",
    "Sampling", "autoregress", "inpaint", "load_dynamics", "make_dynamics_config",
    "save_dynamics",
]  # fmt: skip
