-- What the roles lack, a line each, seen by the operator's login.
SELECT format('the operator''s login %I is a superuser', session_user) FROM pg_roles WHERE rolname = session_user AND rolsuper
UNION ALL
SELECT format('there is no role %I', r) FROM unnest(ARRAY['tacit_owner', 'tacit_api', 'tacit_worker']) AS r
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r)
UNION ALL
SELECT format('role %I can log in or is a superuser', rolname) FROM pg_roles
  WHERE rolname = 'tacit_owner' AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolbypassrls)
UNION ALL
SELECT format('the operator''s login %I is no member of %I', session_user, rolname) FROM pg_roles
  WHERE rolname = 'tacit_owner' AND NOT pg_has_role(session_user, oid, 'MEMBER')
UNION ALL
SELECT format('the database %I belongs to %I', datname, pg_get_userbyid(datdba)) FROM pg_database
  WHERE datname = current_database() AND pg_get_userbyid(datdba) <> 'tacit_owner'
UNION ALL
(SELECT format('table %s belongs to %I', CAST(c.oid AS regclass), pg_get_userbyid(relowner)) FROM pg_class c
  JOIN pg_namespace n ON n.oid = relnamespace
  WHERE nspname IN ('ledger', 'public') AND relkind = 'r' AND pg_get_userbyid(relowner) <> 'tacit_owner' ORDER BY 1 LIMIT 1)
UNION ALL
SELECT format('everybody may make tables in the database %I', datname) FROM pg_database
  WHERE datname = current_database() AND EXISTS (
    SELECT FROM pg_roles WHERE rolname = 'tacit_api' AND (has_database_privilege(oid, pg_database.oid, 'TEMPORARY')
                                                          OR has_database_privilege(oid, pg_database.oid, 'CREATE')))
