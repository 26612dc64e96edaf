"""What goes wrong, how often, and for how long."""

from __future__ import annotations

from random import Random

from msgspec import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """Faults come for `seconds` of a run; then everybody is well, and everything has to come to its end.

    Rates are for each process and second:

    crashes      it is gone between two of its steps, and started again up to a second later
    stops        it is told to end, as by SIGTERM, and started again
    pauses       it stands still for up to `pause_seconds`, and goes on as if nothing had been
    partitions   it does not reach the store, or its answers do not reach it, for up to `partition_seconds`
    cuts         its connection to the broker is lost, for up to `partition_seconds`

    Probabilities are for each call of the store, and those of messages for each message:

    crash_at_call      the process dies on the way: the store never hears of it, or does the work
    lost_requests      the store never hears of it
    lost_replies       it does the work, and nobody hears of that
    late_requests      it does the work once the caller has given up, and perhaps called again
    twice              it does the work twice, as when a driver sends again
    slow               it takes up to `slow_seconds`
    lost_messages      a message does not arrive, and is not confirmed
    lost_confirms      it arrives, and is not confirmed
    doubled_messages   it arrives twice, the second time up to `late_seconds` after the first
    late_messages      it arrives up to `late_seconds` late: others overtake it
    purges             somebody empties the job queues, once in a run
    """

    seconds: float = 3.0
    crashes: float = 0.0
    stops: float = 0.0
    pauses: float = 0.0
    pause_seconds: float = 3.0
    partitions: float = 0.0
    partition_seconds: float = 3.0
    cuts: float = 0.0
    crash_at_call: float = 0.0
    lost_requests: float = 0.0
    lost_replies: float = 0.0
    late_requests: float = 0.0
    twice: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 1.5
    lost_messages: float = 0.0
    lost_confirms: float = 0.0
    doubled_messages: float = 0.0
    late_messages: float = 0.0
    late_seconds: float = 1.5
    purges: float = 0.0

    @classmethod
    def drawn(cls, random: Random, *, seconds: float = 3.0) -> Faults:
        """A mixture of a seed's own: each kind is left out in some runs, rare in others, frequent in a few."""

        def some(most: float) -> float:
            return 0.0 if random.random() < 0.4 else most * random.random() ** 2

        return cls(
            seconds=seconds * random.uniform(0.5, 1.0),
            pause_seconds=seconds,
            partition_seconds=seconds,
            slow_seconds=seconds / 2,
            late_seconds=seconds / 2,
            crashes=some(0.5),
            stops=some(0.2),
            pauses=some(0.3),
            partitions=some(0.3),
            cuts=some(0.5),
            crash_at_call=some(0.02),
            lost_requests=some(0.1),
            lost_replies=some(0.1),
            late_requests=some(0.05),
            twice=some(0.1),
            slow=some(0.05),
            lost_messages=some(0.2),
            lost_confirms=some(0.2),
            doubled_messages=some(0.3),
            late_messages=some(0.3),
            purges=some(0.5),
        )


NONE = Faults(seconds=0.0)


class Fate(Struct, frozen=True, kw_only=True):
    """Of one call: seconds until it arrives, how often the work is done, seconds until its answer is back (None: it
    never is), and after how many the caller gives up. `dies`: the process does, as the call arrives."""

    there: float
    back: float | None
    times: int = 1
    gives_up: float | None = None
    dies: bool = False


class Weather:
    """Draws what happens. `well`: nothing goes wrong any more."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self.well = faults.seconds <= 0
        self._kinds = (
            faults.crash_at_call, faults.lost_requests, faults.lost_replies, faults.late_requests, faults.twice,
            faults.slow,
        )  # fmt: skip
        self._any = sum(self._kinds)

    def latency(self) -> float:
        """Seconds one way: mostly a millisecond or two, now and then more."""
        return 0.0002 + self._random.random() ** 4 * 0.01

    def patience(self) -> float:
        """Seconds until a client takes silence for a lost connection."""
        return self._random.uniform(0.02, 0.6)

    def of_call(self) -> Fate:
        random = self._random
        there, back = self.latency(), self.latency()
        if self.well or (drawn := random.random()) >= self._any:
            return Fate(there=there, back=back)
        kind = 0
        for probability in self._kinds:
            if drawn < probability:
                break
            drawn -= probability
            kind += 1
        patience = self.patience()
        match kind:
            case 0:
                return Fate(there=there, back=None, times=random.randrange(2), dies=True)
            case 1:
                return Fate(there=there, back=None, times=0, gives_up=patience)
            case 2:
                return Fate(there=there, back=None, gives_up=patience)
            case 3:
                return Fate(there=patience + random.random() * self._faults.slow_seconds, back=None, gives_up=patience)
            case 4:
                return Fate(there=there, back=back, times=2)
        return Fate(there=there + random.random() * self._faults.slow_seconds, back=back)

    def cut_off(self, *, answers_only: bool) -> Fate:
        """Of a call of a process that does not reach the store."""
        return Fate(there=self.latency(), back=None, times=int(answers_only), gives_up=self.patience())

    def of_message(self) -> tuple[list[float], float | None]:
        """Seconds until each copy of it arrives, and from the first one until its confirm is back; None: never."""
        faults, random = self._faults, self._random
        there: list[float] = [self.latency()]
        back: float | None = self.latency()
        if self.well:
            return there, back
        if random.random() < faults.late_messages:
            there[0] += random.random() * faults.late_seconds
        if random.random() < faults.lost_messages:
            return [], None
        if random.random() < faults.doubled_messages:
            there.append(there[0] + random.random() * faults.late_seconds)
        if random.random() < faults.lost_confirms:
            back = None
        return there, back

    def happens(self, rate: float) -> float | None:
        """When something that has this rate a second happens next, in seconds; None: not in this run."""
        return None if rate <= 0 else self._random.expovariate(rate)
