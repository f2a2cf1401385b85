-- How much memory the device has that a profile was measured on, so that a plan can say whether a worker has room for it.
-- Nothing in it comes from anybody's rows. Profiles of earlier versions do not say.
ALTER TABLE model_profile ADD COLUMN device_bytes bigint
  CONSTRAINT model_profile_device_bytes CHECK ((device_bytes IS NULL OR device_bytes BETWEEN 1 AND 9007199254740992) IS TRUE);
GRANT INSERT (device_bytes) ON model_profile TO tacit_worker;
