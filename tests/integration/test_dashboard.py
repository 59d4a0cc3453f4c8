"""The deployed metric filters and the dashboard, after a real run."""

from __future__ import annotations

import json
from pathlib import Path

from support.commands import mledgeops
from support.waiting import until

from pipelines.aws import metrics
from pipelines.local.cloud import LocalCloud


def test_the_deployed_filters_and_dashboard_show_a_real_run(
    report: dict, home: Path, cloud: LocalCloud
) -> None:
    def shown() -> dict:
        return json.loads(mledgeops("dashboard", "--json", home=home).stdout)

    drawn = until(
        lambda: (
            (d := shown())
            and sum(d["graphs"]["Rounds finished"].get("Rounds digits", []))
            >= len(report["rounds"])
            and sum(d["graphs"]["Runs"]["RunsSucceeded"])
            and d
        )
    )
    assert drawn["graphs"]["Loss (the judged metric)"]["Loss digits"]
    assert min(drawn["graphs"]["Estimated cost"]["EstimatedCost digits"]) > 0
    assert set(drawn["alarms"]) == {f"mledgeops-{alarm.name}" for alarm in metrics.ALARMS}
    page = Path(drawn["page"]).read_text()
    assert page.count("<svg") == len(metrics.WIDGETS)
    assert "http-equiv" not in page
    assert "<script" not in page
