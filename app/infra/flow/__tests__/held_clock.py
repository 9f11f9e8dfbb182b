"""A clock that stands still until a test lets time pass: whoever sleeps wakes up in the order of the moments it asked for."""

from __future__ import annotations

import asyncio

from .conftest import FakeClock


class HeldClock(FakeClock):
    """Time that passes only when `forward` says so."""

    def __init__(self) -> None:
        super().__init__()
        self._asleep: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds > 0:
            waking = asyncio.get_running_loop().create_future()
            self._asleep.append((self.seconds + seconds, waking))
            await waking

    async def forward(self, seconds: float) -> None:
        """Let so much time pass, moment by moment, and everybody do what they then do."""
        until = self.seconds + seconds
        await settle()
        while True:
            self._asleep = [(moment, waking) for moment, waking in self._asleep if not waking.done()]
            due = min((moment for moment, _ in self._asleep), default=until)
            self.pass_time(min(due, until) - self.seconds)
            for moment, waking in self._asleep:
                if moment <= self.seconds and not waking.done():
                    waking.set_result(None)
            await settle()
            if due >= until:
                return


async def settle() -> None:
    """Let the loop turn until whatever can happen without a thread has happened."""
    for _ in range(50):
        await asyncio.sleep(0)
