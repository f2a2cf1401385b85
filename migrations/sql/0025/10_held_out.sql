-- The share of a budget's units that no job ever trains on, so that a charged measurement on them tells how good a result is.
-- Said when the budget opens and never again: another share would let later jobs train on what earlier ones were measured on.
ALTER TABLE ledger.budget
  ADD COLUMN held_out numeric NOT NULL DEFAULT 0,
  ADD CONSTRAINT budget_held_out_check CHECK (((held_out = 0 OR (held_out >= 0.01 AND held_out <= 0.5)) AND scale(held_out) <= 4) IS TRUE);
COMMENT ON COLUMN ledger.budget.held_out IS 'fixed when it opens: the chain begins with it, where it is not 0';
GRANT INSERT (held_out) ON ledger.budget TO tacit_api;

-- The hash that a budget's chain starts from covers it too. A budget that holds nothing out begins as before, so that no chain
-- of an earlier version changes. v3: with orders and share, whatever the orders are.
CREATE OR REPLACE FUNCTION ledger.genesis(b ledger.budget) RETURNS bytea
LANGUAGE sql IMMUTABLE
RETURN sha256(ledger.packed(VARIADIC
  CASE WHEN b.held_out <> 0 THEN ARRAY['tacit.budget.v3', b.orders::text, b.held_out::text]
       WHEN b.orders::int[] = '{2,3,4,5,6,7,8,10,12,16,32,64}'::int[] THEN ARRAY['tacit.budget.v1']
       ELSE ARRAY['tacit.budget.v2', b.orders::text] END
  || ARRAY[b.id, b.tenant_id, b.epsilon_opened::text, b.delta::text, b.unit,
  coalesce(b.max_records_per_user::text, ''), b.relation, b.weight_numerators::text, b.weight_denominator::text,
  ledger.caps(b.epsilon_opened, b.delta, b.orders, b.weight_numerators, b.weight_denominator)::text]));
