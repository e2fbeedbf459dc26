"""What the run of the kit makes of its report. The kit itself: `make rck`."""

from rck.run import outcomes_of, verdict

REPORT = """<?xml version="1.0"?>
<testsuite>
  <testcase name="good()" classname="K"/>
  <testcase name="bad()" classname="K"><failure message="no
 such thing"/><system-out>x</system-out></testcase>
  <testcase name="broken()" classname="K"><error message="no"/></testcase>
  <testcase name="other()" classname="K"><skipped>assumption</skipped></testcase>
</testsuite>"""
OUTCOMES = {"good": "passed", "bad": "failed", "broken": "failed", "other": "not applicable"}


def test_outcomes() -> None:
    found = outcomes_of(REPORT)
    assert {name: outcome for name, (outcome, _) in found.items()} == OUTCOMES
    assert (found["bad"], found["other"]) == (("failed", "no such thing"), ("not applicable", "assumption"))


def test_the_list_of_what_passes_only_grows() -> None:
    assert verdict(OUTCOMES, {"bad": "why", "broken": "why"}) == []
    assert verdict(OUTCOMES, {"bad": "why"}) == ["broken failed, and is not in known_failures.toml"]
    assert verdict(OUTCOMES, {"bad": "why", "broken": "why", "good": "why", "gone": "why"}) == [
        "good passes: take it off known_failures.toml",
        "gone of known_failures.toml is no test of the kit",
    ]
