"""How strongly the conditions are followed: guidance between two estimates of the clean bars.

Letters: S sequences, B bars, L tokens, D dims, A numbers of an action, N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mgen.core.dynamics.network import Condition
from mgen.core.errors import UsageError
from mgen.core.train_loop.draws import mixed_seed

Kind = Literal["cfg", "icg"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What the conditioned estimate is moved away from, and how far.

    Attributes
    ----------
    scale
        1 for none; above, estimate = other + scale * (conditioned - other).
    kind
        `cfg`: the other estimate knows no condition (Ho and Salimans 2022). `icg`: it is given a
        random other action for the bars that are written (Sadat et al., ICLR 2025).
    rescale
        How much of the spread that guidance adds is taken back, 0 to 1 (Lin et al. 2024, 3.4).
    candidates_NA
        Embedded actions that `icg` draws from.
    """

    scale: float = 1.0
    kind: Kind = "cfg"
    rescale: float = 0.0
    candidates_NA: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("cfg", "icg"):
            raise UsageError(f"no guidance is called '{self.kind}'; choose cfg or icg")
        if not self.scale >= 0.0 or not 0.0 <= self.rescale <= 1.0:
            raise UsageError(
                f"guidance of scale {self.scale}, rescale {self.rescale}: take a scale of 0 or"
                " more, and a rescale of 0 to 1"
            )
        if (
            self.on
            and self.kind == "icg"
            and (self.candidates_NA is None or len(self.candidates_NA) < 2)
        ):
            raise UsageError("icg draws other actions from at least 2 candidates; give them")

    @property
    def on(self) -> bool:
        """Whether there is a second estimate at all."""
        return self.scale != 1.0


class OtherConditions:
    """The conditions of the second estimate, step by step; the same for the same seed and bars."""

    def __init__(
        self, guidance: Guidance, condition: Condition, mask_B: Sequence[bool], key: Sequence[int]
    ) -> None:
        """Prepare the draws.

        Parameters
        ----------
        guidance
            Its kind and candidates.
        condition
            Of one sequence (1, B).
        mask_B
            Bars that are written.
        key
            Numbers that decide the draws, the number of the first bar last.
        """
        self._condition = condition
        self._candidates = guidance.candidates_NA if guidance.kind == "icg" else None
        *most, first = key
        self._generators = {
            bar: torch.Generator().manual_seed(mixed_seed(*most, first + bar))
            for bar, write in enumerate(mask_B)
            if write
        }

    def next(self) -> Condition:
        """The conditions of the next step."""
        if self._candidates is None:
            return self._condition.forgotten()
        action_SBA = self._condition.action_SBA.clone()
        candidates_NA = self._candidates.to(action_SBA)
        for bar, generator in self._generators.items():
            (pick,) = torch.randint(len(candidates_NA), (1,), generator=generator).tolist()
            same_N = (candidates_NA - action_SBA[0, bar]).abs().amax(1) < 1e-6
            if bool(same_N[pick]):  # the next one that differs
                others = (pick + 1 + torch.arange(len(candidates_NA))) % len(candidates_NA)
                pick = next((i for i in others.tolist() if not bool(same_N[i])), pick)
            action_SBA[0, bar] = candidates_NA[pick]
        knows_SB = self._condition.knows_action_SB.clone()
        knows_SB[0, list(self._generators)] = True
        return self._condition._replace(action_SBA=action_SBA, knows_action_SB=knows_SB)


def guided(conditioned_SBLD: Tensor, other_SBLD: Tensor, guidance: Guidance) -> Tensor:
    """The estimate of clean bars that two estimates give.

    Parameters
    ----------
    conditioned_SBLD, other_SBLD
        Clean bars as seen with the conditions, and with the others.
    guidance
        How far to go.
    """
    moved_SBLD = other_SBLD + guidance.scale * (conditioned_SBLD - other_SBLD)
    if not guidance.rescale:
        return moved_SBLD
    wanted, found = (x.flatten(2).std(-1)[..., None, None] for x in (conditioned_SBLD, moved_SBLD))
    back_SBLD = moved_SBLD * (wanted / found.clamp(min=1e-8))
    return guidance.rescale * back_SBLD + (1.0 - guidance.rescale) * moved_SBLD
