"""What the tests run in the workers of Ray, and the local training in which a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ops.scoring import on_ray, output
from stages import params, train
from stages.on_ray import distributed
from stages.problem_kit.params import TrainParams
from stages.training import boosting
from stages.training.boosting import Source

ROUNDS = 60


def killed(flag: Path, always: bool = False) -> dict[str, Any]:
    """Return the network parameters; kill the second worker half a second later, the first time or each time."""
    from ray.train import get_context  # pylint: disable=import-outside-toplevel # an extra

    found = distributed.network_params()
    if get_context().get_world_rank() == 1 and (always or not flag.exists()):
        flag.touch()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return found


def killed_while_writing(number: int, flag: Path, **arguments: Any) -> list[dict[str, Any]]:
    """Score an input file; the first time, kill the process when the rows of a part are written."""
    if not flag.exists():
        flag.touch()
        with patch.object(output.Writer, "_flush", lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            return on_ray._task(number, **arguments)  # pylint: disable=protected-access
    return on_ray._task(number, **arguments)  # pylint: disable=protected-access


def few_rounds() -> TrainParams:
    """Return the parameters of a short training with folds in February and March."""
    return params.load().train.model_copy(update={"rounds": ROUNDS, "fold_months": [2, 3], "min_data_in_leaf": 20})


def main() -> None:
    """Train on two workers of this machine, one of which is killed, and write what `train` would make of it."""
    folder = Path(sys.argv[1])
    network = partial(killed, folder / "killed")
    with patch.object(distributed, "fit", partial(distributed.fit, workers=2, network=network)):
        trained = train.train_on_ray(Source.files("train"), few_rounds())
    trained.booster.save_model(folder / "model.txt")
    trained.rolling.to_parquet(folder / "rolling.parquet")
    trained.fold_losses.assign(train=trained.loss[boosting.LOSS_STEP - 1 :: boosting.LOSS_STEP]).to_parquet(
        folder / "loss.parquet"
    )


if __name__ == "__main__":
    main()
