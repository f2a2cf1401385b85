-- What a step costs and what a budget may hold, at the orders of the budget at hand. The functions before knew one list.
DROP FUNCTION ledger.owed(text, text), ledger.held(text), ledger.genesis(ledger.budget), ledger.entry_fields(ledger.entry);

-- Renyi cost of one step of the Poisson-subsampled Gaussian (add or remove one unit), in units of 1e-12 nat, rounded up.
-- At an integer order a: (1/(a-1)) log(1 + sum over k = 2..a of C(a,k) q^k (1-q)^(a-k) (exp(k(k-1)/(2 sigma^2)) - 1))
-- (Mironov, Talwar and Zhang 2019, section 3.3; the terms k = 0 and 1 make up the 1). All terms are positive, so the
-- relative error of the float evaluation stays far below the margin of 1e-11. What depends on k alone is computed once.
CREATE FUNCTION ledger.poisson_gaussian_curve(noise_multiplier float8, sample_rate float8, orders int[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, ledger, pg_temp AS $$
DECLARE
  log_factorial CONSTANT float8[] := ledger.log_factorials();  -- that of n at n + 1
  half CONSTANT float8 := 1 / (2 * noise_multiplier * noise_multiplier);
  log_miss float8;                                 -- log(1 - q)
  log_odds float8;
  of_k float8[];
  a int; x float8; most float8; total float8; nats float8;
  answer bigint[] := '{}';
BEGIN
  IF sample_rate < 1 THEN
    log_miss := CASE WHEN sample_rate > 0.5 THEN ln(1 - sample_rate) ELSE -2 * atanh(sample_rate / (2 - sample_rate)) END;
    log_odds := ln(sample_rate) - log_miss;
    FOR k IN 2 .. (SELECT max(o) FROM unnest(orders) AS u (o)) LOOP
      x := k * (k - 1) * half;
      of_k[k] := k * log_odds - log_factorial[k + 1] + CASE WHEN x > 40 THEN x ELSE x / 2 + ln(2 * sinh(x / 2)) END;
    END LOOP;
  END IF;
  FOREACH a IN ARRAY orders LOOP
    IF sample_rate = 1 THEN
      nats := a * half;
    ELSE
      most := '-Infinity';
      FOR k IN 2 .. a LOOP
        x := of_k[k] - log_factorial[a - k + 1];
        IF x > most THEN most := x; END IF;
      END LOOP;
      total := 0;
      FOR k IN 2 .. a LOOP
        x := of_k[k] - log_factorial[a - k + 1] - most;
        IF x > -40 THEN total := total + exp(x); END IF;  -- 512 terms below e^-40 are far below the margin
      END LOOP;
      nats := ledger.log1p_exp(most + ln(total) + log_factorial[a + 1] + a * log_miss) / (a - 1);
    END IF;
    answer := answer || greatest(1, least(ceil(nats * 1e12 * (1 + 1e-11)), 9007199254740992))::bigint;
  END LOOP;
  RETURN answer;
END $$;

-- Most that a budget may hold at each order, rounded down. Exact decimals in, 40 digits inside.
CREATE FUNCTION ledger.caps(epsilon numeric, delta numeric, orders int[], weight_numerators int[], weight_denominator int)
RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (
  SELECT array_agg(least(floor(1e12 * (epsilon + (
             ln(delta + 0.0000000000000000000000000000000000000000)
           + ln(round(w::numeric / weight_denominator, 40))
           + ln(round(a::numeric, 40)) - (a - 1) * ln(round(1 - 1 / round(a::numeric, 40), 40))
           ) / (a - 1))) - 1, 9007199254740991)::bigint ORDER BY i)
  FROM unnest(orders, weight_numerators) WITH ORDINALITY AS o (a, w, i)
);

-- The orders of a mechanism's curve that a budget asks for. NULL where the curve is proven for other orders only.
CREATE FUNCTION ledger.at_orders(wanted int[], known int[], step_cost bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (SELECT array_agg(step_cost[array_position(known, o)] ORDER BY i) FROM unnest(wanted) WITH ORDINALITY AS u (o, i));
