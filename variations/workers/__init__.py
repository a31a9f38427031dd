"""A run on several machines: one plans and publishes, and so many others take its shards until none is left.

They meet in the dataset alone. A shard is claimed by creating the first object of its journal, which one alone can do;
each worker gives signs of life beside it, and what one that died has begun is taken over by another.
"""
