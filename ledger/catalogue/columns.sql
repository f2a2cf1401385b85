-- Types, NULLs and defaults.
SELECT format('%s.%s', c.oid::regclass, a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND a.attnum > 0 AND NOT a.attisdropped
