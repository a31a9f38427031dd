"""Tasks: what a flow is made of. Each logs, calls the library once, and returns."""

from tasks.begin import begun
from tasks.progress import logged_progress
from tasks.shards import make_shards
from tasks.steps import check_key, make_plan, make_shard, publish, recover_earlier

__all__ = [
    "begun",
    "check_key",
    "logged_progress",
    "make_plan",
    "make_shard",
    "make_shards",
    "publish",
    "recover_earlier",
]
