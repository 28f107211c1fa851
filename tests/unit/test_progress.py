"""Every viewer of a start sees all of it."""

import asyncio

from ds01_spawner.progress import StartLog


async def collect(log):
    return [event["message"] async for event in log.watch()]


async def test_a_late_viewer_sees_the_start_from_the_beginning():
    log = StartLog()
    log.say(1, "one")
    early = asyncio.ensure_future(collect(log))
    await asyncio.sleep(0)
    log.say(2, "two")
    late = asyncio.ensure_future(collect(log))
    await asyncio.sleep(0)
    log.say(3, "three")
    log.end()
    assert await asyncio.wait_for(early, 5) == ["one", "two", "three"]
    assert await asyncio.wait_for(late, 5) == ["one", "two", "three"]


async def test_megabytes_replace_each_other_for_late_viewers_and_pass_by_for_early_ones():
    log = StartLog()
    early = asyncio.ensure_future(collect(log))
    for megabytes in ("1 MB", "2 MB", "3 MB"):
        await asyncio.sleep(0)
        log.say(10, megabytes, step="pull")
        await asyncio.sleep(0)
    log.say(60, "Creating")
    log.end()
    assert await asyncio.wait_for(collect(log), 5) == ["3 MB", "Creating"]
    assert await asyncio.wait_for(early, 5) == ["1 MB", "2 MB", "3 MB", "Creating"]


async def test_a_viewer_after_the_end_is_not_left_waiting():
    log = StartLog()
    log.say(1, "one")
    log.end()
    log.end()
    assert await asyncio.wait_for(collect(log), 5) == ["one"]


async def test_a_slow_viewer_misses_nothing():
    log = StartLog()
    log.say(1, "one")
    seen = []
    async for event in log.watch():
        seen.append(event["message"])
        if event["message"] == "one":
            for number, message in enumerate(("two", "three", "four"), 2):
                log.say(number, message)
            log.end()
    assert seen == ["one", "two", "three", "four"]
