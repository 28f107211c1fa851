"""One gate for the form, REST and stored options."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.errors import Refused
from ds01_spawner.options import SpawnOptions, parse_options, read_form
from ds01_spawner.policy import GIB

from .machine import FIRST, SECOND, WHOLE


def refusal(raw, choices):
    with pytest.raises(Refused) as caught:
        parse_options(raw, choices)
    return caught.value


def test_nothing_asked_gets_the_first_image_and_a_modest_share(choices):
    options = parse_options({}, choices)
    assert (options.image, options.cpus, options.memory) == ("python", 4.0, 8 * GIB)
    assert options.safe_start is False


def test_form_text_and_rest_numbers_are_the_same_request(choices):
    form = read_form({"image": ["datascience"], "cpus": ["2"], "memory": ["4g"]})
    rest = {"image": "datascience", "cpus": 2, "memory": 4 * GIB}
    assert parse_options(form, choices) == parse_options(rest, choices)


def test_safe_start_is_for_once(choices):
    stored = parse_options({"safe_start": True}, choices).stored()
    assert stored["profile"].endswith("safe start")
    assert parse_options(stored, choices).safe_start is False


def test_stored_options_pass_again_and_a_forged_profile_is_not_believed(choices):
    stored = parse_options({"cpus": 2}, choices).stored()
    assert stored["profile"] == "python · 2 CPU · 8 GiB"
    forged = {**stored, "profile": "root · everything"}
    assert parse_options(forged, choices).stored() == stored


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        ({"image": "windows"}, 400, "no image 'windows'"),
        ({"image": "ds01/python:3.11"}, 400, "Choose one of: python, datascience"),
        ({"image": ["python"]}, 400, "image"),
        ({"image": "x" * 300}, 400, "image"),
        ({"memory": "17g"}, 403, "16 GiB"),
        ({"gpu": "fast"}, 400, 'Write "full" for a whole GPU'),
        ({"gpu": ["full"]}, 400, "gpu"),
        ({"gpu": "full", "gpu_count": 0}, 400, "gpu_count"),
        ({"gpu": "full", "gpu_count": 1.5}, 400, "gpu_count"),
        ({"gpu": "3g.40gb", "gpu_count": 2}, 403, "limit of 1 per server"),
        ({"memory": 1}, 400, "memory"),
        ({"memory": "lots"}, 400, "8g"),
        ({"memory": -5}, 400, "memory"),
        ({"memory": True}, 400, "memory"),
        ({"memory": {"bytes": 1}}, 400, "memory"),
        ({"cpus": 9}, 403, "8 per server"),
        ({"cpus": -1}, 400, "cpus"),
        ({"cpus": "NaN"}, 400, "cpus"),
        ({"cpus": "inf"}, 400, "cpus"),
        ({"cpus": None}, 400, "cpus"),
        ({"volumes": {"/": "/host"}}, 400, "no option 'volumes'"),
        ({"safe_start": "perhaps"}, 400, "safe_start"),
    ],
)
def test_bad_requests_are_explained(raw, status, words, choices):
    refused = refusal(raw, choices)
    assert refused.status_code == status
    assert words in refused.jupyterhub_message


@pytest.mark.parametrize(
    "body",
    [
        {f"key-{n}": n for n in range(200_000)},
        {"x" * 1_000_000: 1},
        {"\x1b[2J\u202e": 1},
        dict.fromkeys(SpawnOptions.model_fields, ("x" * 100_000,)),
        dict.fromkeys(SpawnOptions.model_fields, "9" * 100_000),
        dict.fromkeys(SpawnOptions.model_fields, 10**4000),
    ],
)
def test_whatever_is_sent_is_answered_at_once_and_in_a_few_printable_words(body, choices):
    start = time.thread_time()
    message = refusal(body, choices).jupyterhub_message
    assert time.thread_time() - start < 0.5
    assert len(message) <= 500
    assert message.isprintable()


def test_a_field_that_the_form_does_not_have_is_refused_as_in_rest():
    form = {f"field-{n}": ["1"] for n in range(200_000)}
    with pytest.raises(Refused, match="'field-0' or 'field-1' or 'field-2'; the") as caught:
        read_form({"image": ["python"], "_xsrf": ["x"], **form})
    assert len(caught.value.jupyterhub_message) < 300


def test_no_explanation_ends_in_two_full_stops(choices):
    for raw in ({"gpu": "fast"}, {"gpu": "full@"}, {"memory": "lots"}, {"cpus": -1}):
        assert not refusal(raw, choices).jupyterhub_message.endswith("..")


@given(
    st.dictionaries(
        st.sampled_from(["image", "cpus", "memory", "safe_start", "x", "profile"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_any_body_is_either_within_the_limits_or_refused(raw):
    choices = _choices()
    try:
        options = parse_options(raw, choices)
    except Refused as error:
        refused = error
    else:
        assert 0.25 <= options.cpus <= choices.limits.cpus
        assert GIB // 2 <= options.memory <= choices.limits.memory_bytes
        return
    assert refused.status_code in (400, 403)
    assert refused.jupyterhub_message


def _choices():
    """Return choices without fixtures, which hypothesis would share between examples."""
    import tempfile
    from pathlib import Path

    from ds01_spawner.images.catalogue import Catalogue
    from ds01_spawner.options import Choices
    from ds01_spawner.policy import Limits

    from .conftest import CATALOGUE

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalogue.yaml"
        file.write_text(CATALOGUE)
        catalogue = Catalogue.load(file)
    return Choices(catalogue, Limits(8, 16 * GIB, 16 * GIB, GIB, 512))


def test_a_field_that_comes_twice_is_refused():
    with pytest.raises(Refused, match="must come once"):
        read_form({"image": ["python", "datascience"]})


def test_an_uploaded_file_is_not_an_option():
    with pytest.raises(Refused):
        read_form({"image_file": [{"filename": "x", "body": b""}]})


def test_a_gpu_is_asked_for_by_its_size(choices):
    assert parse_options({}, choices).gpus is None
    assert parse_options({"gpu": "None"}, choices).gpus is None
    asked = parse_options({"gpu": "3g.40gb@A100"}, choices).gpus
    assert (asked.count, asked.profile, asked.model) == (1, "3g.40gb", "A100")


def test_the_hubs_profile_column_names_the_gpus(choices):
    def profile(**options):
        larger = replace(choices, limits=replace(choices.limits, gpus_per_server=8))
        larger = replace(larger, limits=replace(larger.limits, gpu_equivalents=None))
        return parse_options(options, larger).profile()

    assert profile(gpu="3g.40gb").endswith("8 GiB · 3g.40gb")
    assert profile(gpu="full", gpu_count=2).endswith("· 2 × GPU")
    assert profile().endswith("8 GiB")


def test_the_profile_says_what_was_given_where_that_is_not_what_was_asked_for(choices):
    def profile(gpu, *granted, count=1):
        larger = replace(choices, limits=replace(choices.limits, gpus_per_server=4))
        options = parse_options({"gpu": gpu, "gpu_count": count}, larger)
        return options.profile(granted).rpartition(" · ")[2]

    assert profile("2g.20gb", FIRST) == "2g.20gb"
    assert profile("1g.10gb", FIRST) == "2g.20gb (for 1g.10gb)"
    assert profile("1g.10gb", FIRST, SECOND, count=2) == "2 × 2g.20gb (for 2 × 1g.10gb)"
    assert profile(">=10g", WHOLE) == "GPU (for >=10g)"
    assert profile("full@A100", WHOLE) == "GPU@A100"
