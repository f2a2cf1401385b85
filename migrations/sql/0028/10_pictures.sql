-- A kind of task whose records are pictures with labels.
ALTER TABLE file
  DROP CONSTRAINT file_task,
  ADD CONSTRAINT file_task CHECK ((task IN ('classification', 'pair', 'image', 'completion', 'chat', 'text')) IS TRUE),
  DROP CONSTRAINT only_classes_have_labels,
  ADD CONSTRAINT only_classes_have_labels CHECK ((labels IS NULL OR task IN ('classification', 'pair', 'image')) IS TRUE);
ALTER TABLE model_profile
  DROP CONSTRAINT model_profile_task_check,
  ADD CONSTRAINT model_profile_task_check
    CHECK ((task IN ('classification', 'pair', 'image', 'completion', 'chat', 'text')) IS TRUE);
ALTER TABLE model_trial
  DROP CONSTRAINT model_trial_task,
  ADD CONSTRAINT model_trial_task CHECK ((task IN ('classification', 'pair', 'image', 'completion', 'chat', 'text')) IS TRUE);
