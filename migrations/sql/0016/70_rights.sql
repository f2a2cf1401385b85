-- Whoever has a service's password may connect and do what is granted by name, and nothing because everybody may.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, public FROM PUBLIC;
DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO tacit_api, tacit_worker', current_database());
END $$;
REVOKE CREATE ON SCHEMA public, ledger FROM PUBLIC, tacit_api, tacit_worker;

-- What a price, a CHECK or a canonical text needs.
GRANT EXECUTE ON FUNCTION ledger.poisson_gaussian_curve(float8, float8, int[]), ledger.log_factorials(),
  ledger.caps(numeric, numeric, int[], int[], int), ledger.is_rising(int[]), ledger.sum_of(int[]), ledger.is_a_time(timestamptz),
  ledger.is_reference(jsonb), ledger.is_plain(jsonb), ledger.is_words(jsonb), ledger.is_error(jsonb),
  ledger.is_a_blob(text), ledger.owed(text, text), ledger.held(text), ledger.genesis(ledger.budget),
  ledger.entry_fields(ledger.entry) TO tacit_api, tacit_worker;
GRANT INSERT (orders) ON ledger.budget TO tacit_api;
GRANT SELECT ON ledger.finding TO tacit_api, tacit_worker;

-- Columns by name, so that nobody sends a time or a number that the database gives.
REVOKE INSERT ON tenant, job_event, idempotency FROM tacit_api;
GRANT INSERT (id, name) ON tenant TO tacit_api;
GRANT INSERT (job_id, level, type, name, message, data) ON job_event TO tacit_api;
GRANT INSERT (tenant_id, key, request_digest, response) ON idempotency TO tacit_api;
REVOKE INSERT ON job_event, checkpoint, release FROM tacit_worker;
GRANT INSERT (job_id, level, type, name, message, data) ON job_event TO tacit_worker;
GRANT INSERT (job_id, fence, step, blob) ON checkpoint TO tacit_worker;
GRANT INSERT (id, job_id, file_id, kind, fence) ON release TO tacit_worker;
