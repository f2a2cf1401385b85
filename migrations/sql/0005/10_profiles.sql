-- Speed and memory of training on synthetic input: nothing here comes from anybody's rows.
CREATE TABLE model_profile (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model text NOT NULL,
  revision text NOT NULL,                          -- of the weights, as the allow-list has it
  method text NOT NULL,
  task text NOT NULL,
  device text NOT NULL,                            -- the processor or GPU by name
  max_length int NOT NULL CHECK (max_length > 0),  -- tokens of each synthetic record
  tokens_per_second double precision NOT NULL CHECK (tokens_per_second > 0 AND tokens_per_second < 'infinity'),
  peak_bytes bigint NOT NULL CHECK (peak_bytes > 0),
  measured_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_profile_newest ON model_profile (revision, task, method, device, measured_at);

GRANT SELECT ON model_profile TO tacit_api, tacit_worker;
GRANT INSERT (model, revision, method, task, device, max_length, tokens_per_second, peak_bytes) ON model_profile TO tacit_worker;
