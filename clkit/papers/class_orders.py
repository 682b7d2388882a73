"""The random orders of classes of published protocols, which come from numpy.random.RandomState(1993).

Nothing in this folder loads numpy, so its generator (Mersenne Twister) is driven through Python's own.
"""

import random

_WORDS = 624                                            # of the generator's state


def permutation(n, seed=1993):
    """The list that numpy.random.RandomState(seed).permutation(n) gives."""
    words = [seed]
    for i in range(1, _WORDS):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) % 2**32)
    generator = random.Random()
    generator.setstate((3, (*words, _WORDS), None))
    found = list(range(n))
    for i in range(n - 1, 0, -1):                       # swap each with one below it, or itself
        j = i + 1
        while j > i:
            j = generator.getrandbits(32) % 2**i.bit_length()
        found[i], found[j] = found[j], found[i]
    return found


def icarl(n):
    """The classes by arrival, as iCaRL, LUCIR and FACIL take them: class permutation(n)[k] arrives as k."""
    return tuple(permutation(n))


def gfr(n):
    """The inverse, as in the code of GFR: class c arrives as number permutation(n)[c].

    Of 100 classes, the first half shares 24 with that of `icarl`.
    """
    arrival = permutation(n)
    return tuple(sorted(range(n), key=arrival.__getitem__))
