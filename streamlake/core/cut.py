"""The cut rule of a fetch (KIP-74): whole pieces up to a limit of bytes, but a first piece however large.

Without the exception a consumer whose limit is smaller than the next piece could never get past it.
"""


def cut_end(first: int, fitting_end: int, at_least_one: bool) -> int:
    """Where the pieces from `first` on are cut, if those below `fitting_end` are within the limits; `first` or less if
    there are none."""
    return first + 1 if at_least_one and fitting_end <= first else fitting_end
