"""What leaked in the last run that looked: the pairs of sources, to be shown side by side, and what else there is."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from variations.leak_report import LeakReport

_OF_SOURCE: Final = ("source_id", "source_uri", "split", "row")


def last_leaks(runs: Iterable[Mapping[str, Any]]) -> LeakReport | None:
    """Return the leak report of the newest run that has one which can be read; None if there is none."""
    for run in runs:
        written = run.get("leaks")
        try:
            report = LeakReport.of_json(written) if isinstance(written, dict) else None
            if report is not None and all(_is_pair(pair) for pair in report.pairs):
                report.lines()
                return report
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
    return None


def _is_pair(pair: Mapping[str, Any]) -> bool:
    return isinstance(pair["distance"], int) and all(set(_OF_SOURCE) <= set(pair[side]) for side in ("one", "other"))


def picture_names(report: LeakReport | None) -> dict[str, str]:
    """Return the URIs of the sources of the pairs, by the names of their pictures."""
    pairs = report.pairs if report else ()
    uris = [str(pair[side]["source_uri"]) for pair in pairs for side in ("one", "other")]
    return {source_picture(uri): uri for uri in uris}


def source_picture(uri: str) -> str:
    """Return the name of the picture of a source."""
    return f"source {uri}"


def leak_data(
    report: LeakReport | None, numbers: Mapping[str, int], missing: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return what the page shows, as JSON values.

    Args:
        report: what leaked.
        numbers: of the pictures, by their names.
        missing: why there is no picture, by its name.
    """
    if report is None:
        return None

    def shown(source: Mapping[str, Any]) -> dict[str, Any]:
        name = source_picture(str(source["source_uri"]))
        plain = {field: source[field] for field in _OF_SOURCE}
        return plain | {"picture": numbers.get(name, -1), "missing": missing.get(name)}

    return {
        "summary": report.summary(),
        "is_leak": report.is_leak,
        "pairs": [
            {"distance": pair["distance"], "one": shown(pair["one"]), "other": shown(pair["other"])}
            for pair in report.pairs
        ],
        "groups": list(report.group_samples),
        "moved": list(report.moved_samples),
        "missing": list(report.missing_samples),
        "looked_at": dict(report.lines())["looked at"],
        "max_distance": report.max_distance,
    }
