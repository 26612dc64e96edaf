"""Apps in a world of their own: virtual time, one seed, and all that can go wrong.

simulate               a scenario, such as a month of an app's schedules
crash_at_every_step    the same again and again, with the process of a handler dying at each of its awaits
Faults                 what goes wrong, and how often
"""

from .faults import NONE, Faults
from .simulate import Report, Simulation, Violated, crash_at_every_step, simulate
from .watch import Run

__all__ = ["NONE", "Faults", "Report", "Run", "Simulation", "Violated", "crash_at_every_step", "simulate"]
