-- By the index of charges: a look at all entries of a reservation would read the whole history for every phase.
CREATE OR REPLACE FUNCTION ledger.phase_price() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, ledger AS $$
BEGIN
  IF EXISTS (SELECT FROM ledger.entry WHERE reservation_id = NEW.reservation_id AND kind = 'reserve') THEN
    RAISE EXCEPTION 'phases are declared before the reservation is charged' USING ERRCODE = 'restrict_violation';
  END IF;
  NEW.steps_authorised := 0;
  IF NEW.curve_id IS NULL THEN
    NEW.step_cost := ledger.poisson_gaussian_curve(NEW.noise_multiplier, NEW.sample_rate);
  ELSE
    SELECT c.step_cost, c.indivisible OR NEW.indivisible INTO NEW.step_cost, NEW.indivisible
      FROM ledger.curve c WHERE c.id = NEW.curve_id;
  END IF;
  NEW.reserved := ledger.times(NEW.step_cost, NEW.steps_max);
  RETURN NEW;
END $$;
