"""What an engine's answers, and its silence, are taken for."""

import asyncio

import docker.errors
import pytest
import requests

from ds01_spawner import engine
from ds01_spawner.errors import Refused


def api_error(status):
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("", response)


class Answers:
    """Gives prepared answers, one after the other, and keeps what was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def __call__(self, method, *args, **kwargs):
        self.asked.append(method)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (requests.exceptions.ConnectionError(), True),
        (requests.exceptions.ReadTimeout(), True),
        (docker.errors.DockerException("no version"), True),
        (api_error(500), True),
        (api_error(409), False),
        (api_error(404), False),
        (ValueError(), False),
    ],
)
def test_silence_is_not_an_answer(error, silent):
    assert engine.is_silent(error) is silent


async def test_only_a_clear_no_means_that_there_is_no_container():
    assert await engine.inspect(Answers(docker.errors.NotFound("no")), "c") is None
    with pytest.raises(docker.errors.APIError):
        await engine.inspect(Answers(api_error(500)), "c")


def container(start, status="created"):
    return {"Id": "c1", "Config": {"Labels": {"ds01.start": start}}, "State": {"Status": status}}


async def test_a_create_whose_answer_was_lost_is_found_again():
    lost = requests.exceptions.ReadTimeout()
    call = Answers(lost, api_error(409), requests.exceptions.ConnectionError(), container("n1"))
    assert await engine.create(call, "name", {}, "n1") == "c1"


async def test_a_create_that_is_still_under_way_is_waited_for():
    # The engine has the name already, and nothing to show for it yet.
    under_way = [api_error(409), docker.errors.NotFound("not yet")]
    call = Answers(*under_way, *under_way, api_error(409), container("n1"))
    assert await engine.create(call, "name", {}, "n1") == "c1"


async def test_a_create_does_not_wait_for_a_container_that_is_going_as_others_wait_for_it():
    call = Answers(api_error(409), container("old", "removing"))
    with pytest.raises(Refused, match="still being removed") as refused:
        await engine.create(call, "name", {}, "n1")
    assert refused.value.status_code == 503


async def test_a_container_that_is_going_is_waited_for_until_it_is_gone(monkeypatch):
    going, gone = container("old", "removing"), docker.errors.NotFound("no")
    await engine.wait_until_gone(Answers(going, going, gone), "name")

    monkeypatch.setattr(engine, "PATIENCE_S", 0.0)
    with pytest.raises(Refused, match="still being removed"):
        await engine.wait_until_gone(Answers(going, going), "name")


async def test_an_engine_that_says_no_is_not_asked_again():
    call = Answers(api_error(500))
    with pytest.raises(docker.errors.APIError):
        await engine.create(call, "name", {}, "n1")
    assert call.asked == ["create_container_from_config"]


async def test_a_name_that_is_taken_is_explained():
    with pytest.raises(Refused, match="removed or renamed") as refused:
        await engine.create(Answers(api_error(409), container("other")), "name", {}, "n1")
    assert refused.value.status_code == 409


@pytest.mark.parametrize("answer", [None, docker.errors.NotFound("gone"), api_error(409)])
async def test_removing_what_is_gone_or_going_is_fine(answer):
    call = Answers(answer)
    await engine.remove(call, "c")
    assert call.asked == ["remove_container"]


async def test_stopping_waits_for_an_engine_that_restarts():
    ended = {"State": {"Running": False}}
    call = Answers(requests.exceptions.ConnectionError(), None, api_error(500), ended)
    await engine.stop(call, "c", 10)
    assert call.asked == ["kill", "kill", "inspect_container", "inspect_container"]


async def test_a_container_that_will_not_end_is_killed():
    runs, ended = {"State": {"Running": True}}, {"State": {"Running": False}}
    call = Answers(None, runs, None, runs, ended)
    await engine.stop(call, "c", 0.1)
    assert call.asked.count("kill") == 2


@pytest.mark.parametrize("answer", [docker.errors.NotFound("gone"), api_error(409)])
async def test_stopping_what_has_ended_is_fine(answer):
    if isinstance(answer, docker.errors.NotFound):
        answer.response = api_error(404).response
    await engine.stop(Answers(answer), "c", 10)


async def test_removing_goes_on_in_the_background_when_the_engine_stays_silent(monkeypatch):
    monkeypatch.setattr(engine.patiently, "__defaults__", (0.0,))
    call = Answers(requests.exceptions.ConnectionError(), requests.exceptions.ReadTimeout(), None)
    with pytest.raises(requests.exceptions.ConnectionError):
        await engine.remove(call, "c")
    (later,) = engine._removals
    await asyncio.wait_for(later, 10)
    assert len(call.asked) == 3


async def test_removing_waits_for_an_engine_that_restarts():
    call = Answers(requests.exceptions.ConnectionError(), api_error(500), None)
    await engine.remove(call, "c")
    assert len(call.asked) == 3
