-- The account of one protected population. Never deleted, never refilled; balances move by entries alone.
CREATE TABLE ledger.budget (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  name text NOT NULL,
  epsilon numeric NOT NULL CHECK (epsilon > 0 AND epsilon <= 100),
  delta numeric NOT NULL CHECK (delta > 0 AND delta < 1),
  unit text NOT NULL CHECK (unit IN ('record', 'user')),
  max_records_per_user int CHECK (max_records_per_user > 0),
  relation text NOT NULL DEFAULT 'add_or_remove_one' CHECK (relation = 'add_or_remove_one'),
  reference jsonb NOT NULL,                        -- the public job that the weights were chosen for
  weight_numerators int[] NOT NULL,
  weight_denominator int NOT NULL CHECK (weight_denominator > 0),
  cap bigint[] NOT NULL,
  spent bigint[] NOT NULL,
  reserved numeric[] NOT NULL,
  frozen_reason text,
  head_seq bigint NOT NULL,
  head_hash bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT a_user_budget_bounds_the_records_of_a_user CHECK ((unit = 'user') = (max_records_per_user IS NOT NULL)),
  CONSTRAINT weights_sum_to_one CHECK (
    cardinality(weight_numerators) = cardinality(ledger.orders()) AND 0 < ALL (weight_numerators)
    AND weight_numerators[1] + weight_numerators[2] + weight_numerators[3] + weight_numerators[4] + weight_numerators[5]
      + weight_numerators[6] + weight_numerators[7] + weight_numerators[8] + weight_numerators[9] + weight_numerators[10]
      + weight_numerators[11] + weight_numerators[12] = weight_denominator),
  CONSTRAINT spent_is_not_negative CHECK (0 <= ALL (spent)),
  CONSTRAINT reserved_is_not_negative CHECK (0 <= ALL (reserved)),
  CONSTRAINT never_overspent CHECK (frozen_reason IS NOT NULL OR ledger.fits(cap, spent, reserved))
) WITH (fillfactor = 50);
CREATE INDEX budget_page ON ledger.budget (tenant_id, created_at, id);

CREATE TABLE file (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  purpose text NOT NULL CHECK (purpose IN ('fine-tune', 'evals', 'fine-tune-results')),
  filename text NOT NULL,
  bytes bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
  sha256 text,                                     -- of a private file: for the steward alone
  status text NOT NULL DEFAULT 'uploaded' CHECK (status IN ('uploaded', 'processed', 'error')),
  problems jsonb NOT NULL DEFAULT '[]',            -- line numbers and reasons, never content
  budget_id text REFERENCES ledger.budget,
  declared_size bigint CHECK (declared_size > 0),  -- public; at least the number of units
  labels text[],                                   -- public, with their order
  max_length int CHECK (max_length > 0),
  columns jsonb NOT NULL DEFAULT '{}',
  blob text,                                       -- the checked rows
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  UNIQUE (id, budget_id),
  CONSTRAINT a_private_file_has_a_budget CHECK ((purpose = 'fine-tune') = (budget_id IS NOT NULL)),
  CONSTRAINT a_usable_file_is_complete CHECK (
    status <> 'processed' OR (blob IS NOT NULL AND sha256 IS NOT NULL
      AND (purpose <> 'fine-tune' OR (declared_size IS NOT NULL AND max_length IS NOT NULL))))
);
CREATE INDEX file_page ON file (tenant_id, created_at, id);

CREATE FUNCTION file_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status <> 'uploaded' AND (NEW.status, NEW.declared_size, NEW.labels, NEW.max_length, NEW.columns, NEW.sha256, NEW.bytes)
     IS DISTINCT FROM (OLD.status, OLD.declared_size, OLD.labels, OLD.max_length, OLD.columns, OLD.sha256, OLD.bytes) THEN
    RAISE EXCEPTION 'the public constants of a checked file never change' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.budget_id IS DISTINCT FROM OLD.budget_id OR NEW.tenant_id <> OLD.tenant_id OR NEW.purpose <> OLD.purpose THEN
    RAISE EXCEPTION 'a file keeps its budget, tenant and purpose' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS DISTINCT FROM OLD.deleted_at THEN
    RAISE EXCEPTION 'a deleted file stays deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER file_guard BEFORE UPDATE ON file FOR EACH ROW EXECUTE FUNCTION file_guard();

CREATE TABLE job (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  created_by text NOT NULL REFERENCES api_key,
  model text NOT NULL,
  validation_file text REFERENCES file,
  method jsonb NOT NULL,                           -- {"type": ..., "<type>": {options}}, every default resolved
  plan jsonb NOT NULL,                             -- dpcore.terms.plan.Plan
  privacy jsonb NOT NULL,                          -- what was promised at submission
  seed bigint NOT NULL,
  suffix text,
  metadata jsonb NOT NULL DEFAULT '{}',
  status text NOT NULL DEFAULT 'queued'
    CHECK (status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
  status_detail text,
  error jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  hinted_at timestamptz                            -- when a queue hint last went out
);
CREATE INDEX job_page ON job (tenant_id, created_at, id);
CREATE INDEX job_open ON job (created_at) WHERE status IN ('queued', 'running');

CREATE FUNCTION job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status THEN
    RAISE EXCEPTION 'a job in status % is finished', OLD.status USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER job_guard BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION job_guard();

-- The private files of a job. One reservation each, forced at commit by the ledger.
CREATE TABLE job_file (
  job_id text NOT NULL REFERENCES job,
  file_id text NOT NULL,
  budget_id text NOT NULL,
  PRIMARY KEY (job_id, file_id),
  UNIQUE (job_id, budget_id),
  UNIQUE (job_id, file_id, budget_id),
  FOREIGN KEY (file_id, budget_id) REFERENCES file (id, budget_id)
);

CREATE TABLE job_event (
  job_id text NOT NULL REFERENCES job,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  level text NOT NULL DEFAULT 'info' CHECK (level IN ('info', 'warn', 'error')),
  type text NOT NULL DEFAULT 'message',
  message text NOT NULL,
  data jsonb,
  created_at timestamptz NOT NULL DEFAULT date_trunc('minute', now()),
  PRIMARY KEY (job_id, seq)
);

CREATE TABLE idempotency (
  tenant_id text NOT NULL REFERENCES tenant,
  key text NOT NULL,
  request_digest bytea NOT NULL,
  response jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
