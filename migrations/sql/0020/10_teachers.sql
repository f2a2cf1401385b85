-- The job whose result teaches this one: a worker hands over no other, whatever the plan says. What one population taught
-- does not go out under the budget of another.
ALTER TABLE job ADD COLUMN teacher_job text CONSTRAINT job_teacher REFERENCES job (id);
COMMENT ON COLUMN job.teacher_job IS 'all its charges are to the budget of this job, and its adapter is released';
CREATE INDEX job_taught ON job (teacher_job) WHERE teacher_job IS NOT NULL;
GRANT INSERT (teacher_job) ON job TO tacit_api;

-- None of this is ever taken back: a job is released after all its reservations are settled as succeeded.
CREATE FUNCTION ledger.teaches(teacher text, wanted_budget text) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM public.release l WHERE l.job_id = teacher AND l.kind = 'adapter')
  AND EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = teacher)
  AND NOT EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = teacher AND r.budget_id <> wanted_budget);

CREATE FUNCTION ledger.require_teacher() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE teacher text;
BEGIN
  SELECT j.teacher_job INTO teacher FROM public.job j WHERE j.id = NEW.job_id;
  IF teacher IS NOT NULL AND ledger.teaches(teacher, NEW.budget_id) IS NOT TRUE THEN
    RAISE EXCEPTION 'job % would learn from job %, which released nothing that budget % alone paid for', NEW.job_id, teacher, NEW.budget_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION ledger.teaches(text, text), ledger.require_teacher() FROM PUBLIC;
CREATE TRIGGER require_teacher BEFORE INSERT ON ledger.reservation
  FOR EACH ROW EXECUTE FUNCTION ledger.require_teacher();

-- Jobs of earlier versions that name a teacher: those that may learn from it, which the worker would not take else.
ALTER TABLE job DISABLE TRIGGER job_guard;
UPDATE job AS j SET teacher_job = j.plan #>> '{options,teacher_job}'
  WHERE j.plan ->> 'method' = 'distill' AND j.plan #>> '{options,teacher}' = 'job'
    AND EXISTS (SELECT FROM ledger.reservation r WHERE r.job_id = j.id)
    AND NOT EXISTS (SELECT FROM ledger.reservation r
                    WHERE r.job_id = j.id AND ledger.teaches(j.plan #>> '{options,teacher_job}', r.budget_id) IS NOT TRUE);
ALTER TABLE job ENABLE TRIGGER job_guard;
