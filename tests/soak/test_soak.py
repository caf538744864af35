"""A minute of mixed questions, writes and switches; ``make soak`` takes ten."""

from pathlib import Path

from tests.soak.soaking import Report, soak

SECONDS = 60


def complaints(report: Report) -> list[str]:
    """What was not as it should be."""
    found = list(report.faults)
    kinds = {"similar", "search", "state", "items"}
    if not kinds <= set(report.answers):
        found.append(f"only {sorted(report.answers)} were asked")
    if not report.commits or not report.commands:
        found.append(f"{report.commits} commits and {dict(report.commands)} were too few")
    if report.recall < 0.95:
        found.append(f"{report.recall:.3f} of the nearest parcels were found; promised are .95")
    if report.growth > 1.05:
        found.append(f"memory grew by {report.growth - 1:.1%}; 5 % are allowed")
    half = len(report.files) // 2
    if max(report.files[half:]) > max(report.files[:half]) + 4:
        found.append(f"ever more files are open: {report.files}")
    return found


def test_a_minute_of_questions_writes_and_switches_ends_as_it_began(tmp_path: Path) -> None:
    assert complaints(soak(SECONDS, tmp_path)) == []
