"""Image variations of a manifest of sources. Nothing in here knows Prefect or reads the environment."""
