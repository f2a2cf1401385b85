-- What changes the meaning of a statement without being a trigger, and to whom everything belongs.
SELECT c.oid::regclass::text, concat_ws(' ', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity,
  CASE WHEN c.relhassubclass THEN 'inherited from' END,
  (SELECT string_agg(format('policy %s', p.polname), ' ' ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid),
  (SELECT string_agg(format('rule %s', r.rulename), ' ' ORDER BY r.rulename) FROM pg_rewrite r WHERE r.ev_class = c.oid))
FROM pg_class c WHERE c.relkind NOT IN ('i', 'I', 'c') AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
UNION ALL
SELECT format('schema %s', n.nspname), CASE n.nspname WHEN 'ledger' THEN pg_get_userbyid(n.nspowner) ELSE '' END
FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT format('type %s', t.oid::regtype), concat_ws(' ', t.typtype, pg_get_userbyid(t.typowner)) FROM pg_type t
WHERE t.typnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND t.typtype <> 'b' AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
UNION ALL
SELECT format('operator %s', o.oid::regoperator), '' FROM pg_operator o WHERE o.oprnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
UNION ALL
SELECT format('cast %s %s', castsource::regtype, casttarget::regtype), '' FROM pg_cast WHERE oid >= 16384
UNION ALL
SELECT 'owner of the database', pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
