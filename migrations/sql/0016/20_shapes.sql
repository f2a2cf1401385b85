-- Every list that is stored: one dimension, counted from 1, nothing missing. Two writings of the same numbers are two
-- answers to a CHECK, and a subscript that is not there is NULL, which a CHECK lets pass.
CREATE DOMAIN ledger.units AS bigint[] CONSTRAINT a_plain_list CHECK (
  (CASE WHEN VALUE IS NULL THEN true
        WHEN array_ndims(VALUE) = 1 AND array_lower(VALUE, 1) = 1 AND cardinality(VALUE) <= 64 THEN array_position(VALUE, NULL) IS NULL
   END) IS TRUE);
COMMENT ON DOMAIN ledger.units IS 'amounts in units of 1e-12 nat, one for each order';

CREATE DOMAIN ledger.sums AS numeric[] CONSTRAINT a_plain_list CHECK (
  (CASE WHEN VALUE IS NULL THEN true
        WHEN array_ndims(VALUE) = 1 AND array_lower(VALUE, 1) = 1 AND cardinality(VALUE) <= 64
        THEN array_position(VALUE, NULL) IS NULL AND 'NaN' <> ALL (VALUE) AND 'Infinity' <> ALL (VALUE) AND '-Infinity' <> ALL (VALUE)
   END) IS TRUE);
COMMENT ON DOMAIN ledger.sums IS 'sums of amounts, which may be larger than a bigint';

CREATE DOMAIN ledger.weights AS int[] CONSTRAINT a_plain_list CHECK (
  (CASE WHEN VALUE IS NULL THEN true
        WHEN array_ndims(VALUE) = 1 AND array_lower(VALUE, 1) = 1 AND cardinality(VALUE) <= 64
        THEN array_position(VALUE, NULL) IS NULL AND 0 < ALL (VALUE)
   END) IS TRUE);
COMMENT ON DOMAIN ledger.weights IS 'shares of delta over one common denominator, one for each order';

CREATE FUNCTION ledger.is_rising(list int[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN list = (SELECT array_agg(DISTINCT o ORDER BY o) FROM unnest(list) AS u (o));

CREATE DOMAIN ledger.order_list AS int[] CONSTRAINT a_rising_list_of_orders CHECK (
  (CASE WHEN VALUE IS NULL THEN true
        WHEN array_ndims(VALUE) = 1 AND array_lower(VALUE, 1) = 1 AND cardinality(VALUE) <= 64
        THEN array_position(VALUE, NULL) IS NULL AND 2 <= ALL (VALUE) AND 512 >= ALL (VALUE) AND ledger.is_rising(VALUE)
   END) IS TRUE);
COMMENT ON DOMAIN ledger.order_list IS 'Renyi orders: integers, so that the curve has a closed form';

CREATE DOMAIN words AS text[] CONSTRAINT a_plain_list CHECK (
  (CASE WHEN VALUE IS NULL OR VALUE = '{}' THEN true
        WHEN array_ndims(VALUE) = 1 AND array_lower(VALUE, 1) = 1 THEN array_position(VALUE, NULL) IS NULL
   END) IS TRUE);

CREATE FUNCTION ledger.sum_of(list int[]) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT sum(x) FROM unnest(list) AS u (x));

-- Times that every reader can hold: a stored infinity, or a year of six digits, would be an error wherever it is read.
CREATE FUNCTION ledger.is_a_time(t timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN t IS NULL OR (t >= '2000-01-01 00:00:00+00'::timestamptz AND t < '9000-01-01 00:00:00+00'::timestamptz);

-- JSON that every reader can hold. Python gives up at a thousand levels and at integers of 4,300 digits, and with it whoever
-- reads a list that the row is in.
CREATE FUNCTION ledger.is_plain(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(value::text) <= 100000 AND NOT jsonb_path_exists(value, 'strict $.**{33 to last}')
  AND NOT jsonb_path_exists(value, 'strict $.** ? (@ > 1e300 || @ < -1e300)');

-- Words by name. Nothing else: the database would take 0.1 and "0.1" for one number, and who verifies would not.
CREATE FUNCTION ledger.is_words(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'object'
  THEN length(value::text) <= 20000 AND NOT jsonb_path_exists(value, 'strict $.* ? (@.type() != "string")') END;

-- Why a job failed, as its readers take it; JSON's null is none.
CREATE FUNCTION ledger.is_error(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN value = 'null' OR jsonb_typeof(value) = 'object' AND ledger.is_plain(value) AND jsonb_typeof(value -> 'code') = 'string'
  AND jsonb_typeof(value -> 'message') = 'string' AND coalesce(jsonb_typeof(value -> 'param'), 'null') IN ('string', 'null');

-- A name that every blob store takes: folders and names, no way up, nothing empty.
CREATE FUNCTION ledger.is_a_blob(name text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN name IS NULL OR (length(name) <= 300 AND name ~ '^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$');

-- A number in such a word, in the one writing that everybody reads alike: no 0x10, no 1_000, no NaN, no blanks.
CREATE FUNCTION ledger.amount(word text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, ledger, pg_temp AS $$
BEGIN
  IF word !~ '^[0-9]{1,30}([.][0-9]{1,60})?([eE][-+]?[0-9]{1,3})?$' THEN
    RAISE EXCEPTION 'an amount is a plain decimal number' USING ERRCODE = 'invalid_text_representation';
  END IF;
  RETURN word::numeric;
END $$;

-- The public job that a budget's weights were chosen for. A smaller rate is 0 to a double.
CREATE FUNCTION ledger.is_reference(job jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN ledger.is_plain(job) AND jsonb_typeof(job -> 'sample_rate') = 'number' AND jsonb_typeof(job -> 'steps') = 'number'
    AND jsonb_typeof(job -> 'noise_multiplier') IN ('number', 'null')
  THEN (job ->> 'sample_rate')::numeric >= 1e-300 AND (job ->> 'sample_rate')::numeric <= 1
    AND (job ->> 'steps')::numeric BETWEEN 1 AND 10000000 AND (job ->> 'steps')::numeric % 1 = 0
    AND coalesce((job ->> 'noise_multiplier')::numeric BETWEEN 0.2 AND 1000, true)
END;
