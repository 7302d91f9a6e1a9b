"""The latent action model: what tells bars apart, as a small set of actions without labels.

`load_lam(folder).label(z_XLD)` gives the actions of a song's bars, `embed` their embeddings, and
`inform` what the dynamics model is told of them.
"""

from mgen.core.lam.config import BOTTLENECKS, PRESETS, SIZES, LamConfig, make_config
from mgen.core.lam.folder import LatentActionModel, load_lam, save_lam
from mgen.core.lam.palette import Palette, PaletteRow, curate, load_palette, save_palette

__all__ = [
    "BOTTLENECKS", "PRESETS", "SIZES", "LamConfig", "LatentActionModel", "Palette", "PaletteRow",
    "curate", "load_lam", "load_palette", "make_config", "save_lam", "save_palette",
]  # fmt: skip
