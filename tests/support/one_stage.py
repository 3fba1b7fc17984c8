"""A job whose training is a stand-in that fails as the test says."""

from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.parallel.engine import Ranks, rendezvous


def one_rank() -> Ranks:
    """This process alone."""
    return rendezvous(threads=1)


class OneStage:
    """Stands in for training: fails as it is told, attempt by attempt, and notes the micro-batches it was run with."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors, self.micros = list(errors), []

    def __call__(self, run: RunFolder, spec: StageSpec, cluster: ClusterSpec, ranks: Ranks) -> None:
        self.micros.append(spec.recipe.micro_batch_size)
        error = self.errors.pop(0)
        if error is not None:
            raise error
        (run.stage_dir(spec.id) / "export").mkdir(parents=True)
