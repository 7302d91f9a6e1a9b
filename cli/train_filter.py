"""`mgen train-filter`: labelled recordings -> a quality judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgen.cli import output
from mgen.cli.options import ForceOption, JsonOption, SeedOption
from mgen.core.errors import InputError


def train_filter(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="A CSV file: path,label[,start_s].")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write the judge to.", metavar="MODEL")
    ],
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a judge of your own for `mgen filter --model`.

    LABELS has a header line and a recording per line: its path (counted from the file's folder),
    good or bad (or 1, 0), and, if only five seconds of it are meant, where they begin. Label at
    least two of each kind; some hundred are better. The accuracy and ROC-AUC that are shown are
    those on recordings that were held out. The judge is two files without any code in them.
    Needs scikit-learn: pip install 'mgen[train]'.

    [bold]Examples[/bold]

      mgen train-filter labels.csv -o my-judge

      mgen filter ~/music --model my-judge
    """
    from mgen.core.quality.judge import require_free, save_judge
    from mgen.core.quality.training import (
        cross_validate,
        fit,
        gather,
        hear_labels,
        read_labels,
        require_trainer,
    )

    require_trainer()
    require_free(out, force=force)
    listed = read_labels(labels)
    heard = []
    with output.progress(len(listed), "hear", "recording") as bar:
        for one in hear_labels(listed):
            bar.update()
            heard.append(one)
            if one.reason:
                output.warn(f"{labels}, line {one.label.line}: {one.label.path}: {one.reason}")
    examples = gather(heard)
    if not examples.enough:
        raise InputError(
            f"{labels}: too few recordings could be read; at least 2 good and 2 bad are needed"
        )
    held = cross_validate(examples, seed)
    about = {
        "made_by": "mgen train-filter", "labels": len(listed), "recordings": held.recordings,
        "windows": len(examples.good_W), "good_share": round(float(examples.good_W.mean()), 4),
        "seed": seed, "held_out_accuracy": round(held.accuracy, 4),
        "held_out_auc": round(held.auc, 4), "folds": held.folds,
    }  # fmt: skip
    judge = save_judge(out, fit(examples, seed), about, force=force)
    failed = [one for one in heard if one.reason]
    output.say(
        f"{out}: {judge.id}, {held.recordings} recordings, accuracy {held.accuracy:.3f} and"
        f" ROC-AUC {held.auc:.3f} on those held out ({held.folds} folds)"
    )
    refused = [{"path": str(one.label.path), "reason": one.reason} for one in failed]
    output.result([out], {"id": judge.id, **about, "refused": refused}, as_json)
    if failed:
        raise typer.Exit(1)
