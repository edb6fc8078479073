"""Reading jobs."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwpool.errors import InvalidJob
from bwpool.job import Job, parse_job, subject_matches

STORED = ("IMAGES.>",)


def payload(**fields):
    return orjson.dumps({"id": "a", "image": "file:///a.jpg"} | fields)


def test_the_seeds_job_is_read():
    """A job of the seed's form, unknown fields ignored."""
    job = parse_job(payload(id="5e91", advisory="advisory.5e91", colour="none"), STORED)

    assert Job("5e91", "file:///a.jpg", "advisory.5e91") == job


def test_optional_fields_are_read():
    """Method, format and quality may be asked for; an empty advisory is none."""
    job = parse_job(payload(method="otsu", format="png", quality=9, advisory=""))

    assert Job("a", "file:///a.jpg", None, "otsu", "png", 9) == job


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"nonsense", b"[]", b"null", b'"x"', b"\xff", b'{"id":"a"}']
)
def test_what_is_no_job_is_refused(data):
    """Anything but an object with an id and an image."""
    with pytest.raises(InvalidJob):
        parse_job(data)


@pytest.mark.parametrize(
    "job_id",
    [
        "../../etc/x",
        "/etc/x",
        "a/../b",
        "a//b",
        "a/",
        ".hidden",
        "a/.hidden",
        "..",
        "a\\b",
        "a\nb",
        "a\0b",
        "\u202e",
        "a" * 201,
        7,
        "",
        None,
    ],
)
def test_ids_that_leave_the_output_folder_are_refused(job_id):
    """An id is a relative path of plain segments."""
    with pytest.raises(InvalidJob, match="id"):
        parse_job(payload(id=job_id))


@pytest.mark.parametrize(
    "job_id", ["a", "a/b/c", "ü ñ/日本", "a.b..c", "-x", "a" * 200]
)
def test_ids_that_name_a_place_are_taken(job_id):
    """Folders, spaces, Unicode and dots inside are fine."""
    assert job_id == parse_job(payload(id=job_id)).id


@pytest.mark.parametrize(
    "advisory",
    [
        "$JS.API.STREAM.DELETE.IMAGES",
        "$SYS.x",
        "bwpool.failures.IMAGES.BW.1",
        "bwpool",
        "_R_.abc.def",
        "_R_",
        "_GR_.abc.def",
        "IMAGES.blackandwhite",
        "IMAGES.x.y",
        "a.*",
        "a.>",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a\tb",
        "a" * 256,
        7,
        ["a"],
    ],
)
def test_advisories_that_could_do_harm_are_refused(advisory):
    """No system subjects, no wildcards, nothing that becomes a job again."""
    with pytest.raises(InvalidJob, match="advisory"):
        parse_job(payload(advisory=advisory), STORED)


def test_the_inbox_of_whoever_submits_may_be_told():
    """A submitter that waits is told in its inbox."""
    job = parse_job(payload(advisory="_INBOX.a.b"), STORED)

    assert job.advisory == "_INBOX.a.b"


@pytest.mark.parametrize("advisory", ["told", "told.a.b", "x.y", "x.y.z"])
def test_advisories_below_a_prefix_are_taken(advisory):
    """The prefix itself, and what follows it after a dot."""
    job = parse_job(payload(advisory=advisory), STORED, ("told", "x.y"))

    assert advisory == job.advisory


@pytest.mark.parametrize("advisory", ["tolder", "x", "x.yz", "_INBOX.a", "other.told"])
def test_advisories_below_no_prefix_are_refused(advisory):
    """Whatever else would be allowed."""
    with pytest.raises(InvalidJob, match="advisory"):
        parse_job(payload(advisory=advisory), STORED, ("told", "x.y"))


def test_jobs_without_advisory_need_no_prefix():
    """None and the empty string tell nobody."""
    assert parse_job(payload(advisory=""), STORED, ("told",)).advisory is None
    assert parse_job(payload(), STORED, ("told",)).advisory is None


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "magic"},
        {"method": 1},
        {"format": "gif"},
        {"quality": 0},
        {"quality": 101},
        {"quality": "75"},
        {"quality": True},
        {"image": 1},
    ],
)
def test_wrong_fields_are_refused(fields):
    """The field is named."""
    with pytest.raises(InvalidJob, match=next(iter(fields))):
        parse_job(payload(**fields))


@given(st.binary(max_size=512))
def test_arbitrary_bytes_are_a_job_or_invalid(data):
    """Nothing but InvalidJob is ever raised."""
    with contextlib.suppress(InvalidJob):
        parse_job(data, STORED)


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists))
def test_arbitrary_fields_are_a_job_or_invalid(value):
    """Whatever JSON puts into the fields."""
    for name in ("id", "image", "advisory", "method", "format", "quality"):
        fields = {"id": "a", "image": "file:///a"} | {name: value}
        try:
            data = orjson.dumps(fields)
        except orjson.JSONEncodeError:  # more than JSON in 64 bits can hold
            continue
        with contextlib.suppress(InvalidJob):
            parse_job(data, STORED)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("IMAGES.>", "IMAGES.a", True),
        ("IMAGES.>", "IMAGES.a.b", True),
        ("IMAGES.>", "IMAGES", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.c.d", False),
        ("a.*", "a", False),
        (">", "x", True),
        ("a", "a", True),
        ("a", "ab", False),
    ],
)
def test_subjects_match_as_in_nats(pattern, subject, expected):
    """`*` is one token, `>` is one or more."""
    assert expected is subject_matches(pattern, subject)
