"""The one training loop: a stage gives a `Task`, the loop gives a report after every few steps.

    for report in train(task, TrainSettings(steps=1000, batch=64), Path("runs/first")):
        ...

A run is a folder: config.json, metrics.jsonl (the reports), samples/, checkpoints/, and model/, the
averaged model as of the last checkpoint. It goes on after whatever ended it: in float32 on a CPU to
the same parameters, bit for bit, as a run that nothing ended. Batches and randomness are functions
of seed and step alone, so nothing else has to be remembered.

Under torchrun every process takes its share of each batch and the gradients are averaged; rank 0
writes and reports. Parameters, moments and the average stay float32 whatever the precision.
"""

from mgen.core.train_loop.draws import Draw
from mgen.core.train_loop.loop import NotFiniteError, train
from mgen.core.train_loop.run_folder import RunFolder
from mgen.core.train_loop.settings import StepReport, TrainSettings
from mgen.core.train_loop.task import Batch, Task

__all__ = [
    "Batch",
    "Draw",
    "NotFiniteError",
    "RunFolder",
    "StepReport",
    "Task",
    "TrainSettings",
    "train",
]
