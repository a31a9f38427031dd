"""What things are called on the Prefect server. The deployments' own names stand in `prefect.yaml`."""

from typing import Final

POOL: Final = "variations"
LIMIT: Final = "variations"
AUGMENT: Final = "augment/variations"
PLAN: Final = "plan/variations"
RECOVER: Final = "recover/variations"
WORK: Final = "work/variations"
DEPLOYMENTS: Final = (AUGMENT, PLAN, RECOVER, WORK)
SCHEDULE: Final = "daily"
