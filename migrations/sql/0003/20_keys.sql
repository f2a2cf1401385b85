-- One key for each blob, wrapped by a master key that the database never sees. Without its row a blob is noise.
CREATE TABLE data_key (
  blob text PRIMARY KEY,                           -- the blob's name in the store
  wrapped bytea NOT NULL,
  master text NOT NULL,                            -- which master key opens it
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX data_key_master ON data_key (master);
GRANT SELECT, INSERT (blob, wrapped, master), DELETE ON data_key TO tacit_api, tacit_worker;
