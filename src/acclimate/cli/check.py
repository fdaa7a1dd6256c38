"""``acclimate check``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.cli import console, options

if TYPE_CHECKING:
    from acclimate.data.check import Finding

GROUPS, FILES = 8, 2  # as much as fits a screen


def check(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder or a catalog name.", show_default=False)],
    target: Annotated[
        str | None, typer.Argument(metavar="[TGT]", help="A second one, to compare with.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every finding, not a screenful.")] = False,
    json: options.Json = False,
) -> None:
    """Decode every image and say what is broken, odd, or in both places.

    Exits with 1 where something cannot be used.
    """
    from dataclasses import asdict

    from acclimate.data.check import check as look

    refs = [ref for ref in (source, target) if ref is not None]
    counted = [0]

    def count(done: int, total: int) -> None:
        counted[0] = total
        progress.count(done, total)

    with console.Progress() as progress:
        findings = look(*refs, progress=count)
    errors = sum(finding.severity == "error" for finding in findings)
    if json:
        console.document(
            {"images": counted[0], "errors": errors, "findings": [asdict(finding) for finding in findings]}
        )
    else:
        console.show(overview(findings, counted[0], all_))
    if errors:
        raise typer.Exit(1)
    other = ["--target", target] if target else ["--target", "UNLABELLED"]
    console.suggest(console.command("adapt", "--source", source, *other))


def overview(findings: list[Finding], images: int, everything: bool) -> str:
    """The findings by kind, worst first."""
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.kind].append(finding)
    lines = []
    for (severity, kind), found in list(groups.items())[: None if everything else GROUPS]:
        lines.append(f"{severity}: {kind}, {len(found)} time{'s' if len(found) > 1 else ''}")
        shown = found if everything else found[:FILES]
        lines += [f"  {finding.file}: {finding.message}; {finding.advice}" for finding in shown]
        if len(shown) < len(found):
            lines.append(f"  ... and {len(found) - len(shown)} more (--all)")
    if not everything and len(groups) > GROUPS:
        lines.append(f"... and {len(groups) - GROUPS} more kinds of findings (--all)")
    counts = {name: sum(finding.severity == name for finding in findings) for name in ("error", "warning", "note")}
    said = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count)
    return "\n".join([*lines, f"{images} images decoded: {said or 'nothing to report'}"])
