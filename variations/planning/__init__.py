"""From sources to shards: what is wanted of each, what of it is new, and who is to make it."""
