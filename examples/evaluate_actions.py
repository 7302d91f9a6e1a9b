"""Measure the action models: python examples/evaluate_actions.py DATA --work WORK [--windows N].

The songs that DATA marks `dev` are cut, tokenized and labelled into WORK/dev.zarr (once). Then

palette      utilisation and perplexity of the actions; normalised mutual information of a bar's
             action with its song, beside that of as many k-means clusters of bars' mean log-mel and
             that of the same actions in another order, which is what so few bars give by chance
control      windows of 12 bars, the middle 4 written anew: PSNR of their log-mel with the actions
             that were inferred from them, minus that with the actions of other songs' bars (the
             mean of --partners songs), the noise the same (delta-PSNR, Genie, section 3.2); with
             mixtures and with the largest action alone; bootstrap intervals over windows
baselines    PSNR beside that of an untrained dynamics model and of the mean of the 8 bars around;
             the differences window by window, too; also written without guidance, which moves what
             is written away from the likeliest towards the action. A mean is nearer to anything
             than any one of what it is the mean of: so, too, mean against mean, of the log-mel of
             --takes takes, and of that of the 8 bars around
expected     the same in latents: squared error, over their variance in all music, of what the model
             expects of the bars that are to be written (its estimate from noise alone, told their
             actions, or none), of the mean of the 8 bars around, and of that of all other bars
             of the song; differences window by window
nature       Frechet's distance of tokens as they are heard, and their changes, to those of the true
             bars (written with their own actions): of what is written, of the baselines, of the
             true bars themselves made by the same mosaic
identity     the same windows told one action of the palette: their sound is tokenized and labelled
             again, is the action among the 3 largest? Beside it: the real bars with their own
             largest action, made and read again; an untrained dynamics model; the mean of the
             bars around; and the same
             read by another action model, --other (nearest centroids of its embeddings)
effects      every action on --contexts windows, against the same bars written with their own
             actions: how many change chroma (mean cosine) or onsets (F1, 50 ms) by two standard
             errors more than other noise does; and how often what an action does in one song (its
             effect vector: the figures that name actions) is nearest to what the same action does,
             on average, in the others
dial         Spearman correlation of --strength with the distance to the bar as it was

PSNR is over 80 mel bands in dB, peak 80 dB. Everything is of bars as the models hear them; written
ones sound as in an edit, a mosaic of up to 24 bars before and after, without the bars themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from evaluate_tokenizer import measure
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from torch import Tensor
from train_tokenizer import fill_store

from mgen.core.bars import BAR_RATE
from mgen.core.corpus import Segmentation
from mgen.core.dynamics.guidance import Guidance
from mgen.core.dynamics.model import Dynamics, load_dynamics
from mgen.core.dynamics.network import Condition, DynamicsNetwork
from mgen.core.dynamics.sampling import Sampling, inpaint
from mgen.core.editing.mosaic import compose
from mgen.core.editing.writer import GUIDANCE, RESCALE, WRITING, start_level
from mgen.core.lam.data import Bars, read_bars
from mgen.core.lam.effects import bar_figures, shared_information
from mgen.core.lam.folder import LatentActionModel, load_lam
from mgen.core.lam.passes import label_songs
from mgen.core.lam.survey import health, survey
from mgen.core.layers import normalise_tokens
from mgen.core.quantizers import Payload
from mgen.core.store import BarTable, Store
from mgen.core.tokenizer import Tokenizer, load_tokenizer
from mgen.core.tokenizer.levels import joined
from mgen.core.tokenizer.passes import tokenize_songs
from mgen.kernels.log_mel import LogMelSpec, log_mel

BARS, WRITTEN = 12, slice(4, 8)
NEAR_BARS = 24
PEAK_DB = 80.0
MEL = LogMelSpec(
    rate=BAR_RATE, n_fft=1024, hop=256, n_mels=80, f_max=BAR_RATE / 2, power=2.0, log="db"
)
PARTS = ("palette", "expected", "control", "identity", "effects", "dial")
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
_DRAWS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Consecutive bars of a song, and what is known of them; `whole_XLD` is all of the song.

    `true_WN` is the sound of those that are written anew; `around_N` that of 24 bars before and
    after them, with silence in their place, which begins at `at`.
    """

    song: str
    first: int
    whole_XLD: Tensor
    z_BLD: Tensor
    bpm_B: Tensor
    payload: Payload
    true_WN: Tensor
    around_N: np.ndarray
    at: int
    beats_B: npt.NDArray[np.int8]

    @property
    def neighbours_BN(self) -> Tensor:
        """The sound of the other bars of the window, as it is."""
        around_BN = torch.from_numpy(self.around_N).view(-1, self.true_WN.shape[1])
        first = self.at // self.true_WN.shape[1]
        last = first + WRITTEN.stop - WRITTEN.start
        before = around_BN[first - WRITTEN.start : first]
        return torch.cat([before, around_BN[last : last + BARS - WRITTEN.stop]])

    @property
    def usual_LD(self) -> Tensor:
        """The average bar of the song without those that are written: they must not be told."""
        return torch.cat(
            [self.whole_XLD[: self.written.start], self.whole_XLD[self.written.stop :]]
        ).mean(0)

    @property
    def written(self) -> slice:
        return slice(self.first + WRITTEN.start, self.first + WRITTEN.stop)


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    tokenizer: Tokenizer
    lam: LatentActionModel
    dynamics: Dynamics
    untrained: Dynamics | None = None
    sampling: Sampling = WRITING
    guidance: Guidance = field(default_factory=lambda: Guidance(scale=GUIDANCE, rescale=RESCALE))

    def told(self, payload: Payload) -> Tensor:
        return self.lam.inform(self.lam.embed(payload)).clone()  # of no inference mode

    def write(
        self, window: Window, action_BA: Tensor, seed: int, *, dynamics: Dynamics | None = None,
        strength: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """The window with its middle written anew, told these actions of all its bars."""
        mask_B = torch.zeros(BARS, dtype=torch.bool)
        mask_B[WRITTEN] = True
        z_BLD = inpaint(
            dynamics or self.dynamics, window.z_BLD, mask_B, window.bpm_B, action_BA,
            usual_LD=window.usual_LD, seed=seed, guidance=self.guidance,
            sampling=self.sampling, start_t=start_level(strength),
        )  # fmt: skip
        return normalise_tokens(z_BLD).half().float()

    def sound(self, window: Window, z_BLD: Tensor, seed: int) -> Tensor:
        """(W, N) of the bars that are written, as an edit makes it, but for its loudness: out of
        the bars around, themselves left out. By the decoder where latents tell no levels; the noise
        of a bar is then that of its place in the window.
        """
        levels = self.tokenizer.band_levels(z_BLD[WRITTEN])
        if levels is not None:
            made_N, _ = compose(joined(levels), window.around_N, window.at)
            return torch.from_numpy(made_N).clamp(-1, 1).view(len(levels), -1)
        keys = range(WRITTEN.start, WRITTEN.stop)
        pcm_WCN = self.tokenizer.decode(z_BLD[WRITTEN], keys=keys, seed=seed)
        return pcm_WCN[:, 0].float().clamp(-1, 1)

    def heard(self, window: Window, z_BLD: Tensor, pcm_WN: Tensor) -> Tensor:
        """Latents of the song with the middle of the window as it is heard again."""
        again_XLD = window.whole_XLD.clone()
        again_XLD[window.written] = self.tokenizer.encode(pcm_WN[:, None]).float()
        return again_XLD


def loaded_untrained(trained: Dynamics) -> Dynamics:
    """A network that has learned nothing but means and spreads, its outputs not all zero."""
    torch.manual_seed(0)
    network = DynamicsNetwork(trained.config)
    buffers = dict(trained.network.named_buffers())
    network.load_state_dict({**network.state_dict(), **buffers})
    torch.nn.init.normal_(network.leave.weight, std=0.02)
    return Dynamics(network)


def decibels(pcm_BN: Tensor) -> Tensor:
    mel_BTM = log_mel(pcm_BN, MEL)
    return mel_BTM.clamp(min=float(mel_BTM.max()) - PEAK_DB)


def psnr(one_BN: Tensor, other_BN: Tensor) -> float:
    return psnr_of_mel(decibels(one_BN), decibels(other_BN))


def psnr_of_mel(one_BTM: Tensor, other_BTM: Tensor) -> float:
    return float(10.0 * torch.log10(PEAK_DB**2 / (one_BTM - other_BTM).square().mean()))


def interval(values: list[float], of: Callable[[np.ndarray], float] = np.mean) -> str:
    x, rng = np.asarray(values, float), np.random.default_rng(0)
    draws = [of(x[rng.integers(0, len(x), len(x))]) for _ in range(_DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{of(x):.2f} [{low:.2f}, {high:.2f}]"


def windows_of(
    store: Store, bars: Bars, table: BarTable, labels: Payload, count: int
) -> list[Window]:
    """Windows of valid bars, spread over the songs, at most as many of each."""
    bpm_X = table.bpm.astype(np.float32)
    firsts: dict[str, list[int]] = {}
    for owner, (first, last) in zip(bars.owners, bars.runs, strict=True):
        firsts.setdefault(owner, []).extend(range(first, last - BARS + 1, BARS))
    able = [(owner, found) for owner, found in firsts.items() if found]
    each, chosen = -(-count // len(able)), []
    for owner, found in able:
        for at in np.linspace(0, len(found) - 1, min(each, len(found))).round().astype(int):
            rows, copy = slice(found[at], found[at] + BARS), bars.copies == bars.copies[found[at]]
            written = range(found[at] + WRITTEN.start, found[at] + WRITTEN.stop)
            near = [r for r in np.flatnonzero(copy).tolist()
                    if written.start - NEAR_BARS <= r < written.stop + NEAR_BARS]  # fmt: skip
            stored_XN = np.stack([store.bar_pcm(int(table.row[i])) for i in near])
            pcm_XN = stored_XN.astype(np.float32) / 32768
            place = near.index(written.start)
            around_XN = pcm_XN.copy()
            around_XN[place : place + len(written)] = 0.0
            chosen.append(
                Window(
                    owner, int(found[at] - np.flatnonzero(copy)[0]),
                    torch.from_numpy(bars.z_XLD[copy]).float(),
                    torch.from_numpy(bars.z_XLD[rows]).float(),
                    torch.from_numpy(bpm_X[rows]),
                    Payload(labels.index[rows], labels.weight[rows]),
                    torch.from_numpy(pcm_XN[place : place + len(written)]),
                    around_XN.reshape(-1), place * pcm_XN.shape[1], table.beats[rows],
                )
            )  # fmt: skip
    spread = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[i] for i in spread]


def largest(payload: Payload) -> Payload:
    weight = torch.zeros_like(payload.weight)
    weight[..., 0] = 1.0
    return Payload(payload.index, weight)


def single(action: int, like: Payload) -> Payload:
    index = torch.full_like(like.index, 0)
    weight = torch.zeros_like(like.weight)
    index[..., 0], weight[..., 0] = action, 1.0
    return Payload(index, weight)


FORMS: dict[str, Callable[[Payload], Payload]] = {
    "mixtures": lambda payload: payload, "largest alone": largest
}  # fmt: skip
"""What the dynamics model may be told of a bar's action."""
EXPECTED, USUAL = "mean log-mel of takes", "mean log-mel of the bars around"


def control(
    models: Models, windows: list[Window], forms: Sequence[str] = tuple(FORMS), partners: int = 4,
    takes: int = 8,
) -> dict[str, str]:  # fmt: skip
    """delta-PSNR and the baselines."""
    rng = np.random.default_rng(0)
    deltas: dict[str, list[float]] = {name: [] for name in forms}
    plain: dict[str, list[float]] = {}
    tokens: dict[str, list[Tensor]] = {"true": []}

    def heard_as(name: str, window: Window, z_BLD: Tensor) -> None:
        """How near a window's sound is to the true one, and the tokens of it."""
        sound_WN = models.sound(window, z_BLD, seed)
        again_XLD = models.heard(window, z_BLD, sound_WN)
        plain.setdefault(name, []).append(psnr(sound_WN, window.true_WN))
        tokens.setdefault(name, []).append(again_XLD[window.written])

    for seed, window in enumerate(windows):
        others = [w for w in windows if w.song != window.song]
        drawn = rng.choice(len(others), min(partners, len(others)), replace=False)
        for name in forms:
            told_BA = models.told(FORMS[name](window.payload))
            wrong_BA = [told_BA.clone() for _ in drawn]
            for at, other in enumerate(drawn):
                theirs_BA = models.told(FORMS[name](others[other].payload))
                wrong_BA[at][WRITTEN] = theirs_BA[WRITTEN]
            right, *wrong = (
                psnr(models.sound(window, models.write(window, a_BA, seed), seed), window.true_WN)
                for a_BA in (told_BA, *wrong_BA)
            )
            deltas[name].append(right - float(np.mean(wrong)))
        told_BA = models.told(window.payload)
        tokens["true"].append(window.z_BLD[WRITTEN])
        heard_as("written", window, models.write(window, told_BA, seed))
        plainly = replace(models, guidance=Guidance())
        heard_as("without guidance", window, plainly.write(window, told_BA, seed))
        heard_as("the true bars", window, window.z_BLD)
        if models.untrained is not None:
            z_BLD = models.write(window, told_BA, seed, dynamics=models.untrained)
            heard_as("untrained", window, z_BLD)
        heard_as("mean of the bars around", window, mean_bar(window))
        truth_WTM = decibels(window.true_WN)
        expected_WTM = torch.stack(
            [decibels(models.sound(window, models.write(window, told_BA, s), s))
             for s in range(seed, seed + 1000 * takes, 1000)]
        ).mean(0)  # fmt: skip
        plain.setdefault(EXPECTED, []).append(psnr_of_mel(expected_WTM, truth_WTM))
        usual_TM = decibels(window.neighbours_BN).mean(0)
        plain.setdefault(USUAL, []).append(psnr_of_mel(usual_TM.expand_as(truth_WTM), truth_WTM))
    found = {f"delta-PSNR, {name}, dB": interval(v) for name, v in deltas.items()}
    found |= {f"PSNR, {name}, dB": interval(v) for name, v in plain.items()}
    for name in [n for n in ("untrained", "mean of the bars around") if n in plain]:
        for made in ("written", "without guidance"):
            gain_W = np.subtract(plain[made], plain[name])
            found[f"PSNR, {made} minus {name}, dB"] = interval(gain_W.tolist())
    gain_W = np.subtract(plain[EXPECTED], plain[USUAL])
    found[f"PSNR, {EXPECTED} minus {USUAL}, dB"] = interval(gain_W.tolist())
    return found | natures(tokens.pop("true"), tokens)


def expectation(models: Models, windows: list[Window]) -> dict[str, str]:
    """Errors of expected bars in latents."""
    errors: dict[str, list[float]] = {}
    for seed, window in enumerate(windows):
        network = models.dynamics.network
        truth_WLD = network.to_flow(window.z_BLD)[WRITTEN]
        around_BLD = torch.cat([window.z_BLD[: WRITTEN.start], window.z_BLD[WRITTEN.stop :]])
        guesses = {
            "model": expected(models.dynamics, models, window, seed, told=True),
            "model, told no action": expected(models.dynamics, models, window, seed, told=False),
            "mean of the bars around": network.to_flow(around_BLD.mean(0)),
            "mean of the song": network.to_flow(window.usual_LD),
        }
        if models.untrained is not None:
            guesses["untrained"] = expected(models.untrained, models, window, seed, told=True)
        for name, guess in guesses.items():
            errors.setdefault(name, []).append(float((guess - truth_WLD).square().mean()))
    found = {f"expected, error of {name}": interval(v) for name, v in errors.items()}
    model_W = errors.pop("model")
    for name, values in errors.items():
        less = np.subtract(values, model_W).tolist()
        found[f"expected, {name} minus model"] = interval(less)
        found[f"expected, model nearer than {name}"] = f"{np.mean(np.array(less) > 0):.2f}"
    return found


def expected(
    dynamics: Dynamics, models: Models, window: Window, seed: int, *, told: bool
) -> Tensor:
    """The estimate of the written bars from noise alone, in the space of the flow."""
    network, t_1B = dynamics.network, torch.full((1, BARS), dynamics.config.context_t)
    t_1B[:, WRITTEN] = 1.0
    x_1BLD = network.to_flow(window.z_BLD)[None]
    noise_1BLD = torch.randn(x_1BLD.shape, generator=torch.Generator().manual_seed(seed))
    x_1BLD = torch.lerp(x_1BLD, noise_1BLD, t_1B[..., None, None])
    knows_1B = torch.ones(1, BARS, dtype=torch.bool)
    condition = Condition(
        window.bpm_B[None], models.told(window.payload)[None], knows_1B & (window.bpm_B > 0),
        knows_1B & told, window.usual_LD[None],
    )  # fmt: skip
    return dynamics.clean(x_1BLD, t_1B, condition)[0, WRITTEN]


def mean_bar(window: Window) -> Tensor:
    """The mean of the 8 bars around those that are written, in the place of all."""
    around_BLD = torch.cat([window.z_BLD[: WRITTEN.start], window.z_BLD[WRITTEN.stop :]])
    return normalise_tokens(around_BLD.mean(0, keepdim=True)).expand(BARS, -1, -1)


def natures(true: list[Tensor], made: dict[str, list[Tensor]]) -> dict[str, str]:
    """Frechet's distances to the true bars, and by how much what is written is nearer."""

    def distance(name: str, which: npt.NDArray[np.integer]) -> float:
        one_XD, other_XD = (token_figures([x[w] for w in which]) for x in (true, made[name]))
        return frechet(one_XD, other_XD)

    whole_W = np.arange(len(true))
    found = {f"Frechet distance, {name}": f"{distance(name, whole_W):.2f}" for name in made}
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(true), len(true)) for _ in range(_DRAWS // 10)]
    for name in ("untrained", "mean of the bars around"):
        if name in made:
            nearer = [distance(name, w_W) - distance("written", w_W) for w_W in drawn]
            low, high = np.percentile(nearer, [2.5, 97.5])
            mean = distance(name, whole_W) - distance("written", whole_W)
            found[f"Frechet distance, {name} minus written"] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    return found


def token_figures(bars: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    """Tokens and what they change by from the one before (X, 2 D), of bars (W, L, D)."""
    z_WLD = torch.cat(list(bars)).double().numpy()
    return np.concatenate([z_WLD[:, 1:], np.diff(z_WLD, axis=1)], axis=2).reshape(
        -1, 2 * z_WLD.shape[2]
    )


def frechet(one_XD: npt.NDArray[np.float64], other_XD: npt.NDArray[np.float64]) -> float:
    """Frechet's distance of two normal distributions (Dowson and Landau, 1982)."""
    from scipy.linalg import sqrtm

    one_DD, other_DD = np.cov(one_XD.T), np.cov(other_XD.T)
    shift = one_XD.mean(0) - other_XD.mean(0)
    both_DD = np.real(sqrtm(one_DD @ other_DD))
    return float(shift @ shift + np.trace(one_DD + other_DD - 2.0 * both_DD))


def identity(
    models: Models, windows: list[Window], all_bars: tuple[Bars, Payload],
    other: LatentActionModel | None,
) -> dict[str, str]:  # fmt: skip
    rng = np.random.default_rng(1)
    used = np.unique(all_bars[1].index[:, 0].numpy())
    readers = {"": top_of(models.lam, all_bars, models.lam)}
    if other is not None:
        readers["another model, "] = top_of(other, all_bars, models.lam)
    hits: dict[str, list[float]] = {}
    for seed, window in enumerate(windows):
        action = int(used[rng.integers(len(used))])
        told_BA = models.told(window.payload)
        told_BA[WRITTEN] = models.told(single(action, window.payload))[WRITTEN]
        own = window.payload.index[WRITTEN, 0].tolist()
        cases = {
            "asked for": (models.write(window, told_BA, seed), [action] * 4),
            "real bars, their own": (window.z_BLD, own),
            "mean of the bars around": (mean_bar(window), [action] * 4),
        }
        if models.untrained is not None:
            z_BLD = models.write(window, told_BA, seed, dynamics=models.untrained)
            cases["untrained"] = (z_BLD, [action] * 4)
        for case, (z_BLD, wanted) in cases.items():
            again_XLD = models.heard(window, z_BLD, models.sound(window, z_BLD, seed))
            for reader, read in readers.items():
                order_WN = read(again_XLD)[window.written].tolist()
                for top in (1, 3):
                    found = [w in row[:top] for w, row in zip(wanted, order_WN, strict=True)]
                    hits.setdefault(f"{reader}{case}, top {top}", []).append(float(np.mean(found)))
    return {f"identity: {name}": interval(v) for name, v in hits.items()}


def effects(models: Models, windows: list[Window]) -> dict[str, str]:
    """How many actions do more than gain, an EQ or another seed would."""
    bases, floor = [], []
    for seed, window in enumerate(windows):
        told_BA = models.told(window.payload)
        one, other = (
            models.sound(window, models.write(window, told_BA, s), seed)
            for s in (seed, seed + 1000)
        )
        bases.append(one)
        floor += likeness(one, other)
    floor_X2 = np.array(floor)
    changed = {"chroma": 0, "onsets": 0, "either": 0}
    vectors = []
    for action in range(models.lam.config.actions):
        found, mine = [], []
        for seed, window in enumerate(windows):
            told_BA = models.told(window.payload)
            told_BA[WRITTEN] = models.told(single(action, window.payload))[WRITTEN]
            sound = models.sound(window, models.write(window, told_BA, seed), seed)
            found += likeness(bases[seed], sound)
            mine.append(effect_of(window, bases[seed], sound))
        vectors.append(np.stack(mine))
        found_X2 = np.array(found)
        error_2 = np.hypot(*(x.std(0) / np.sqrt(len(x)) for x in (floor_X2, found_X2)))
        chroma, onsets = (floor_X2.mean(0) - found_X2.mean(0) > 2.0 * error_2).tolist()
        changed["chroma"] += chroma
        changed["onsets"] += onsets
        changed["either"] += chroma or onsets
    total = models.lam.config.actions
    levels = f"{floor_X2[:, 0].mean():.3f}, {floor_X2[:, 1].mean():.3f}"
    return (
        {"chroma cosine, onset F1 of another seed": levels}
        | {f"actions that change {name}": f"{count} of {total}" for name, count in changed.items()}
        | recognised(np.stack(vectors), [w.song for w in windows])
    )


def effect_of(window: Window, before_WN: Tensor, after_WN: Tensor) -> np.ndarray:
    """What an action did to the figures of the bars (E,), the mean of all that were written."""
    before_XE, after_XE = (
        bar_figures((x_WN.numpy() * 32767).astype(np.int16), window.beats_B[WRITTEN])
        for x_WN in (before_WN, after_WN)
    )
    change_E: np.ndarray = (after_XE - before_XE).mean(0)
    return change_E


def recognised(effect_RCE: np.ndarray, songs: Sequence[str]) -> dict[str, str]:
    """How often the effect vector of an action (R) in a context (C) is nearest to the mean of those
    of the same action in the contexts of other songs; each figure by its spread.
    """
    scaled_RCE = effect_RCE / effect_RCE.std(axis=(0, 1)).clip(1e-9)
    hits: dict[int, list[float]] = {1: [], 3: []}
    for at, song in enumerate(songs):
        others = [c for c, name in enumerate(songs) if name != song]
        centroid_RE = scaled_RCE[:, others].mean(1)
        distance_RR = np.linalg.norm(scaled_RCE[:, at, None] - centroid_RE, axis=2)
        rank_R = (distance_RR < np.diag(distance_RR)[:, None]).sum(1)
        for top, found in hits.items():
            found.append(float((rank_R < top).mean()))
    return {f"effect vector recognised, top {top}": interval(v) for top, v in hits.items()}


def likeness(one_WN: Tensor, other_WN: Tensor) -> list[list[float]]:
    """Chroma cosine and onset F1 of each bar."""
    pairs = zip(one_WN.numpy(), other_WN.numpy(), strict=True)
    return [measure(a, b)[2:4] for a, b in pairs]


def top_of(
    reader: LatentActionModel, all_bars: tuple[Bars, Payload], lam: LatentActionModel
) -> Callable[[Tensor], Tensor]:
    """How a model reads bars as actions of `lam`: its own order, or by nearest centroids."""
    if reader is lam:

        def by_weight(z_XLD: Tensor) -> Tensor:
            found = lam.label(z_XLD)
            if lam.config.steps:  # the codes after the first refine it, and are no other choices
                return found.index[:, :1]
            return torch.where(found.weight > 0, found.index, -1)

        return by_weight
    bars, labels = all_bars
    first_X = labels.index[:, 0]
    embedded_XA = torch.cat(
        [
            reader.embed(reader.label(torch.from_numpy(bars.z_XLD[bars.copies == c]).float()))
            for c in range(int(bars.copies.max()) + 1)
        ]
    )
    centroid_NA = torch.stack(
        [
            embedded_XA[first_X == n].mean(0) if (first_X == n).any() else embedded_XA.mean(0) + 1e6
            for n in range(lam.config.actions)
        ]
    )

    def by_centroid(z_XLD: Tensor) -> Tensor:
        embedded_XA = reader.embed(reader.label(z_XLD))
        return torch.cdist(embedded_XA, centroid_NA).argsort(1)

    return by_centroid


def dial(models: Models, windows: list[Window]) -> dict[str, str]:
    rng, found = np.random.default_rng(2), []
    for seed, window in enumerate(windows):
        action = int(rng.integers(models.lam.config.actions))
        own_BA = models.told(window.payload)
        wanted_BA = models.told(single(action, window.payload))
        truth_WN = window.true_WN
        distances = []
        for strength in STRENGTHS:
            told_BA = own_BA.clone()
            told_BA[WRITTEN] += strength * (wanted_BA - own_BA)[WRITTEN]
            z_BLD = models.write(window, told_BA, seed, strength=strength)
            distances.append(-psnr(models.sound(window, z_BLD, seed), truth_WN))
        found.append(float(spearmanr(STRENGTHS, distances).statistic))
    return {"strength dial, Spearman": interval(found)}


def clusters(store: Store, count: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """k-means of bars' mean log-mel."""
    mean_XM = np.concatenate(
        [
            decibels(torch.from_numpy(store.bar_pcm(int(row))[None] / 32768.0).float()).mean(1)
            for row in rows
        ]
    )
    found: npt.NDArray[np.int64] = KMeans(count, n_init=3, random_state=0).fit_predict(mean_XM)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=31)
    parser.add_argument("--weights", type=Path, default=Path("core/weights"))
    parser.add_argument("--other", type=Path, help="an action model of another seed")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--contexts", type=int, default=8, help="windows of `effects`")
    parser.add_argument("--partners", type=int, default=4, help="other songs of delta-PSNR")
    parser.add_argument("--takes", type=int, default=8, help="of each window, for their mean")
    options = parser.parse_args()
    wanted = options.only or PARTS
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "dev.zarr"
    with (options.data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        songs = [options.data / r["path"] for r in csv.DictReader(file) if r["split"] == "dev"]
    fill_store(path, songs, Segmentation())
    tokenizer = load_tokenizer(options.weights / "tokenizer")
    lam = load_lam(options.weights / "lam")
    with Store.open(path, "a") as store:
        with contextlib.closing(tokenize_songs(store, tokenizer)) as passes:
            list(passes)
        list(label_songs(store, lam))
        found = survey([store], lam, measure=0)
        bars, table = read_bars([store], lam.config), store.bars(jittered=True)
        figures: dict[str, str] = {}
        if "palette" in wanted:
            figures |= {name: f"{value:.3f}" for name, value in health(lam, found).items()}
            rows = table.row[(table.jitter == 0) & table.valid].astype(np.int64)
            by_mel = clusters(store, lam.config.actions, rows)
            names_X = found.song_X.astype(str)
            information = shared_information(by_mel, names_X)
            figures["song information of k-means"] = f"{information:.3f}"
            rng = np.random.default_rng(0)
            by_chance = [
                shared_information(rng.permutation(found.labels.index[:, 0].numpy()), names_X)
                for _ in range(20)
            ]
            figures["song information of shuffled actions"] = f"{np.mean(by_chance):.3f}"
        labels = whole_labels(bars, lam)
        windows = windows_of(store, bars, table, labels, options.windows)
    show(figures)
    if set(wanted) == {"palette"}:
        return
    dynamics = load_dynamics(options.weights / "dynamics")
    models = Models(tokenizer, lam, dynamics, loaded_untrained(dynamics))
    print(len(windows), "windows of", len({w.song for w in windows}), "songs", flush=True)
    if "expected" in wanted:
        show(expectation(models, windows))
    if "control" in wanted:
        show(control(models, windows, partners=options.partners, takes=options.takes))
    if "identity" in wanted:
        other = load_lam(options.other) if options.other else None
        show(identity(models, windows, (bars, labels), other))
    if "effects" in wanted:
        spread = np.linspace(0, len(windows) - 1, min(options.contexts, len(windows)))
        show(effects(models, [windows[at] for at in spread.round().astype(int)]))
    if "dial" in wanted:
        show(dial(models, windows))


def whole_labels(bars: Bars, lam: LatentActionModel) -> Payload:
    """Actions of all bars, song by song, as `mgen actions` gives them."""
    parts = [
        lam.label(torch.from_numpy(bars.z_XLD[bars.copies == c]).float())
        for c in range(int(bars.copies.max()) + 1)
    ]
    return Payload(torch.cat([p.index for p in parts]), torch.cat([p.weight for p in parts]))


def show(figures: dict[str, str]) -> None:
    for name, value in figures.items():
        print(f"{name:40} {value}", flush=True)


if __name__ == "__main__":
    main()
