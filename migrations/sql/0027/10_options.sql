-- What of its method's options a measurement was made with, where they were not the method's own defaults: presets train
-- more or fewer weights, and take another time. Those of earlier versions were all made with the defaults.
ALTER TABLE model_profile ADD COLUMN options jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT model_profile_options CHECK ((jsonb_typeof(options) = 'object' AND ledger.is_plain(options)) IS TRUE);
GRANT INSERT (options) ON model_profile TO tacit_worker;
