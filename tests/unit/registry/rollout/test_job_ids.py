"""Job ids are unique and within AWS's limit, whatever fleets and devices are called."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from registry.rollout.job_ids import ID_LIMIT, JobIds

AWS = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)
PREFIXES = st.from_regex(r"[a-z][a-z0-9-]{0,34}", fullmatch=True)
NUMBERS = st.integers(1, 10**8 - 1)
WAVES = st.tuples(st.just("wave"), NAMES, NUMBERS, st.sampled_from(["w0", "w10", "back"]), NUMBERS)
DEVICES = st.tuples(st.just("device"), NAMES, NUMBERS, NAMES)
# Long names that share their beginnings, as in a company's naming scheme.
TWINS = st.tuples(st.just("wave"), NAMES.map(lambda n: "f" * 40 + n[:20]), NUMBERS, st.just("w0"))
ALL = WAVES | DEVICES | TWINS.map(lambda one: (*one, 0))


def made(ids: JobIds, of: tuple) -> str:  # type: ignore[type-arg]
    kind, *what = of
    return ids.wave(*what) if kind == "wave" else ids.stale_device(*what)


@given(PREFIXES, st.lists(ALL, unique=True, max_size=30))
def test_ids_are_unique_and_valid(prefix: str, jobs: list) -> None:  # type: ignore[type-arg]
    ids = [made(JobIds(prefix), job) for job in jobs]
    assert len(set(ids)) == len(jobs)
    for job in ids:
        assert AWS.fullmatch(job)
        assert job.startswith(f"{prefix}-"), "roles may create jobs with this prefix only"


def test_fleets_that_share_thirty_characters_do_not_collide() -> None:
    ids, shared = JobIds("mledgeops"), "plant-north-hall-7-line-3-robots"
    assert len(shared) > 30
    assert ids.wave(f"{shared}-a", 1, "w0", 0) != ids.wave(f"{shared}-b", 1, "w0", 0)


def test_an_id_is_the_same_each_time_and_says_what_it_is_for() -> None:
    job = JobIds("mledgeops").wave("f", 12, "w3", 0)
    assert job == JobIds("mledgeops").wave("f", 12, "w3", 0)
    assert job.startswith("mledgeops-12-w3-")
    assert len(JobIds("p" * 60).wave("f", 12, "w3", 0)) == ID_LIMIT
