-- What the check of an upload found: counts of private rows and names of columns, for the file's steward alone, so no
-- worker reads it. An object of the size and depth that a report may have, and no number that a reader cannot hold.
CREATE TABLE public.upload_report (
  file_id text PRIMARY KEY REFERENCES public.file,
  report jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT a_report_is_plain CHECK (
    (jsonb_typeof(report) = 'object' AND length(report::text) <= 1000000
     AND NOT jsonb_path_exists(report, 'strict $.**{9 to last}')
     AND NOT jsonb_path_exists(report, 'strict $.** ? (@ > 1e300 || @ < -1e300)')) IS TRUE)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON public.upload_report FOR EACH ROW EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON public.upload_report EXECUTE FUNCTION ledger.append_only();
CREATE TRIGGER a_read_committed BEFORE INSERT OR UPDATE OR DELETE ON public.upload_report
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.read_committed();

GRANT SELECT, INSERT (file_id, report) ON public.upload_report TO tacit_api;
