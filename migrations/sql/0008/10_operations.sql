-- A second secret of a key while it is rotated, what was done by whom, and what retention may remove.
ALTER TABLE api_key
  ADD COLUMN previous_mac bytea UNIQUE,            -- of the secret before; as good as the new one until previous_until
  ADD COLUMN previous_until timestamptz,
  ADD CONSTRAINT api_key_previous CHECK ((previous_mac IS NULL) = (previous_until IS NULL));
GRANT UPDATE (mac, prefix, previous_mac, previous_until) ON api_key TO tacit_api;

-- Append-only for every service login: nobody but the API writes, and nobody changes or removes.
CREATE TABLE audit (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenant,
  key_id text NOT NULL REFERENCES api_key,
  action text NOT NULL,                            -- method and route, with names in place of ids
  target text,                                     -- the ids in the path, or of what was made
  status int NOT NULL,                             -- of the answer
  request_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_page ON audit (tenant_id, created_at, id);
GRANT SELECT, INSERT (id, tenant_id, key_id, action, target, status, request_id) ON audit TO tacit_api;

GRANT DELETE ON job_event TO tacit_api;            -- of jobs that ended long ago
