"""The tokenizer: items of sound (bars, seconds) to a few continuous latents each, and back."""

from mgen.core.tokenizer.config import ARCHS, PRESETS, SIZES, TokenizerConfig, make_config
from mgen.core.tokenizer.model import Tokenizer, build, load_tokenizer, save_tokenizer

__all__ = [
    "ARCHS", "PRESETS", "SIZES", "Tokenizer", "TokenizerConfig", "build", "load_tokenizer",
    "make_config", "save_tokenizer",
]  # fmt: skip
