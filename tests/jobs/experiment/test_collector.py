import gc
import subprocess
import sys

from jobs.experiment.collector import RARELY, USUAL, collect_as_usual, collect_rarely


def test_the_usual_thresholds_are_pythons_own() -> None:
    begin = [sys.executable, "-S", "-c", "import gc; print(gc.get_threshold())"]
    assert subprocess.run(begin, capture_output=True, text=True, check=True).stdout.strip() == str(USUAL)


def test_the_collector_works_rarely_until_it_works_as_usual() -> None:
    collect_rarely()
    assert gc.isenabled() and gc.get_threshold() == RARELY
    collect_as_usual()
    assert gc.get_threshold() == USUAL


def test_a_process_ends_without_looking_through_all_objects() -> None:
    """A cycle that is left at the end is not collected; the exit code and what was printed are those of any process."""
    program = "import sys; from jobs.experiment.collector import collect_rarely; collect_rarely()\n"
    program += "class Cycle:\n    def __del__(self): print('collected')\none = Cycle(); one.itself = one; del one; print('out'); sys.exit(3)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "out\n", "")
