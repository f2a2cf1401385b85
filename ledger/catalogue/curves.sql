-- Curves of mechanisms: those of this release's migrations, and no other.
SELECT id, encode(sha256(convert_to(concat_ws(' ', orders, step_cost, indivisible), 'UTF8')), 'hex') FROM ledger.curve
