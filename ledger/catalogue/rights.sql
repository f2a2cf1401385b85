-- What the service groups may do, by name or because everybody may.
WITH who AS (SELECT unnest(ARRAY['tacit_api', 'tacit_worker']) AS login),
     tables AS (SELECT oid FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace))
SELECT concat_ws(' ', login, t.privilege, tables.oid::regclass || '.' || a.attname), ''
FROM who, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS t (privilege), tables
     JOIN pg_attribute a ON a.attrelid = tables.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE has_column_privilege(login, tables.oid, a.attnum, t.privilege)
UNION ALL
SELECT concat_ws(' ', login, t.privilege, tables.oid::regclass), ''
FROM who, unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS t (privilege), tables
WHERE has_table_privilege(login, tables.oid, t.privilege)
UNION ALL
SELECT concat_ws(' ', login, 'EXECUTE', p.oid::regprocedure), '' FROM who, pg_proc p
WHERE p.pronamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND has_function_privilege(login, p.oid, 'EXECUTE')
UNION ALL
SELECT concat_ws(' ', login, 'CREATE', 'schema', n.nspname), '' FROM who, pg_namespace n
WHERE has_schema_privilege(login, n.oid, 'CREATE')
UNION ALL
SELECT concat_ws(' ', login, t.privilege, 'database'), '' FROM who, unnest(ARRAY['CREATE', 'TEMPORARY']) AS t (privilege)
WHERE has_database_privilege(login, current_database(), t.privilege)
UNION ALL
SELECT concat_ws(' ', login, 'is', r.rolname), '' FROM who, pg_roles r WHERE r.rolname <> login AND pg_has_role(login, r.oid, 'MEMBER')
UNION ALL
SELECT concat_ws(' ', 'parameter', parname, paracl), '' FROM pg_parameter_acl
