"""Flows: what runs."""

from config.prefect_defaults import set_prefect_defaults

# Before anything here imports Prefect, which reads its settings once.
set_prefect_defaults()
