"""Ids that look like UUIDs and never repeat, with the randomness brought from outside."""

import attrs


@attrs.define(eq=False)
class UuidSource:
    """Counts up behind a prefix of 80 random bits that the caller drew for this start.

    Two starts with different salts never share an id; one salt gives one sequence, so that a seeded run repeats.
    """

    salt: int
    _count: int = 0

    def __call__(self) -> str:
        """The next id."""
        self._count += 1
        # A multiplication by an odd constant is a bijection on 48 bits: ids differ early, without repeating.
        tail = (self._count * 0x5851F42D4C95) & 0xFFFF_FFFF_FFFF
        digits = f"{(self.salt & ((1 << 80) - 1)) << 48 | tail:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
