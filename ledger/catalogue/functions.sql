-- Bodies in SQL-standard form are stored parsed and printed differently by different servers: they are asked for values.
SELECT p.oid::regprocedure::text,
       concat_ws(' ', encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'), p.prosecdef, p.provolatile, p.proisstrict, l.lanname,
                 pg_get_userbyid(p.proowner), array_to_string(p.proconfig, ' '))
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
