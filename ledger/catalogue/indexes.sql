-- Unique ones are part of the ledger's rules.
SELECT i.indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
