-- Whether a method trains a base model here, tried on made-up tokens: nothing in it comes from anybody's rows. The newest
-- trial of a revision, method and task counts; without a refusal it went well.
CREATE TABLE model_trial (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model text NOT NULL CONSTRAINT model_trial_model CHECK ((model ~ '^[A-Za-z0-9_-]{1,80}$') IS TRUE),
  revision text NOT NULL CONSTRAINT model_trial_revision CHECK ((length(revision) BETWEEN 1 AND 64) IS TRUE),
  method text NOT NULL CONSTRAINT model_trial_method CHECK ((method ~ '^[a-z0-9-]{1,80}$') IS TRUE),
  task text NOT NULL CONSTRAINT model_trial_task
    CHECK ((task IN ('classification', 'pair', 'completion', 'chat', 'text')) IS TRUE),
  refusal text CONSTRAINT model_trial_refusal CHECK ((refusal IS NULL OR length(refusal) BETWEEN 1 AND 500) IS TRUE),
  versions text NOT NULL CONSTRAINT model_trial_versions CHECK ((length(versions) BETWEEN 1 AND 200) IS TRUE),
  tried_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN model_trial.versions IS 'of the libraries that were at work: others may do better, and are tried again';
CREATE INDEX model_trial_newest ON model_trial (revision, method, task, tried_at);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON model_trial FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON model_trial EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON model_trial
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();

GRANT SELECT ON model_trial TO tacit_api, tacit_worker;
GRANT INSERT (model, revision, method, task, refusal, versions) ON model_trial TO tacit_worker;
