"""When a device may be free again."""

from datetime import datetime, timedelta, timezone

from ds01_spawner.admission.forecast import expected_wait, in_words, outlook, use_of

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOURS = [timedelta(hours=h) for h in (1, 2, 3, 4, 5, 6, 7)]


def since(hours):
    return NOW - timedelta(hours=hours)


def test_a_new_server_is_expected_to_last_as_long_as_most():
    assert expected_wait([NOW], HOURS, NOW) == timedelta(hours=4)


def test_an_old_server_is_compared_with_those_that_lasted_as_long():
    # Of 3, 4, 5, 6 and 7 hours the middle is 5.
    assert expected_wait([since(2.5)], HOURS, NOW) == timedelta(hours=2.5)


def test_the_first_of_several_decides_and_the_second_for_two():
    held = [NOW, since(2.5)]

    assert expected_wait(held, HOURS, NOW, 1) == timedelta(hours=2.5)
    assert expected_wait(held, HOURS, NOW, 2) == timedelta(hours=4)


def test_little_is_known_so_nothing_is_said():
    assert expected_wait([NOW], HOURS[:4], NOW) is None
    assert expected_wait([since(6.5)], HOURS, NOW) is None
    assert expected_wait([None], HOURS, NOW) is None
    assert expected_wait([], HOURS, NOW) is None


def test_the_outlook_says_when_or_how_long_it_has_lasted_already():
    assert "about 4 hours" in outlook([NOW], HOURS, NOW)
    assert "longest of them has lasted about 3 hours" in outlook([since(3), since(1)], [], NOW)
    assert "longest of them has lasted about 3 hours" in outlook([since(3), None], [], NOW)
    assert "it has lasted about 3 hours" in outlook([since(3)], [], NOW)
    assert outlook([None], [], NOW) == ""


def test_a_guess_is_rounded_to_what_it_is_worth():
    assert in_words(timedelta(minutes=4)) == "a few minutes"
    assert in_words(timedelta(minutes=43)) == "about 40 minutes"
    assert in_words(timedelta(hours=2.6)) == "about 3 hours"
    assert in_words(timedelta(days=2)) == "about 2 days"


def inspected(size="3g.40gb", started="2026-03-01T10:00:00.123456789Z"):
    return {
        "Config": {"Labels": {"ds01.gpu.size": size}},
        "State": {"StartedAt": started, "FinishedAt": "2026-03-01T12:30:00.9Z"},
    }


def test_a_use_is_read_from_the_container():
    assert use_of(inspected()) == ("3g.40gb", timedelta(hours=2.5))


def test_a_server_without_a_gpu_or_that_never_ran_is_no_use():
    assert use_of(inspected(size="")) is None
    assert use_of(inspected(started="0001-01-01T00:00:00Z")) is None
