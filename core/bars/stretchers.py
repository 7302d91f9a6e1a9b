"""Time-stretchers behind one signature: `stretch(samples_N, n_out, rate)`.

Each maps time evenly from the first sample to the last and gives exactly `n_out` samples.
"""

from __future__ import annotations

import numpy as np

from mgen.core.errors import MissingDependencyError

_SEED = 1  # Signalsmith's random phases: the same bar gives the same bytes


def signalsmith(samples_N: np.ndarray, n_out: int, rate: int) -> np.ndarray:
    """Signalsmith Stretch (MIT), through `python-stretch`."""
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch(_SEED)
    stretch.preset(1, rate)
    stretch.setTimeFactor(len(samples_N) / n_out)
    return _fitted(np.asarray(stretch.process(samples_N[None].astype(np.float32)))[0], n_out)


def rubberband(samples_N: np.ndarray, n_out: int, rate: int) -> np.ndarray:
    """Rubber Band (GPL), through `pedalboard`, an optional extra.

    Raises
    ------
    MissingDependencyError
        If pedalboard is not installed.
    """
    try:
        from pedalboard import time_stretch
    except ImportError as error:
        raise MissingDependencyError(
            "the rubberband stretcher is an extra; install it with: pip install 'mgen[rubberband]'"
        ) from error
    factor = len(samples_N) / n_out
    return _fitted(time_stretch(samples_N[None].astype(np.float32), rate, factor)[0], n_out)


def _fitted(samples_N: np.ndarray, n_out: int) -> np.ndarray:
    # both engines round the length their own way, by a few samples
    cut = samples_N[:n_out]
    return np.pad(cut, (0, n_out - len(cut)))
