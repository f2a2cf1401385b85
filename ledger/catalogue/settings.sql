-- What waits for a login, or for everybody who connects here. Settings that only bound time or memory are the operator's.
SELECT concat_ws(' ', coalesce(nullif(s.setrole, 0)::regrole::text, 'everybody'), split_part(c, '=', 1)), c
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND (s.setrole = 0 OR r.rolname LIKE 'tacit%' OR r.rolname = session_user OR pg_has_role(r.oid, 'tacit_api', 'MEMBER')
       OR pg_has_role(r.oid, 'tacit_worker', 'MEMBER') OR pg_has_role(r.oid, 'tacit_owner', 'MEMBER'))
  AND split_part(c, '=', 1) NOT IN ('work_mem', 'maintenance_work_mem', 'temp_buffers', 'statement_timeout', 'lock_timeout',
    'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout', 'log_statement', 'log_min_duration_statement',
    'log_min_messages', 'random_page_cost', 'effective_io_concurrency', 'jit')
