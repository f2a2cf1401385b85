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

-- The public job that a budget's weights were chosen for.
CREATE FUNCTION ledger.is_reference(job jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN jsonb_typeof(job -> 'sample_rate') = 'number' AND jsonb_typeof(job -> 'steps') = 'number'
    AND jsonb_typeof(job -> 'noise_multiplier') IN ('number', 'null')
  THEN (job ->> 'sample_rate')::numeric > 0 AND (job ->> 'sample_rate')::numeric <= 1
    AND (job ->> 'steps')::numeric BETWEEN 1 AND 10000000 AND (job ->> 'steps')::numeric % 1 = 0
    AND coalesce((job ->> 'noise_multiplier')::numeric BETWEEN 0.2 AND 1000, true)
END;
