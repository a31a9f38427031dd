"""The journal: how nothing is paid twice without an idempotency key, and nothing that was paid is lost.

`records.py` is what is written down, `story.py` what follows from it, `journal.py` the log of a shard, which is its own
lock, `lock.py` who works on a dataset, `writer.py` who that is, and `probe.py` whether the store can keep a promise.
"""
