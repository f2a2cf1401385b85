-- A file that waits for its steward's answer is no file: it stands here, where nobody but stewards looks.
CREATE TABLE question (
  file_id text PRIMARY KEY CONSTRAINT question_file CHECK ((file_id ~ '^[A-Za-z0-9._-]{1,80}$') IS TRUE),
  tenant_id text NOT NULL REFERENCES tenant,
  upload jsonb NOT NULL CONSTRAINT question_upload CHECK ((jsonb_typeof(upload) = 'object' AND length(upload::text) <= 1000000
    AND NOT jsonb_path_exists(upload, 'strict $.**{12 to last}') AND NOT jsonb_path_exists(upload, 'strict $.** ? (@ > 1e300 || @ < -1e300)')) IS TRUE),
  found jsonb NOT NULL CONSTRAINT question_found CHECK ((jsonb_typeof(found) = 'object' AND ledger.is_plain(found)) IS TRUE),
  created_at timestamptz NOT NULL DEFAULT now(),
  answered_at timestamptz,
  answered_by text REFERENCES api_key,
  answer text CONSTRAINT question_answer
    CHECK ((answer IS NULL OR answer IN ('same_population', 'different_population', 'publish', 'withdrawn')) IS TRUE),
  reason text,
  CONSTRAINT an_answer_is_whole CHECK (((answered_at IS NULL) = (answer IS NULL) AND (answer IS NULL) = (answered_by IS NULL)
    AND (answer IS NULL OR answer IN ('same_population', 'withdrawn') OR length(reason) BETWEEN 1 AND 1000)) IS TRUE)
);
CREATE INDEX question_tenant ON question (tenant_id) WHERE answer IS NULL;

CREATE FUNCTION public.question_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE unanswered public.question := NEW;
BEGIN
  IF OLD.answer IS NOT NULL THEN
    RAISE EXCEPTION 'the question about % is answered', OLD.file_id USING ERRCODE = 'restrict_violation';
  END IF;
  unanswered.answer := NULL;
  unanswered.answered_at := NULL;
  unanswered.answered_by := NULL;
  unanswered.reason := NULL;
  IF unanswered IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'a question never changes, but for its answer' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.answer IS NOT NULL THEN
    NEW.answered_at := clock_timestamp();
    IF NOT EXISTS (SELECT FROM public.api_key k WHERE k.id = NEW.answered_by AND k.tenant_id = NEW.tenant_id) THEN
      RAISE EXCEPTION 'key % is not of the tenant', NEW.answered_by USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER question_guard BEFORE UPDATE ON question FOR EACH ROW EXECUTE FUNCTION public.question_guard();
