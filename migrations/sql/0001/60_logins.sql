-- What each service login may do. Columns are named, so that a client cannot send what the database decides.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tacit_api') THEN CREATE ROLE tacit_api NOLOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tacit_worker') THEN CREATE ROLE tacit_worker NOLOGIN; END IF;
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA public, ledger TO tacit_api, tacit_worker;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO tacit_api, tacit_worker;
GRANT SELECT ON tenant, file, job, job_file, job_event, release TO tacit_api, tacit_worker;
GRANT EXECUTE ON FUNCTION ledger.orders(), ledger.log1m(float8), ledger.log_expm1(float8), ledger.log1p_exp(float8),
  ledger.poisson_gaussian_curve(float8, float8), ledger.caps(numeric, numeric, int[], int),
  ledger.fits(bigint[], bigint[], numeric[]), ledger.packed(text[]) TO tacit_api, tacit_worker;

GRANT SELECT ON api_key, idempotency TO tacit_api;
GRANT INSERT ON tenant, api_key, job_event, idempotency TO tacit_api;
GRANT DELETE ON idempotency TO tacit_api;
GRANT UPDATE (revoked_at) ON api_key TO tacit_api;
GRANT INSERT (id, tenant_id, purpose, filename, bytes, budget_id, declared_size, labels, max_length, columns, blob) ON file TO tacit_api;
GRANT UPDATE (bytes, sha256, status, problems, declared_size, labels, max_length, columns, blob, deleted_at) ON file TO tacit_api;
GRANT INSERT (id, tenant_id, created_by, model, validation_file, method, plan, privacy, seed, suffix, metadata, status, status_detail) ON job TO tacit_api;
GRANT UPDATE (status, status_detail, error, finished_at, hinted_at) ON job TO tacit_api;
GRANT INSERT ON job_file TO tacit_api;
GRANT INSERT (id, tenant_id, name, epsilon, delta, unit, max_records_per_user, reference, weight_numerators, weight_denominator)
  ON ledger.budget TO tacit_api;
GRANT INSERT (id, job_id, file_id, budget_id) ON ledger.reservation TO tacit_api;
GRANT INSERT (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) ON ledger.phase TO tacit_api;
GRANT INSERT (budget_id, kind, reservation_id, outcome) ON ledger.entry TO tacit_api;
GRANT INSERT (job_id) ON ledger.work TO tacit_api;
GRANT UPDATE (stop_requested) ON ledger.work TO tacit_api;

GRANT SELECT ON checkpoint TO tacit_worker;
GRANT INSERT ON job_event, checkpoint, release TO tacit_worker;
GRANT DELETE ON checkpoint TO tacit_worker;
GRANT INSERT (id, tenant_id, purpose, filename, bytes, sha256, status, blob) ON file TO tacit_worker;
GRANT UPDATE (status, status_detail, error, started_at, finished_at, hinted_at) ON job TO tacit_worker;
GRANT UPDATE (fence, owner, lease_until) ON ledger.work TO tacit_worker;
GRANT INSERT (reservation_id, ordinal, fence, steps) ON ledger.authorisation TO tacit_worker;
GRANT INSERT (budget_id, kind, reservation_id, outcome, fence) ON ledger.entry TO tacit_worker;
