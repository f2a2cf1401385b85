-- What is stored as JSON, names of blobs, and what was measured: in the shape that readers expect. Rows of before that are
-- not are brought into it; where that takes something away, it is said to have been found.
DO $$
BEGIN
  ALTER TABLE job DISABLE TRIGGER job_guard;
  ALTER TABLE file DISABLE TRIGGER file_guard;

  INSERT INTO ledger.finding (what, evidence) SELECT 'job ' || id || ' had JSON that cannot be read', jsonb_build_object('job', id) FROM job
    WHERE (jsonb_typeof(method) = 'object' AND ledger.is_plain(method) AND jsonb_typeof(plan) = 'object' AND ledger.is_plain(plan)
      AND jsonb_typeof(privacy) = 'object' AND ledger.is_plain(privacy) AND ledger.is_words(metadata)
      AND (error IS NULL OR ledger.is_error(error))) IS NOT TRUE;
  UPDATE job SET
    method = CASE WHEN jsonb_typeof(method) = 'object' AND ledger.is_plain(method) THEN method ELSE '{}' END,
    plan = CASE WHEN jsonb_typeof(plan) = 'object' AND ledger.is_plain(plan) THEN plan ELSE '{}' END,
    privacy = CASE WHEN jsonb_typeof(privacy) = 'object' AND ledger.is_plain(privacy) THEN privacy ELSE '{}' END,
    metadata = CASE WHEN ledger.is_words(metadata) THEN metadata ELSE '{}' END,
    error = CASE WHEN ledger.is_error(error) THEN error END
    WHERE id IN (SELECT evidence ->> 'job' FROM ledger.finding);

  INSERT INTO ledger.finding (what, evidence) SELECT 'file ' || id || ' had JSON that cannot be read', jsonb_build_object('file', id) FROM file
    WHERE (jsonb_typeof(columns) = 'object' AND ledger.is_plain(columns) AND ledger.is_plain(problems)) IS NOT TRUE;
  UPDATE file SET columns = '{}', problems = '[]' WHERE id IN (SELECT evidence ->> 'file' FROM ledger.finding);

  INSERT INTO ledger.finding (budget_id, what, evidence) SELECT budget_id, 'file ' || id || ' named a blob that no store has', jsonb_build_object('blobless', id)
    FROM file WHERE NOT ledger.is_a_blob(blob);
  UPDATE file SET status = 'error', blob = NULL WHERE NOT ledger.is_a_blob(blob);
  DELETE FROM checkpoint WHERE NOT starts_with(blob, 'jobs/' || job_id || '/checkpoints/') OR NOT ledger.is_a_blob(blob);
  DELETE FROM data_key WHERE NOT ledger.is_a_blob(blob);

  UPDATE job_event SET data = NULL WHERE (jsonb_typeof(data) IN ('object', 'null') AND ledger.is_plain(data)) IS FALSE;
  UPDATE job_event SET type = 'message' WHERE type NOT IN ('message', 'metrics');
  DELETE FROM idempotency WHERE (ledger.is_words(response) AND response ? 'job') IS NOT TRUE;
  DELETE FROM keeper_watch;  -- written anew within seconds
  DELETE FROM model_profile WHERE task NOT IN ('classification', 'pair', 'completion', 'chat', 'text') OR max_length > 1000000
    OR tokens_per_second NOT BETWEEN 0.001 AND 1e12 OR peak_bytes > 9007199254740992;

  ALTER TABLE file ENABLE TRIGGER file_guard;
  ALTER TABLE job ENABLE TRIGGER job_guard;
END $$;

ALTER TABLE job ADD CONSTRAINT job_json CHECK ((jsonb_typeof(method) = 'object' AND jsonb_typeof(plan) = 'object' AND jsonb_typeof(privacy) = 'object'
    AND ledger.is_plain(jsonb_build_array(method, plan, privacy))) IS TRUE),
  ADD CONSTRAINT notes_are_words CHECK (ledger.is_words(metadata) IS TRUE),
  ADD CONSTRAINT an_error_says_what CHECK ((error IS NULL OR ledger.is_error(error)) IS TRUE);
ALTER TABLE file ADD CONSTRAINT file_json
  CHECK ((jsonb_typeof(columns) = 'object' AND ledger.is_plain(columns) AND ledger.is_plain(problems)) IS TRUE);
ALTER TABLE job_event
  ADD CONSTRAINT job_event_json CHECK ((data IS NULL OR (jsonb_typeof(data) IN ('object', 'null') AND ledger.is_plain(data))) IS TRUE),
  ADD CONSTRAINT job_event_type_check CHECK ((type IN ('message', 'metrics')) IS TRUE);
ALTER TABLE idempotency ADD CONSTRAINT a_response_names_its_job CHECK ((ledger.is_words(response) AND response ? 'job') IS TRUE);
ALTER TABLE keeper_watch ADD CONSTRAINT keeper_watch_json CHECK ((jsonb_typeof(detail) = 'object' AND ledger.is_plain(detail)
    AND coalesce(jsonb_typeof(detail -> 'failing'), 'object') = 'object') IS TRUE);

-- Whoever deletes, or encrypts what an earlier version stored, would stop at such a name, for everybody.
ALTER TABLE file ADD CONSTRAINT a_file_lies_in_a_blob CHECK (ledger.is_a_blob(blob) IS TRUE);
ALTER TABLE checkpoint ADD CONSTRAINT a_checkpoint_lies_in_a_blob CHECK (ledger.is_a_blob(blob) IS TRUE);
-- Another job's would be trained on, and deleted when this one ends.
ALTER TABLE checkpoint ADD CONSTRAINT a_checkpoint_is_of_its_job CHECK (starts_with(blob, 'jobs/' || job_id || '/checkpoints/') IS TRUE);
ALTER TABLE data_key ADD CONSTRAINT a_key_is_of_a_blob CHECK (ledger.is_a_blob(blob) IS TRUE);

-- A measurement that is none would end the list of models, and every estimate.
ALTER TABLE model_profile
  ADD CONSTRAINT model_profile_task_check CHECK ((task IN ('classification', 'pair', 'completion', 'chat', 'text')) IS TRUE),
  DROP CONSTRAINT model_profile_max_length_check,
  ADD CONSTRAINT model_profile_max_length_check CHECK ((max_length BETWEEN 1 AND 1000000) IS TRUE),
  DROP CONSTRAINT model_profile_peak_bytes_check,
  ADD CONSTRAINT model_profile_peak_bytes_check CHECK ((peak_bytes BETWEEN 1 AND 9007199254740992) IS TRUE),
  DROP CONSTRAINT model_profile_tokens_per_second_check,
  ADD CONSTRAINT model_profile_tokens_per_second_check CHECK ((tokens_per_second BETWEEN 0.001 AND 1e12) IS TRUE);
