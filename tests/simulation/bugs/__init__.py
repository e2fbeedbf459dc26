"""Known bugs, planted into the product on demand: a simulation that does not find them proves nothing.

Each is one wrong decision of a kind that real systems have shipped (those of our own hazard analysis are numbered C…),
put in by replacing a function or two, and taken out again afterwards: the product has no hooks for it. `found_by` are
words of the violations that tell of this very decision, not of a consequence in the harness.
"""

from simulation.bugs import many_brokers, one_broker, transactions  # noqa: F401  they register themselves
from simulation.bugs.planting import BUGS, Bug, found, planted

__all__ = ["BUGS", "Bug", "found", "planted"]
