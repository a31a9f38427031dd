"""The commands behind `variations`, a module each."""

from importlib.metadata import version

from cyclopts import App

from flows.commands.backfill import backfill
from flows.commands.demo import demo
from flows.commands.deploy import deploy
from flows.commands.doctor import doctor
from flows.commands.explain import explain
from flows.commands.export import export
from flows.commands.plan import plan
from flows.commands.recover import recover
from flows.commands.report import report
from flows.commands.run import run
from flows.commands.sandbox import sandbox
from flows.commands.stage import stage
from flows.commands.status import status

app = App(
    name="variations",
    help="Turn a manifest of source images into a dataset of image variations.",
    version=version("variations"),
    help_format="plaintext",
)
app.command(run)
app.command(plan)
app.command(backfill)
app.command(recover)
app.command(status)
app.command(explain)
app.command(report)
app.command(export)
app.command(deploy)
app.command(doctor)
app.command(demo)
app.command(stage)
# The sandbox has a command line of its own, with a help of its own.
app.command(sandbox, help_flags=(), version_flags=())
