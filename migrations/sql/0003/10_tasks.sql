-- What a file's rows are for: it says which columns they have, and never changes.
ALTER TABLE file
  ADD COLUMN task text NOT NULL DEFAULT 'classification'
    CONSTRAINT file_task CHECK (task IN ('classification', 'pair', 'completion', 'chat', 'text')),
  ADD CONSTRAINT only_classes_have_labels CHECK (labels IS NULL OR task IN ('classification', 'pair'));
GRANT INSERT (task) ON file TO tacit_api;
