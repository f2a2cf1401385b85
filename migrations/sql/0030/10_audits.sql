-- Whether the worker is to audit its own training, on made-up records, before the job's first row.
ALTER TABLE job ADD COLUMN audit boolean NOT NULL DEFAULT false;
GRANT INSERT (audit) ON job TO tacit_api;
