-- What the pricing and checking functions answer.
SELECT concat_ws(' ',
  ledger.poisson_gaussian_curve(1.1, 0.01, '{2,3,5,8,13,64,129,512}'), ledger.poisson_gaussian_curve(2.5, 1, '{2,7}'),
  ledger.caps(8, 0.00001, '{2,3,4,5,6,7,8,10,12,16,32,64}', '{3,3,77,3,3,3,3,3,3,3,3,3}', 110), ledger.log1p_exp(-3), ledger.log1p_exp(3),
  ledger.fits('{1,5}', '{2,2}', '{0,3}'), ledger.fits('{1,5}', '{2,2}', '{0,4}'), ledger.fits('{}', '{}', '{}'),
  ledger.times('{3,9007199254740992}', 2), ledger.plus('{3,9007199254740992}', '{1,1}'), ledger.packed('a', 'bc'),
  ledger.is_rising('{2,3}'), ledger.is_rising('{3,2}'), ledger.is_rising('{2,2}'), ledger.sum_of('{2147483647,2147483647}'),
  ledger.is_a_time('2026-01-01Z'), ledger.is_a_time('infinity'), ledger.is_a_time('-infinity'),
  ledger.is_reference('{"sample_rate": 0.5, "steps": 1, "noise_multiplier": null}'), ledger.is_reference('{"sample_rate": 2, "steps": 1}'),
  encode(sha256(convert_to(ledger.log_factorials()::text, 'UTF8')), 'hex'))
