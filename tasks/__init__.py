"""Tasks: what a flow is made of."""
