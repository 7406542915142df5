"""A raw corpus sent to us, to h11 and to nginx: no disagreement about where requests end, and no unowned request.

Refusing what the others accept is allowed; accepting what both refuse, or reading it in another way, is not.
"""

from typing import Any


def test_what_reaches_the_upstream_is_what_was_meant(case: Any, outcome: Any) -> None:
    expected = case.expected()
    assert outcome.ours == expected
    assert outcome.statuses[: len(expected)] == [200] * len(expected)
    refused = outcome.statuses[len(expected) :]
    assert len(refused) <= 1
    if not expected:
        assert refused, "it was neither served nor refused"
    if refused:
        assert refused[0] in (400, 417, 501, 505)
        assert outcome.closed


def test_nobody_reads_it_in_another_way(case: Any, outcome: Any) -> None:
    """As far as both read on, they read the same; and somebody else reads each request that we serve."""
    others = [outcome.nginx, outcome.h11]
    for other in others:
        both = min(len(other), len(outcome.ours))
        assert other[:both] == outcome.ours[:both]
    assert len(outcome.ours) <= max(len(other) for other in others)


def test_the_corpus_reaches_all_three(cases: Any, outcomes: Any) -> None:
    """The comparison would be empty if the others refused everything, or served everything."""
    assert len(cases) >= 80
    for reader in ("ours", "nginx", "h11"):
        served = sum(bool(getattr(outcome, reader)) for outcome in outcomes.values())
        assert 30 <= served <= len(cases) - 30
