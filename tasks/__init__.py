"""Tasks: what a flow is made of. Each logs, calls the library once, and returns."""

from tasks.begin import begun, joined
from tasks.canary import try_canary, wait_for_word
from tasks.crew import check_deployment, make_with_workers
from tasks.ending import ending
from tasks.events import started
from tasks.finish import finish, finish_recovery
from tasks.outer_limit import one_slot
from tasks.progress import shown_progress
from tasks.runtime import augment_name, day_of, place_of, plan_name, recover_name, work_name
from tasks.shards import make_shards
from tasks.steps import check_key, look_ahead, make_plan, make_shard, publish, recover_earlier

__all__ = [
    "augment_name",
    "begun",
    "check_deployment",
    "check_key",
    "day_of",
    "ending",
    "finish",
    "finish_recovery",
    "joined",
    "look_ahead",
    "make_plan",
    "make_shard",
    "make_shards",
    "make_with_workers",
    "one_slot",
    "place_of",
    "plan_name",
    "publish",
    "recover_earlier",
    "recover_name",
    "shown_progress",
    "started",
    "try_canary",
    "wait_for_word",
    "work_name",
]
