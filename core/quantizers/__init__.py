"""Bottlenecks of an action: what passes is one of a few codes, or a few weights over embeddings.

All take vectors of a model's width and give embeddings of width A with a *payload*, the few
numbers that a person names, stores and mixes: `embed` turns a payload back into the embedding.
Randomness comes from a `Draw` alone; what training changes besides parameters lies in buffers, so
that a run which goes on is the one that was never ended.
"""

from mgen.core.quantizers.codes import FSQ, VQ, ResidualFSQ
from mgen.core.quantizers.dead_codes import RESETS, reset_due
from mgen.core.quantizers.payload import Payload, Quantized, use_figures, use_of
from mgen.core.quantizers.styles import StyleActions

Bottleneck = VQ | FSQ | ResidualFSQ | StyleActions

__all__ = [
    "FSQ", "RESETS", "VQ", "Bottleneck", "Payload", "Quantized", "ResidualFSQ", "StyleActions",
    "reset_due", "use_figures", "use_of",
]  # fmt: skip
