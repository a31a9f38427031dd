"""What Prefect shows of a run: artifacts. None is worth a run, so none that cannot be made harms one."""

import asyncio
from typing import Final

from prefect import get_run_logger
from prefect.artifacts import Artifact, LinkArtifact, MarkdownArtifact, TableArtifact

from variations.canary import Canary
from variations.failures import failure_table
from variations.links import gallery_link, gallery_uri, output_links
from variations.plan import Plan
from variations.receipt import Receipt
from variations.report import WrittenReport
from variations.texts import markdown_text

PATIENCE_SECONDS: Final = 20.0


async def show_plan(plan: Plan) -> None:
    """Show a plan."""
    await _show(MarkdownArtifact(key="variations-plan", markdown=plan.markdown(), description=plan.summary()))


async def show_receipt(receipt: Receipt) -> None:
    """Show a receipt with links to the output, and a table of what failed, where anything did."""
    markdown = f"{receipt.markdown()}\n{output_links(receipt)}"
    await _show(MarkdownArtifact(key="variations-receipt", markdown=markdown, description=receipt.summary()))
    table = failure_table(receipt.failures, rejected=receipt.rejected, rejected_rows=receipt.rejected_rows)
    if table:
        text = "What did not become an image, by reason. Each one has a row in the dataset's metadata."
        await _show(TableArtifact(key="variations-failures", table=list(table), description=text))


async def show_gallery(destination: str, written: WrittenReport) -> None:
    """Show where the gallery lies. No link of it is signed: that would open it for whoever sees this."""
    text = (
        f"{written.shown:,} of {written.rows:,} rows, {written.pictures:,} pictures. To open it: "
        f"variations report {markdown_text(destination)} --open, which makes a link that holds for an hour"
    )
    if written.uri.startswith("file:"):
        text += ", or the address, on the machine that it names a file of"
    link, name = gallery_link(destination), markdown_text(written.uri)
    await _show(LinkArtifact(key="variations-gallery", link=link, link_text=name, description=text))


async def show_canary(canary: Canary, destination: str, *, what_now: str) -> None:
    """Show what a canary came to, and where its images are to be seen."""
    link = f"[{markdown_text(gallery_uri(destination))}]({gallery_link(destination)})"
    markdown = canary.markdown(f"{what_now}\n\n- gallery: {link}")
    await _show(MarkdownArtifact(key="variations-canary", markdown=markdown, description=canary.summary()))


async def _show(artifact: Artifact) -> None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await artifact.acreate()
    except Exception as error:  # noqa: BLE001 - the dataset does not depend on what Prefect shows of it
        get_run_logger().warning("The artifact %s could not be shown: %r", artifact.key, error)
