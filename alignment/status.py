"""What a kernel says of a pair, as bits of one integer: none of them is good."""

INVALID, TOO_STEEP, NO_PATH = 1, 2, 4
