"""Every target and what was reached, from the results that the other benchmarks kept."""

from __future__ import annotations

from printing import heading, note, show
from results import KEPT, ROOT, kept_sections, targets_of


def main() -> None:
    sections = kept_sections()
    heading("Summary")
    targets = [target for section in sections.values() for target in targets_of(section)]
    show(
        ("", "target", "reached", "outcome"),
        [(target.what, target.target, target.reached, target.outcome) for target in targets],
        left=("target", "reached", "outcome"),
    )
    met = sum(not target.missed for target in targets)
    dates = ", ".join(f"{name} {section['date'][:16]}" for name, section in sections.items())
    note(f"\n{met} of {len(targets)} met. Kept in {KEPT.relative_to(ROOT)}: {dates} UTC.")


if __name__ == "__main__":
    main()
