"""Audits that could have failed: what canaries in a run of the public training loop tell of its privacy. A bound from
below on epsilon that lies above the claim shows a fault; one that lies below it shows nothing, and proves nothing.

On public or made-up records alone: nothing here may see a private row."""
