"""Texts and table of a run's model checks: the verdict that stands before the number, and what each check found."""

from driftcal.train.run.result import Result

HEAD = ("check", "F", "p, adjusted", "finding")
"""Head of the table of checks."""

WRONG = "THE MODEL IS WRONG FOR THESE DRIFTERS"


def verdict(result: Result) -> str:
    """The checks' verdict on the model, in a sentence; empty before they are made."""
    checks = result.checks
    if checks is None:
        return ""
    lead = f"{WRONG}: " if checks.model_supported is False else ""
    return f"{lead}{checks.model_verdict}"


def contradicted(result: Result) -> bool:
    """Tells whether a check rejects the model."""
    return result.checks is not None and result.checks.model_supported is False


def facts(result: Result) -> list[tuple[str, str]]:
    """The checks in words, for a terminal and a table: the rejected ones by themselves, the others by number."""
    if result.checks is None or not result.checks.model_checks:
        return []
    checks = result.checks.model_checks
    kept = [name for name, check in checks.items() if not check.rejected]
    found = [
        (f"check {title(name)}", f"{one.finding} ({chance(one.p_adjusted)})")
        for name, one in result.checks.rejected.items()
    ]
    if kept:
        found.append(("checks without a finding", ", ".join(map(title, kept))))
    return found


def title(name: str) -> str:
    """A check's name in words."""
    return {"kappa": "deformation"}.get(name, name.replace("_", " "))


def chance(p: float) -> str:
    """A p-value as text, without digits that nobody can know."""
    return "p < 1e-6" if p < 1e-6 else f"p = {p:.1g}"


def rows(result: Result) -> list[list[str]]:
    """Rows of the table of checks: the surest finding first."""
    if result.checks is None:
        return []
    ordered = sorted(result.checks.model_checks.items(), key=lambda item: item[1].p_value)
    return [
        [
            f"{title(name)}: {one.question}",
            f"{one.statistic:.3g}",
            "< 1e-6" if one.p_adjusted < 1e-6 else f"{one.p_adjusted:.2g}",
            one.finding,
        ]
        for name, one in ordered
    ]
