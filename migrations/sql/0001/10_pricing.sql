-- What a mechanism costs and what a budget may hold. Immutable, so that the CHECK on a budget can rest on it.
CREATE SCHEMA ledger;

CREATE FUNCTION ledger.orders() RETURNS int[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64];

-- log(1 - x), log(exp(x) - 1) and log(1 + exp(x)) without cancellation; Postgres raises on underflow, hence the guards.
CREATE FUNCTION ledger.log1m(x float8) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN x > 0.5 THEN ln(1 - x) ELSE -2 * atanh(x / (2 - x)) END;

CREATE FUNCTION ledger.log_expm1(x float8) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN x > 40 THEN x ELSE x / 2 + ln(2 * sinh(x / 2)) END;

CREATE FUNCTION ledger.log1p_exp(x float8) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN x > 40 THEN x + 1e-15
            WHEN x > 0 THEN x + 2 * atanh(exp(-x) / (2 + exp(-x)))
            WHEN x > -600 THEN 2 * atanh(exp(x) / (2 + exp(x)))
            ELSE exp(-600::float8) END;

-- Renyi cost of one step of the Poisson-subsampled Gaussian (add or remove one unit), in units of 1e-12 nat, rounded up.
-- At an integer order a: (1/(a-1)) log(1 + sum over k = 2..a of C(a,k) q^k (1-q)^(a-k) (exp(k(k-1)/(2 sigma^2)) - 1)).
-- All terms are positive, so the relative error of the float evaluation stays far below the margin of 1e-11.
CREATE FUNCTION ledger.poisson_gaussian_curve(noise_multiplier float8, sample_rate float8) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (
  WITH term AS (
    SELECT a,
           CASE WHEN sample_rate = 1 THEN a * (a - 1) / (2 * noise_multiplier ^ 2)
                ELSE ln((factorial(a) / (factorial(k) * factorial(a - k)))::float8)
                     + k * ln(sample_rate)
                     + (a - k) * ledger.log1m(sample_rate)
                     + ledger.log_expm1(k * (k - 1) / (2 * noise_multiplier ^ 2)) END AS log_value
    FROM unnest(ledger.orders()) AS a, generate_series(2, a) AS k
    WHERE sample_rate < 1 OR k = a
  ), highest AS (
    SELECT a, max(log_value) AS log_value FROM term GROUP BY a
  ), order_cost AS (
    SELECT a,
           CASE WHEN sample_rate = 1 THEN highest.log_value
                ELSE ledger.log1p_exp(highest.log_value + ln(sum(
                  CASE WHEN term.log_value - highest.log_value < -600 THEN 0::float8
                       ELSE exp(term.log_value - highest.log_value) END))) END / (a - 1) AS nats
    FROM term JOIN highest USING (a) GROUP BY a, highest.log_value
  )
  SELECT array_agg(greatest(1, least(ceil(nats * 1e12 * (1 + 1e-11)), 9007199254740992))::bigint ORDER BY a) FROM order_cost
);

-- Most that a budget may hold at each order, rounded down. Exact decimals in, 40 digits inside.
CREATE FUNCTION ledger.caps(epsilon numeric, delta numeric, weight_numerators int[], weight_denominator int)
RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (
  SELECT array_agg(least(floor(1e12 * (epsilon + (
             ln(delta + 0.0000000000000000000000000000000000000000)
           + ln(round(w::numeric / weight_denominator, 40))
           + ln(round(a::numeric, 40)) - (a - 1) * ln(round(1 - 1 / round(a::numeric, 40), 40))
           ) / (a - 1))) - 1, 9007199254740991)::bigint ORDER BY a)
  FROM unnest(ledger.orders(), weight_numerators) AS o (a, w)
);

-- The admission rule: some order at which what is spent and what is reserved stay within the cap.
CREATE FUNCTION ledger.fits(cap bigint[], spent bigint[], reserved numeric[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (SELECT bool_or(s::numeric + r <= c) FROM unnest(cap, spent, reserved) AS o (c, s, r));
