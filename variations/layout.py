"""What lies in a dataset, and under which key.

metadata.parquet                                   the whole dataset, a row for every image wanted
report.html                                        the gallery
README.md                                          the dataset card
images/[<split>/]<2 hex>/<variation_id>[-k].<ext>  the images
images/<split>/metadata.parquet                    the rows of a split that have an image, as `datasets` reads them
__export/<format>/                                 shards of the images and their rows, where no other place was named
_runs/open.json                                    which run is open, and who works on it
_runs/probe                                        shows whether the store honours conditional writes
_runs/thumbnails.parquet                           the gallery's small pictures, for the next one
_runs/source_hashes.parquet                        what sources look like, for the next leak report
_runs/<run_id>/plan/plan.json                      what the run is going to do; created only once
_runs/<run_id>/plan/shard-<shard>.parquet          the variations of a shard
_runs/<run_id>/plan/canary.json                    those that are made and looked at before the rest, if any are
_runs/<run_id>/canary.json                         that the rest may be made
_runs/<run_id>/journal/<shard>/<n>.jsonl           what a shard did, as it happened
_runs/<run_id>/notes/<variation>-<request>.json    requests of which a replaced writer learned
_runs/<run_id>/metadata/part-<shard>-<n>.parquet   the rows of a shard, as its journal's first n objects tell them
_runs/<run_id>/workers/<worker>.json               the last sign of life of a machine that works on the run
_runs/<run_id>/left/<worker>.json                  what one that has left did
_runs/<run_id>/budget.json                         what each of them may spend
_runs/<run_id>/receipt.json                        what the run did; created only once
"""

from typing import Final

RUNS_PREFIX: Final = "_runs/"
OPEN_KEY: Final = f"{RUNS_PREFIX}open.json"
PROBE_KEY: Final = f"{RUNS_PREFIX}probe"
REPORT_KEY: Final = "report.html"
THUMBNAILS_KEY: Final = f"{RUNS_PREFIX}thumbnails.parquet"
SOURCE_HASHES_KEY: Final = f"{RUNS_PREFIX}source_hashes.parquet"


def run_prefix(run_id: str) -> str:
    """Return the folder of a run."""
    return f"{RUNS_PREFIX}{run_id}/"


def plan_key(run_id: str) -> str:
    """Return the key of a run's plan."""
    return f"{run_prefix(run_id)}plan/plan.json"


def canary_key(run_id: str) -> str:
    """Return the key of the ids of the variations that are a run's canary."""
    return f"{run_prefix(run_id)}plan/canary.json"


def canary_said_key(run_id: str) -> str:
    """Return the key of the word that a run goes on after its canary."""
    return f"{run_prefix(run_id)}canary.json"


def plan_shard_key(run_id: str, shard: int) -> str:
    """Return the key of the variations of a shard."""
    return f"{run_prefix(run_id)}plan/shard-{shard:05d}.parquet"


def journal_prefix(run_id: str, shard: int | None = None) -> str:
    """Return the folder of a shard's journal, or of all of a run's."""
    return f"{run_prefix(run_id)}journal/" + ("" if shard is None else f"{shard:05d}/")


def journal_key(run_id: str, shard: int, number: int) -> str:
    """Return the key of an object of a journal."""
    return f"{journal_prefix(run_id, shard)}{number:08d}.jsonl"


def notes_prefix(run_id: str) -> str:
    """Return the folder of the notes that replaced writers left."""
    return f"{run_prefix(run_id)}notes/"


def note_key(run_id: str, variation_id: str, request_id: str) -> str:
    """Return the key of a note; `request_id` is the API's word, so what no key may hold is replaced."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in request_id)
    return f"{notes_prefix(run_id)}{variation_id}-{name}.json"


def parts_prefix(run_id: str) -> str:
    """Return the folder of a run's rows."""
    return f"{run_prefix(run_id)}metadata/"


def part_key(run_id: str, part: str) -> str:
    """Return the key of a part of a run's rows."""
    return f"{parts_prefix(run_id)}part-{part}.parquet"


def shard_part(shard: int, number: int) -> str:
    """Return the name of the rows of a shard, as the first `number` objects of its journal tell them."""
    return f"{shard:05d}-{number:08d}"


def workers_prefix(run_id: str) -> str:
    """Return the folder of the machines that work on a run."""
    return f"{run_prefix(run_id)}workers/"


def worker_key(run_id: str, worker: str) -> str:
    """Return the key of the sign of life of a machine that works on a run."""
    return f"{workers_prefix(run_id)}{worker}.json"


def left_prefix(run_id: str) -> str:
    """Return the folder of the machines that have left a run."""
    return f"{run_prefix(run_id)}left/"


def left_key(run_id: str, worker: str) -> str:
    """Return the key of what a machine did that has left."""
    return f"{left_prefix(run_id)}{worker}.json"


def budget_key(run_id: str) -> str:
    """Return the key of what each machine that works on a run may spend."""
    return f"{run_prefix(run_id)}budget.json"


def receipt_key(run_id: str) -> str:
    """Return the key of a run's receipt."""
    return f"{run_prefix(run_id)}receipt.json"
