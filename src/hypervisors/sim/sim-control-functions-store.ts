/**
 * How tests and users' CI play fate with simulated hosts: database functions, so that any client of the database can
 * use them. Hosts are named by their URI (parameters are ignored) and made where there are none yet.
 */
export const SIM_CONTROL_FUNCTIONS = `
CREATE FUNCTION sim.host_id(p_uri text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  part text[] := regexp_match(p_uri, '^sim\\+(kvm|xen)://([a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?)/?(?:[?].*)?$');
  found_id integer;
BEGIN
  IF part IS NULL THEN
    RAISE EXCEPTION 'not the URI of a simulated host, such as sim+kvm://n1: %', p_uri;
  END IF;
  SELECT id INTO found_id FROM sim.host WHERE hypervisor = part[1] AND name = part[2];
  IF found_id IS NULL THEN
    INSERT INTO sim.host (hypervisor, name) VALUES (part[1], part[2]) ON CONFLICT DO NOTHING;
    SELECT id INTO found_id FROM sim.host WHERE hypervisor = part[1] AND name = part[2];
  END IF;
  RETURN found_id;
END $$;

-- Ends the connections that are open now, and none that is opened later.
CREATE FUNCTION sim.end_connections(p_host integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE count integer;
BEGIN
  UPDATE sim.host SET breaks = breaks + 1 WHERE id = p_host RETURNING breaks INTO count;
  PERFORM pg_notify('sim_event', p_host || ' broken ' || count);
END $$;

-- Takes a host down, which breaks every connection to it, or brings it up again.
CREATE FUNCTION sim.set_host_down(p_uri text, p_down boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h integer := sim.host_id(p_uri);
BEGIN
  UPDATE sim.host SET down = p_down WHERE id = h;
  IF p_down THEN PERFORM sim.end_connections(h); END IF;
END $$;

-- Breaks every connection to a host that stays up.
CREATE FUNCTION sim.break_connections(p_uri text) RETURNS void LANGUAGE sql AS
$$ SELECT sim.end_connections(sim.host_id(p_uri)) $$;

-- The host loses its power and comes back: every guest is off, and every connection breaks.
CREATE FUNCTION sim.cut_host_power(p_uri text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  h integer := sim.host_id(p_uri);
  d sim.domain;
BEGIN
  FOR d IN SELECT * FROM sim.domain WHERE host_id = h AND power IN ('running', 'paused') ORDER BY uuid FOR NO KEY UPDATE LOOP
    PERFORM sim.set_power(d, 'off', 'unknown', 'stopped', NULL);
  END LOOP;
  PERFORM sim.end_connections(h);
END $$;

CREATE FUNCTION sim.domain_for_control(p_uri text, p_uuid uuid) RETURNS sim.domain LANGUAGE plpgsql AS $$
DECLARE d sim.domain;
BEGIN
  SELECT * INTO d FROM sim.domain WHERE host_id = sim.host_id(p_uri) AND uuid = p_uuid FOR NO KEY UPDATE;
  IF NOT FOUND THEN RAISE EXCEPTION 'the simulated host % has no domain %', p_uri, p_uuid; END IF;
  RETURN d;
END $$;

CREATE FUNCTION sim.crash_domain(p_uri text, p_uuid uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE d sim.domain := sim.domain_for_control(p_uri, p_uuid);
BEGIN
  IF d.power NOT IN ('running', 'paused') THEN
    RAISE EXCEPTION 'domain % is %: only a running or paused one can crash', p_uuid, d.power;
  END IF;
  PERFORM sim.set_power(d, 'crashed', 'crashed', 'crashed', 'panic');
END $$;

-- Changes a domain as somebody at the host would: running, paused or off.
CREATE FUNCTION sim.set_domain_power(p_uri text, p_uuid uuid, p_power text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE d sim.domain := sim.domain_for_control(p_uri, p_uuid);
BEGIN
  IF d.power = p_power THEN RETURN; END IF;
  CASE p_power
    WHEN 'running' THEN PERFORM sim.set_power(d, 'running', 'booted', 'started',
      CASE WHEN d.power IN ('paused', 'saved') THEN NULL ELSE 'boot' END);
    WHEN 'paused' THEN PERFORM sim.set_power(d, 'paused', 'user', 'suspended', NULL);
    WHEN 'off' THEN PERFORM sim.set_power(d, 'off', 'destroyed', 'stopped', NULL);
    ELSE RAISE EXCEPTION 'a domain can be set to running, paused or off, not to %', p_power;
  END CASE;
END $$;

-- Makes the host forget a domain, whoever made it and whatever it does.
CREATE FUNCTION sim.forget_domain(p_uri text, p_uuid uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE d sim.domain := sim.domain_for_control(p_uri, p_uuid);
BEGIN
  DELETE FROM sim.domain WHERE host_id = d.host_id AND uuid = p_uuid;
  PERFORM sim.tell(d.host_id, p_uuid, 'undefined');
END $$;

CREATE FUNCTION sim.ignore_shutdown(p_uri text, p_uuid uuid, p_ignore boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE d sim.domain := sim.domain_for_control(p_uri, p_uuid);
BEGIN
  UPDATE sim.domain SET ignores_shutdown = p_ignore WHERE host_id = d.host_id AND uuid = p_uuid;
END $$;

-- A domain that Drover did not make; p_installation: the mark of another installation, null for none.
CREATE FUNCTION sim.add_foreign_domain(p_uri text, p_name text, p_installation uuid, p_memory_mib integer,
  p_cpu_count integer, p_power text) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  h integer := sim.host_id(p_uri);
  id uuid := gen_random_uuid();
BEGIN
  INSERT INTO sim.domain (host_id, uuid, name, power, cpu_count, memory_mib, definition, installation_id)
  VALUES (h, id, p_name, p_power, p_cpu_count, p_memory_mib, jsonb_build_object('cpuCount', p_cpu_count,
    'memoryMib', p_memory_mib, 'volumes', '[]'::jsonb, 'networks', '[]'::jsonb), p_installation);
  PERFORM sim.tell(h, id, 'defined');
  RETURN id;
END $$;

-- The next p_count calls of a kind ('*': of any) fail, hang or lose their answer after they took effect.
CREATE FUNCTION sim.add_fault(p_uri text, p_call text, p_outcome text, p_count integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE h integer := sim.host_id(p_uri);
BEGIN
  UPDATE sim.host SET has_faults = true WHERE id = h;
  INSERT INTO sim.fault (host_id, call, outcome, remaining) VALUES (h, p_call, p_outcome, p_count);
END $$;

CREATE FUNCTION sim.clear_faults(p_uri text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h integer := sim.host_id(p_uri);
BEGIN
  UPDATE sim.host SET has_faults = false WHERE id = h;
  DELETE FROM sim.fault WHERE host_id = h;
END $$;

-- Takes up space in the host's pool with what is no volume; 0 frees it again.
CREATE FUNCTION sim.fill_pool(p_uri text, p_bytes bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE sim.host SET filled_bytes = p_bytes WHERE id = sim.host_id(p_uri);
END $$;

-- Takes a host out of the world with all that is on it.
CREATE FUNCTION sim.remove_host(p_uri text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h integer := sim.host_id(p_uri);
BEGIN
  PERFORM sim.end_connections(h);
  DELETE FROM sim.host WHERE id = h;
END $$;
`;
