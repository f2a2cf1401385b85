-- Of tables and of types.
SELECT concat_ws('.', nullif(k.conrelid::regclass::text, '-'), nullif(k.contypid::regtype::text, '-'), k.conname),
       concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated)
FROM pg_constraint k WHERE k.contype IN ('c', 'f', 'p', 'u') AND k.connamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
