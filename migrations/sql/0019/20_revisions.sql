-- The weights that a job was planned for: a worker trains it on no others. Jobs of earlier versions do not say.
ALTER TABLE job ADD COLUMN model_revision text
  CONSTRAINT job_model_revision CHECK ((model_revision IS NULL OR length(model_revision) BETWEEN 1 AND 64) IS TRUE);
GRANT INSERT (model_revision) ON job TO tacit_api;
