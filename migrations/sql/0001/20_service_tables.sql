-- What the service keeps beside the ledger. Every row belongs to one tenant.
CREATE TABLE tenant (
  id text PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_key (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  name text NOT NULL,
  prefix text NOT NULL,
  mac bytea NOT NULL UNIQUE,                       -- HMAC-SHA256 of the key; the key itself is shown once and not kept
  scopes text[] NOT NULL CHECK (scopes <@ ARRAY['steward', 'analyst', 'auditor', 'admin'] AND cardinality(scopes) > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX api_key_page ON api_key (tenant_id, created_at, id);
