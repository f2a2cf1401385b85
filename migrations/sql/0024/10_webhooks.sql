-- Addresses that a steward wants to be told at. No secret is here: a hook's is made from the API's pepper and this row, so
-- that a row which was changed signs as nobody.
CREATE TABLE webhook (
  id text PRIMARY KEY CONSTRAINT webhook_id CHECK ((id ~ '^[A-Za-z0-9_-]{1,80}$') IS TRUE),
  tenant_id text NOT NULL REFERENCES tenant,
  created_by text NOT NULL REFERENCES api_key,
  url text NOT NULL CONSTRAINT webhook_url CHECK ((url ~ '^https?://[!-~]+$' AND length(url) <= 2000) IS TRUE),
  description text CONSTRAINT webhook_description CHECK ((description IS NULL OR length(description) BETWEEN 1 AND 200) IS TRUE),
  job_ended boolean NOT NULL,
  approval_wanted boolean NOT NULL,
  budget_low boolean NOT NULL,
  budget_frozen boolean NOT NULL,
  low_below double precision NOT NULL CONSTRAINT webhook_low_below CHECK ((low_below > 0 AND low_below < 1) IS TRUE),
  salt bytea NOT NULL CONSTRAINT webhook_salt CHECK ((length(salt) = 16) IS TRUE),
  created_at timestamptz NOT NULL DEFAULT now(),
  looked_at timestamptz NOT NULL DEFAULT now(),
  last_success_at timestamptz,
  last_failure_at timestamptz,
  last_failure text CONSTRAINT webhook_last_failure CHECK ((last_failure IS NULL OR length(last_failure) BETWEEN 1 AND 200) IS TRUE),
  CONSTRAINT webhook_times CHECK ((isfinite(created_at) AND isfinite(looked_at) AND isfinite(coalesce(last_success_at, now()))
    AND isfinite(coalesce(last_failure_at, now()))) IS TRUE),
  CONSTRAINT a_webhook_wants_something CHECK ((job_ended OR approval_wanted OR budget_low OR budget_frozen) IS TRUE)
);
COMMENT ON COLUMN webhook.looked_at IS 'when what is to be told was last looked for; what ended an hour before is looked at again';
CREATE INDEX webhook_tenant ON webhook (tenant_id);

CREATE TABLE webhook_delivery (
  id text PRIMARY KEY CONSTRAINT webhook_delivery_id CHECK ((id ~ '^[A-Za-z0-9_-]{1,80}$') IS TRUE),
  seq bigint GENERATED ALWAYS AS IDENTITY,
  webhook_id text NOT NULL REFERENCES webhook ON DELETE CASCADE,
  event text NOT NULL CONSTRAINT webhook_delivery_event
    CHECK ((event IN ('job.ended', 'approval.wanted', 'budget.low', 'budget.frozen')) IS TRUE),
  subject text NOT NULL CONSTRAINT webhook_delivery_subject CHECK ((subject ~ '^[A-Za-z0-9._-]{1,80}$') IS TRUE),
  outcome text CONSTRAINT webhook_delivery_outcome CHECK (((event = 'job.ended') = (outcome IS NOT NULL)
    AND (outcome IS NULL OR outcome IN ('succeeded', 'failed', 'cancelled'))) IS TRUE),
  at timestamptz NOT NULL CONSTRAINT webhook_delivery_minute CHECK ((at = date_trunc('minute', at)) IS TRUE),
  created_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0 CONSTRAINT webhook_delivery_attempts CHECK ((attempts >= 0) IS TRUE),
  due_at timestamptz NOT NULL DEFAULT now(),
  leased_until timestamptz,
  delivered_at timestamptz,
  given_up_at timestamptz,
  CONSTRAINT webhook_delivery_times CHECK ((isfinite(at) AND isfinite(created_at) AND isfinite(due_at)
    AND isfinite(coalesce(leased_until, now())) AND isfinite(coalesce(delivered_at, given_up_at, now()))) IS TRUE),
  CONSTRAINT a_delivery_ends_once CHECK ((delivered_at IS NULL OR given_up_at IS NULL) IS TRUE)
);
COMMENT ON COLUMN webhook_delivery.seq IS 'the order in which one hook is told of one job or budget';
CREATE UNIQUE INDEX one_telling_of_a_job ON webhook_delivery (webhook_id, subject, event)
  WHERE event IN ('job.ended', 'approval.wanted');
CREATE INDEX webhook_delivery_open ON webhook_delivery (webhook_id, subject, seq)
  WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX webhook_delivery_old ON webhook_delivery (created_at);

-- How a budget stood when a hook's owner was last told, or would have been: so that each crossing is told once.
CREATE TABLE webhook_budget (
  webhook_id text NOT NULL REFERENCES webhook ON DELETE CASCADE,
  budget_id text NOT NULL CONSTRAINT webhook_budget_id CHECK ((budget_id ~ '^[A-Za-z0-9._-]{1,80}$') IS TRUE),
  seq bigint NOT NULL,
  low boolean NOT NULL,
  frozen boolean NOT NULL,
  PRIMARY KEY (webhook_id, budget_id)
);

CREATE INDEX job_ended ON job (tenant_id, finished_at) WHERE finished_at IS NOT NULL;

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['webhook', 'webhook_delivery', 'webhook_budget'] LOOP
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I EXECUTE FUNCTION ledger.append_only()', t);
    EXECUTE format('CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH STATEMENT
      EXECUTE FUNCTION ledger.read_committed()', t);
  END LOOP;
END $$;
GRANT SELECT, DELETE ON webhook TO tacit_api;
GRANT INSERT (id, tenant_id, created_by, url, description, job_ended, approval_wanted, budget_low, budget_frozen, low_below, salt)
  ON webhook TO tacit_api;
GRANT UPDATE (looked_at, last_success_at, last_failure_at, last_failure) ON webhook TO tacit_api;
GRANT SELECT, DELETE ON webhook_delivery TO tacit_api;
GRANT INSERT (id, webhook_id, event, subject, outcome, at) ON webhook_delivery TO tacit_api;
GRANT UPDATE (attempts, due_at, leased_until, delivered_at, given_up_at) ON webhook_delivery TO tacit_api;
GRANT SELECT, INSERT, UPDATE (seq, low, frozen) ON webhook_budget TO tacit_api;
GRANT SELECT ON alembic_version TO tacit_api;
