"""Sums over silos of which whoever adds them up sees nothing but the sum: pairwise masks.

After Bonawitz et al., Practical Secure Aggregation (2017), sections 4 and 6, without secret sharing: silos are few, so
that one that vanishes between its message and the opening costs a new try of the round with new masks, not a proof.

What each silo sends is its message on a public grid, modulo 2^64, plus a mask of its own and one for every pair. The
masks of pairs cancel in the sum. Once it is agreed whose messages are in (`rounds.Agreement`, signed by each of them),
each of these opens its own mask and, for those that are out, the masks that it shared with them. The own mask of a silo
that is out is never opened: a message that comes late, or that was said to be late, stays hidden.

Against whom: an aggregator that keeps everything and says what it likes, and silos that collude with it, as long as two
silos of a sum do not. It is no part of the privacy guarantee, which each silo's own noise gives; it hides one silo's
noised message among those of the others. It does not keep a silo from sending nonsense, and it needs public keys that
are the silos' own: whoever may exchange them may read along.
"""
