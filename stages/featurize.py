"""Stage featurize: compute features, target and lookups from the validated tables, partition by partition."""

from __future__ import annotations

import shutil
from functools import partial

from app.interface import Lookups
from stages import params
from stages.base.errors import run
from stages.base.paths import FEATURES_DIR, write_json
from stages.features.compute import Counts, fit_lookups, write_partition
from stages.features.feature_files import LOOKUPS_FILE
from stages.features.samples import golden_requests, write_reference
from stages.on_ray.cluster import cluster, results
from stages.params import Params
from stages.tables import partitions
from stages.tables.partitions import Store
from stages.tracking import mlflow_runs


def write_on_ray(store: Store, lookups: Lookups, p: Params) -> list[Counts]:
    """Write the features of all partitions as `write_partition` does, a task of Ray for each."""
    task = partial(_task, lookups=lookups, p=p)
    with cluster() as workers:
        counts = dict(results(task, len(store.partitions), workers))
    return [counts[place] for place in range(len(store.partitions))]


def _task(place: int, lookups: Lookups, p: Params) -> tuple[int, Counts]:
    store = partitions.written(p.problem)
    return place, write_partition(store, store.partitions[place], lookups, p)


def main() -> None:
    """Read build/tables; write features, lookups and samples to build/features."""
    p = params.load()
    with mlflow_runs.stage_run("featurize", p.featurize.model_dump(mode="json"), ["build/tables"]) as log:
        store = partitions.written(p.problem)
        lookups = fit_lookups(store, p)
        shutil.rmtree(FEATURES_DIR, ignore_errors=True)
        if p.engine == "ray":
            counts = write_on_ray(store, lookups, p)
        else:
            counts = [write_partition(store, partition, lookups, p) for partition in store.partitions]
        write_reference(counts, p.featurize)
        write_json(LOOKUPS_FILE, lookups.to_json())
        write_json(FEATURES_DIR / "golden.json", golden_requests(store, counts, lookups, p.featurize, p.problem))
        train, positive, test = (sum(count) for count in zip(*counts, strict=True))
        log.metrics(train_rows=train, test_rows=test, train_rate=positive / train)
        log.artifact(LOOKUPS_FILE)


if __name__ == "__main__":
    run(main)
