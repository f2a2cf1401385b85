-- Whether the worker is to audit its own training, on made-up records, before the job's first row; and what it found.
-- Workers write that down, under the job's fence: an event could be any API login's.
ALTER TABLE job ADD COLUMN audit boolean NOT NULL DEFAULT false;
GRANT INSERT (audit) ON job TO tacit_api;

CREATE TABLE job_audit (
  job_id text PRIMARY KEY REFERENCES job (id),
  fence bigint NOT NULL,
  finding jsonb NOT NULL,
  CONSTRAINT job_audit_finding CHECK ((jsonb_typeof(finding) = 'object' AND ledger.is_plain(finding)) IS TRUE)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON job_audit FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON job_audit EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON job_audit
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();
CREATE TRIGGER fenced_row BEFORE INSERT ON job_audit FOR EACH ROW EXECUTE FUNCTION ledger.fenced_row();
GRANT SELECT ON job_audit TO tacit_api, tacit_worker;
GRANT INSERT (job_id, fence, finding) ON job_audit TO tacit_worker;
