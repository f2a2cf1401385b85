-- The most that a job may cost one budget, the steps it was allowed, and who may work on it now.
CREATE TABLE ledger.reservation (
  id text PRIMARY KEY,
  job_id text NOT NULL,
  file_id text NOT NULL,
  budget_id text NOT NULL REFERENCES ledger.budget,
  state text NOT NULL DEFAULT 'reserved' CHECK (state IN ('reserved', 'settled')),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (job_id, budget_id),
  FOREIGN KEY (job_id, file_id, budget_id) REFERENCES job_file (job_id, file_id, budget_id)
);
CREATE INDEX reservation_budget ON ledger.reservation (budget_id);

CREATE TABLE ledger.phase (
  reservation_id text NOT NULL REFERENCES ledger.reservation,
  ordinal smallint NOT NULL CHECK (ordinal >= 0),
  sample_rate float8 NOT NULL CHECK (sample_rate > 0 AND sample_rate <= 1),
  noise_multiplier float8 NOT NULL CHECK (noise_multiplier BETWEEN 0.2 AND 1000),
  steps_max bigint NOT NULL CHECK (steps_max BETWEEN 1 AND 10000000),
  steps_authorised bigint NOT NULL DEFAULT 0,
  step_cost bigint[] NOT NULL,
  reserved bigint[] NOT NULL,
  PRIMARY KEY (reservation_id, ordinal),
  CONSTRAINT never_more_steps_than_reserved CHECK (steps_authorised BETWEEN 0 AND steps_max)
);

CREATE TABLE ledger.work (
  job_id text PRIMARY KEY REFERENCES job,
  fence bigint NOT NULL DEFAULT 0,
  owner text,
  lease_until timestamptz,
  stop_requested boolean NOT NULL DEFAULT false
);

CREATE TABLE ledger.authorisation (
  reservation_id text NOT NULL,
  ordinal smallint NOT NULL,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  fence bigint NOT NULL,
  steps bigint NOT NULL CHECK (steps > 0),
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (reservation_id, ordinal, seq),
  FOREIGN KEY (reservation_id, ordinal) REFERENCES ledger.phase (reservation_id, ordinal)
);

CREATE TABLE ledger.entry (
  budget_id text NOT NULL REFERENCES ledger.budget,
  seq bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('open', 'reserve', 'settle')),
  reservation_id text REFERENCES ledger.reservation,
  outcome text CHECK (outcome IN ('succeeded', 'cancelled', 'failed')),
  fence bigint,
  spent_change bigint[] NOT NULL,
  reserved_change numeric[] NOT NULL,
  actor text NOT NULL,
  at timestamptz NOT NULL,
  prev_hash bytea NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (budget_id, seq),
  CHECK ((kind = 'open') = (reservation_id IS NULL)),
  CHECK ((kind = 'settle') = (outcome IS NOT NULL))
);
CREATE UNIQUE INDEX one_opening ON ledger.entry (budget_id) WHERE kind = 'open';
CREATE UNIQUE INDEX one_charge ON ledger.entry (reservation_id) WHERE kind = 'reserve';
CREATE UNIQUE INDEX one_settlement ON ledger.entry (reservation_id) WHERE kind = 'settle';

-- What makes an artifact visible, and what a later attempt may resume from: both only under the fence.
CREATE TABLE release (
  id text PRIMARY KEY,
  job_id text NOT NULL REFERENCES job,
  file_id text NOT NULL UNIQUE REFERENCES file,
  kind text NOT NULL CHECK (kind IN ('adapter', 'report')),
  fence bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (job_id, kind)
);

CREATE TABLE checkpoint (
  job_id text NOT NULL REFERENCES job,
  fence bigint NOT NULL,
  step bigint NOT NULL CHECK (step >= 0),
  blob text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (job_id, step, fence)
);
