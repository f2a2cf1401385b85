-- Text that a job is to sample from the model that it releases: public values alone, asked for with the job. What comes
-- of it is one more thing that a job may leave, and so is the card beside it.
ALTER TABLE job ADD COLUMN synthetic jsonb
  CONSTRAINT job_synthetic CHECK ((synthetic IS NULL OR (jsonb_typeof(synthetic) = 'object' AND ledger.is_plain(synthetic))) IS TRUE);
GRANT INSERT (synthetic) ON job TO tacit_api;

ALTER TABLE release DROP CONSTRAINT release_kind_check;
ALTER TABLE release ADD CONSTRAINT release_kind_check
  CHECK ((kind IN ('adapter', 'report', 'synthetic', 'synthetic_card')) IS TRUE);
