"""Slots whose number changes while they are in use."""

import asyncio

from variations.engine.slots import Slots

from .simulation import simulate


async def started(slots: Slots, count: int) -> list[asyncio.Task[None]]:
    """Let so many ask for a slot, one after the other."""
    tasks = [asyncio.create_task(slots.acquire()) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def served(tasks: list[asyncio.Task[None]]) -> list[int]:
    """Return who has one."""
    return [number for number, task in enumerate(tasks) if task.done() and not task.cancelled()]


def test_no_more_are_taken_than_there_are_and_the_first_come_are_served_first() -> None:
    """One that is given back goes to whoever waits longest."""

    async def main() -> None:
        slots = Slots(lambda: 2)
        tasks = await started(slots, 4)
        assert (served(tasks), slots.taken) == ([0, 1], 2)
        slots.release()
        await asyncio.sleep(0)
        assert (served(tasks), slots.taken) == ([0, 1, 2], 2)

    simulate(main())


def test_a_number_that_grows_serves_those_that_wait_and_one_that_shrinks_takes_none_away() -> None:
    """It is looked at whenever a slot is asked for or given back."""

    async def main() -> None:
        size = 1
        slots = Slots(lambda: size)
        tasks = await started(slots, 6)
        size = 4
        slots.release()
        await asyncio.sleep(0)
        assert served(tasks) == [0, 1, 2, 3, 4]
        size = 1
        for _ in range(3):
            slots.release()
        await asyncio.sleep(0)
        assert (served(tasks), slots.taken) == ([0, 1, 2, 3, 4], 1)
        slots.release()
        await asyncio.sleep(0)
        assert (served(tasks), slots.taken) == ([0, 1, 2, 3, 4, 5], 1)

    simulate(main())


def test_who_gives_up_takes_no_slot_even_if_it_was_just_handed_over() -> None:
    """It goes to the next one."""

    async def main() -> None:
        slots = Slots(lambda: 1)
        tasks = await started(slots, 4)
        tasks[1].cancel()
        slots.release()
        # Handed to the third; it is cancelled before it runs.
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (served(tasks), slots.taken) == ([0, 3], 1)

    simulate(main())
