"""Tasks: what a flow is made of. Each logs, calls the library once, and returns."""

from tasks.steps import check_key, make_plan, make_shard, publish

__all__ = ["check_key", "make_plan", "make_shard", "publish"]
