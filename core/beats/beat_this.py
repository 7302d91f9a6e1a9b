"""Beat This! (Foscarin, Schlüter and Widmer, ISMIR 2024) from a checkpoint in its official format.

Only `beat_this.model` is used: its `inference` and `preprocessing` need torchaudio. Our log-mel
gives the same numbers. Chunks of 30 s overlap by 6 border frames on each side, as in training.

Shapes: T frames of 20 ms, M mel bands.
"""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgen.core.beats.features import Samples, blocks, extract, framed
from mgen.core.beats.grid import Beats
from mgen.core.beats.meter import count_places, place_beats
from mgen.core.errors import InputError, InputNotFoundError, MissingDependencyError

if TYPE_CHECKING:
    import torch

DEFAULT_CHECKPOINT = Path("~/.cache/mgen/beat_this.ckpt")
CHUNK, BORDER = 1500, 6
FRAMES_PER_SECOND = 50
MAX_SIZE = 4096
"""No width or depth in a checkpoint may be above this: a file must not fill the memory."""


def track(
    samples_N: Samples,
    rate: int,
    checkpoint: Path | None = None,
    *,
    device: str = "cpu",
    compile: str = "auto",
) -> Beats:
    """Beats and downbeats by Beat This!; confidence is the model's own probability.

    Raises
    ------
    MissingDependencyError
        If no checkpoint was named and none is in the cache, or the package is not installed.
    InputNotFoundError, InputError
        If the checkpoint is not there or is not one.
    UsageError
        If CUDA was asked for and is not there.
    """
    from mgen.core.devices import choose_device
    from mgen.kernels.compile_policy import maybe_compile

    where = choose_device(device)
    model = load_model(find_checkpoint(checkpoint)).to(where)
    mel_TM = _log_mel(samples_N, rate)
    if len(mel_TM) == 0:
        return Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0, np.float32))
    chunks = -(-len(mel_TM) // (CHUNK - 2 * BORDER))
    run = maybe_compile(model, compile, device=where, items=chunks)
    beat_T, downbeat_T = predict(run, mel_TM.to(where))
    return _to_beats(beat_T.cpu(), downbeat_T.cpu(), samples_N, rate)


def find_checkpoint(checkpoint: Path | None) -> Path:
    """The named file, or the one in the user's cache.

    Raises
    ------
    InputNotFoundError
        If the named file is not there.
    MissingDependencyError
        If none was named and the cache has none.
    """
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise InputNotFoundError(f"{checkpoint}: not found; check the path of --beat-model")
        return Path(checkpoint)
    cached = DEFAULT_CHECKPOINT.expanduser()
    if not cached.is_file():
        raise MissingDependencyError(
            f"the beat-this tracker needs its checkpoint and {cached} is not there;"
            " name one with --beat-model PATH, or use --tracker mgen"
        )
    return cached


def load_model(path: Path) -> torch.nn.Module:
    """Build the model from its checkpoint; nothing in the file is run.

    Raises
    ------
    InputError
        If the file is not a Beat This! checkpoint.
    MissingDependencyError
        If the package `beat-this` is not installed.
    """
    import torch

    try:
        from beat_this.model.beat_tracker import BeatThis
    except ImportError as error:
        raise MissingDependencyError(
            f"the beat-this tracker needs a package ({error}); pip install beat-this"
        ) from None
    refusal = f"{path}: not a Beat This! checkpoint; name the .ckpt file that its authors publish"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd file is refused below, or it loads
            data = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError,
            AttributeError, IndexError, OSError, AssertionError, UnicodeDecodeError):  # fmt: skip
        raise InputError(refusal) from None
    if not isinstance(data, Mapping):
        raise InputError(refusal)
    weights, settings = data.get("state_dict"), data.get("hyper_parameters")
    if not isinstance(weights, Mapping) or not isinstance(settings, Mapping):
        raise InputError(refusal)
    known = set(inspect.signature(BeatThis.__init__).parameters) - {"self"}
    settings = {name: value for name, value in settings.items() if name in known}
    if any(isinstance(v, int) and not 0 <= v <= MAX_SIZE for v in settings.values()):
        raise InputError(f"{path}: its sizes {settings} make no sense; download it again")
    try:
        model: torch.nn.Module = BeatThis(**settings)
        model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        )
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError,
            ZeroDivisionError) as error:  # fmt: skip
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: its weights do not fit the model ({first}); download it again"
        ) from None
    return model.eval()


def predict(
    model: Callable[[torch.Tensor], Mapping[str, torch.Tensor]], mel_TM: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Beat and downbeat logits of every frame (T,), chunk by chunk.

    The last chunk is moved back to end with the song; where chunks overlap the earlier one counts.
    """
    import torch
    import torch.nn.functional as F

    n_frames, step = len(mel_TM), CHUNK - 2 * BORDER
    starts = list(range(-BORDER, n_frames - BORDER, step))
    if n_frames > step:
        starts[-1] = n_frames - (CHUNK - BORDER)
    beat_T = torch.full((n_frames,), -1000.0)
    downbeat_T = torch.full((n_frames,), -1000.0)
    filled = 0
    with torch.inference_mode():
        for start in starts:
            left = max(0, -start)
            right = max(0, min(BORDER, start + CHUNK - n_frames))
            chunk = F.pad(mel_TM[max(0, start) : start + CHUNK], (0, 0, left, right))
            out = model(chunk[None])
            first, stop = start + BORDER, start + len(chunk) - BORDER
            skip = filled - first + BORDER
            beat_T[filled:stop] = out["beat"][0, skip : len(chunk) - BORDER].float().cpu()
            downbeat_T[filled:stop] = out["downbeat"][0, skip : len(chunk) - BORDER].float().cpu()
            filled = stop
    return beat_T, downbeat_T


def _log_mel(samples_N: Samples, rate: int) -> torch.Tensor:
    from dataclasses import replace

    import torch

    from mgen.kernels.log_mel import BEAT_THIS, log_mel

    spec = replace(BEAT_THIS, centre=False)
    pieces = [torch.zeros(0, spec.n_mels)]
    with torch.inference_mode():
        stream = blocks(samples_N, rate, spec.rate)
        pieces.extend(
            log_mel(torch.from_numpy(piece)[None], spec)[0]
            for piece in framed(stream, spec.n_fft, spec.hop, mirror=True)
        )
    return torch.cat(pieces)


def _to_beats(
    beat_T: torch.Tensor, downbeat_T: torch.Tensor, samples_N: Samples, rate: int
) -> Beats:
    from beat_this.model.postprocessor import Postprocessor

    beat_s, downbeat_s = Postprocessor(type="minimal", fps=FRAMES_PER_SECOND)(beat_T, downbeat_T)
    time_s = np.unique(np.asarray(beat_s, np.float64))
    at_n = np.clip(np.round(time_s * FRAMES_PER_SECOND).astype(int), 0, len(beat_T) - 1)
    confidence = beat_T.sigmoid().numpy()[at_n] if len(at_n) else np.zeros(0, np.float32)
    downbeats = np.flatnonzero(np.isin(time_s, np.asarray(downbeat_s)))
    place: Any
    if len(downbeats) >= 2:
        place = count_places(len(time_s), downbeats)
    else:
        place = place_beats(time_s, extract(samples_N, rate))
    return Beats(time_s, place, confidence)
