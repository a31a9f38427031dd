"""Benches: what each performance claim is worth on this machine, side by side with what one would do otherwise."""
