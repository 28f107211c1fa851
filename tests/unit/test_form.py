"""The start form: what it offers is what the gate takes, whatever was chosen before."""

import re
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.admission.offers import Offer
from ds01_spawner.endings import Cause, Ending
from ds01_spawner.form import GpuChoices, ImageChoice, OwnImage, render_form
from ds01_spawner.images.catalogue import Catalogue, CatalogueImage
from ds01_spawner.options import Choices, parse_options, read_form
from ds01_spawner.policy import GIB, Folder, Limits

from .pages import Page

HOSTILE = "<script>alert(1)</script>"


def form(choices, previous=None, *, size_bytes=1000, **more):
    images = [ImageChoice(image, size_bytes) for image in choices.catalogue]
    more = {"project": "thesis", **more}
    return Page(render_form(images, choices, previous or {}, **more))


def submitted(page):
    """Return the fields as a browser would send them."""
    names = {control.attributes["name"] for control in page.controls}
    return {name: page.chosen(name) for name in names if page.chosen(name)}


def test_the_untouched_form_is_a_request_that_the_gate_takes(choices):
    options = parse_options(read_form(submitted(form(choices))), choices)
    assert options == parse_options({}, choices)


def test_every_offered_value_is_within_the_limits(choices):
    page = form(choices)
    for name in ("image", "cpus", "memory"):
        for control in page.named(name):
            parse_options({name: control.value}, choices)


def test_every_control_has_words_of_its_own_and_every_choice_a_legend(choices):
    page = form(choices)
    assert page.controls
    for control in page.controls:
        assert control.label, control
        if control.attributes["type"] == "radio":
            assert control.legend in ("Image", "CPUs", "Memory")
    labels = [(control.legend, control.label) for control in page.controls]
    assert len(set(labels)) == len(labels)


def test_what_was_chosen_before_is_chosen_again(choices):
    before = {"image": "datascience", "cpus": 2, "memory": 2 * GIB, "safe_start": True}
    page = form(choices, before)
    assert page.chosen("image") == ["datascience"]
    assert page.chosen("cpus") == ["2"]
    assert page.chosen("memory") == [str(2 * GIB)]
    assert page.chosen("safe_start") == ["true"]
    assert ("details", {"id": "advanced", "class": "mt-3", "open": None}) in page.elements


def test_a_size_between_the_steps_is_kept(choices):
    page = form(choices, {"cpus": "3", "memory": "3g"})
    assert page.chosen("cpus") == ["3"]
    assert page.chosen("memory") == [str(3 * GIB)]


def test_a_size_above_a_limit_that_was_lowered_becomes_the_limit(choices, limits):
    page = form(choices, {"cpus": 64, "memory": "900g"})
    assert page.chosen("cpus") == [str(int(limits.cpus))]
    assert page.chosen("memory") == [str(limits.memory_bytes)]


@given(
    st.dictionaries(
        st.sampled_from(["image", "cpus", "memory", "safe_start", "profile"]),
        st.one_of(
            st.none(), st.text(), st.integers(), st.floats(), st.lists(st.text(), max_size=2)
        ),
    )
)
def test_an_impossible_stored_choice_leaves_a_form_that_can_be_sent(previous):
    choices = small_choices()
    page = form(choices, previous)
    parse_options(read_form(submitted(page)), choices)


def small_choices():
    """Return choices of a machine on which even the modest share is too much."""
    limits = Limits(
        cpus=1.5,
        memory_bytes=3 * GIB,
        memory_swap_bytes=3 * GIB,
        shm_bytes=GIB,
        pids=64,
    )
    return Choices(Catalogue([image(name="only")]), limits)


def image(**fields):
    return CatalogueImage(
        **{
            "name": "python",
            "image": "ds01/python:3.11",
            "framework": "Python",
            "version": "3.11",
            "description": "Python.",
            **fields,
        }
    )


def test_texts_of_the_catalogue_and_the_project_are_text_and_not_html(choices):
    hostile = image(description=HOSTILE, framework=HOSTILE, version=HOSTILE, contents=(HOSTILE,))
    ending = Ending("alice", "thesis", Cause.EXITED, HOSTILE, datetime.now(timezone.utc))
    html = render_form(
        [ImageChoice(hostile, None)], choices, {"image": HOSTILE}, project=HOSTILE, ending=ending
    )
    page = Page(html)
    assert not page.has("script")
    assert page.text.count(HOSTILE) == 7


def test_an_image_that_is_not_here_says_so(choices):
    assert "Ready here, 1000 B" in form(choices).text
    assert "Will be fetched first" in form(choices, size_bytes=None).text


def test_nothing_is_said_of_an_image_that_the_engine_did_not_speak_of(choices):
    unknown = [ImageChoice(image(), None, known=False)]
    text = Page(render_form(unknown, choices, {}, project="thesis")).text
    assert "Size not known at the moment" in text
    assert "Will be fetched first" not in text
    assert "Ready here" not in text


def test_the_form_says_which_limits_hold_and_where_the_files_are(choices):
    text = form(choices).text
    assert "8 CPUs, 16 GiB of memory, 512 processes and threads." in text
    assert "/dev/shm is as large as the memory, at most 4 GiB." in text
    assert "Start project thesis" in text
    assert "/workspace" in text


def test_the_form_says_how_the_last_server_ended(choices):
    at = datetime(2026, 3, 1, 12, 30, tzinfo=timezone.utc)
    ending = Ending("alice", "thesis", Cause.OUT_OF_MEMORY, "Memory ran out.", at)
    page = form(choices, ending=ending)
    assert "Memory ran out. (2026-03-01 12:30 UTC)" in page.text
    assert ("time", {"datetime": "2026-03-01T12:30:00+00:00"}) in page.elements


@pytest.mark.parametrize(
    ("viewer", "told"),
    [(None, "by you."), ("alice", "by you."), ("admin", "by the owner.")],
)
def test_whoever_looks_is_told_who_stopped_it(choices, viewer, told):
    ending = Ending("alice", "thesis", Cause.STOPPED, "Stopped by you.", datetime.now(timezone.utc))
    assert f"Stopped {told}" in form(choices, ending=ending, viewer=viewer).text


@pytest.mark.parametrize(
    ("fields", "picture"),
    [
        ({}, "prompt"),
        ({"contents": ("pandas",)}, "chart"),
        ({"contents": ("pandas",), "cuda": "12.4"}, "network"),
        ({"framework": "R"}, "layers"),
    ],
)
def test_an_image_gets_the_picture_of_what_it_is_for(fields, picture, choices):
    choice = ImageChoice(image(**fields), None)
    assert choice.picture == picture
    html = render_form([choice], choices, {}, project="thesis")
    assert f'class="ds01-picture ds01-picture-{picture}"' in html


GPUS = GpuChoices(
    (Offer("3g.40gb", "3g.40gb", 2, 4, 3 / 7), Offer("full", "A100 80 GB", 0, 2)), largest_count=2
)


def test_gpus_are_offered_with_how_many_are_free(choices):
    page = form(choices, gpus=GPUS)

    offered = {control.value: control.label for control in page.named("gpu")}
    assert list(offered) == ["none", "3g.40gb", "full"]
    assert offered["3g.40gb"] == "3g.40gb 0.43 of a GPU, 2 of 4 free"
    assert offered["full"] == "A100 80 GB whole GPU, 0 of 2 free"
    assert page.chosen("gpu") == ["none"]


def test_what_would_be_refused_now_looks_so_and_can_be_chosen(choices):
    images = [ImageChoice(image, 1000) for image in choices.catalogue]
    html = render_form(images, choices, {}, project="thesis", gpus=replace(GPUS, used="b (0.43)"))

    assert re.findall(r'class="ds01-taken">([^<]+)', html) == ["A100 80 GB "]
    assert "They have now: b (0.43)." in Page(html).text
    assert "They have now" not in form(choices, gpus=GPUS).text


def test_every_gpu_that_is_offered_is_a_request_that_the_gate_takes(choices):
    larger = replace(choices, limits=replace(choices.limits, gpus_per_server=2))
    page = form(larger, gpus=GPUS)

    for control in page.named("gpu"):
        parse_options({"gpu": control.value}, larger)
    for control in page.named("gpu_count"):
        parse_options({"gpu": "3g.40gb", "gpu_count": control.value}, larger)


def test_a_gpu_chosen_before_is_chosen_again_as_far_as_it_exists(choices):
    assert form(choices, {"gpu": "full", "gpu_count": 2}, gpus=GPUS).chosen("gpu") == ["full"]
    assert form(choices, {"gpu": "full", "gpu_count": 2}, gpus=GPUS).chosen("gpu_count") == ["2"]
    assert form(choices, {"gpu": ">=20g"}, gpus=GPUS).chosen("gpu") == [">=20g"]
    assert form(choices, {"gpu": "7g.80gb"}, gpus=GPUS).chosen("gpu") == ["none"]
    assert form(choices, {"gpu": ["x"], "gpu_count": "y"}, gpus=GPUS).chosen("gpu") == ["none"]


def test_the_number_of_gpus_is_asked_only_where_there_is_a_choice(choices):
    one = replace(GPUS, largest_count=1)

    assert len(form(choices, gpus=GPUS).named("gpu_count")) == 2
    assert not form(choices, gpus=one).named("gpu_count")


def test_without_a_gpu_the_form_says_why(choices):
    page = form(choices, gpus=GpuChoices(problem="The GPUs are out."))

    assert "The GPUs are out." in page.text
    assert not page.named("gpu")
    assert "no GPU on this server" in form(choices).text


def test_shared_folders_are_listed_and_one_that_is_missing_is_said_to_be(choices):
    folders = (
        Folder(name="imagenet", path="/srv/imagenet", mode="ro", groups=("*",)),
        Folder(name="team", path="/srv/team", mode="rw", groups=("staff",)),
    )
    page = form(replace(choices, folders=folders), missing_folders={"team"})

    assert "/data/imagenet to read /shared/team to read and write, not available" in page.text


def test_somebody_with_all_the_servers_that_they_may_have_is_told_first(choices):
    page = form(choices, refusal="You have 3 of at most 3 servers.")

    assert page.text.index("You have 3 of at most 3") < page.text.index("Image")


def test_an_image_that_cannot_start_is_shown_with_why_and_is_never_chosen(choices):
    name = "ds01-alice/vision"
    images = [ImageChoice(OwnImage.missing(name, f"Line 2: {HOSTILE}"), None)]
    images += [ImageChoice(image, 1000) for image in choices.catalogue]
    html = render_form(images, choices, {"image": name}, project="thesis", images_url="/images")
    page = Page(html)

    assert f"Line 2: {HOSTILE}" in page.text
    assert HOSTILE not in html
    assert page.chosen("image") != [name]
    (button,) = [control for control in page.named("image") if control.value == name]
    assert "disabled" in button.attributes
    assert f"The image {name} that you chose the last time is not here any more" in page.text


def test_only_a_long_list_of_images_is_searched(choices):
    bases = [ImageChoice(image, 1000) for image in choices.catalogue]
    many = [ImageChoice(OwnImage(f"ds01-a/p{n}", "", "", ""), 1) for n in range(9)]

    assert "image-search" not in render_form(bases, choices, {}, project="thesis")
    assert "image-search" in render_form([*many, *bases], choices, {}, project="thesis")
