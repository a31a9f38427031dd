"""What the flows need on a Prefect server: work pool, limit, blocks, deployments, automations; and a doctor."""
