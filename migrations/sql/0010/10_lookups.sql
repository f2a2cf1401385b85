-- Who asks for a place in the queue counts those that wait, not every job that there ever was.
CREATE INDEX job_line ON job (tenant_id, created_at, id) WHERE status = 'queued';
-- Each submission and each estimate looks for a finished twin among the jobs of its file; a deletion for open ones.
CREATE INDEX job_file_of_file ON job_file (file_id);
-- Each submission with an Idempotency-Key forgets its tenant's old ones first.
CREATE INDEX idempotency_age ON idempotency (tenant_id, created_at);
