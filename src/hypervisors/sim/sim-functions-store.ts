/**
 * The calls that change a simulated host, as database functions: one statement, so one transaction, per call. Killed
 * at any instant, a call either happened or did not. Rows are locked in the order host, domain.
 */
export const SIM_FUNCTIONS = `
CREATE FUNCTION sim.refusal(p_answer sim.answer, p_error text, p_message text) RETURNS sim.answer
LANGUAGE sql IMMUTABLE AS $$ SELECT ROW(p_error, p_message, (p_answer).fault, NULL)::sim.answer $$;

-- Takes the oldest fault that was ordered for this call, and uses it up.
CREATE FUNCTION sim.take_fault(p_host integer, p_call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE f sim.fault;
BEGIN
  PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE;
  SELECT * INTO f FROM sim.fault WHERE host_id = p_host AND call IN (p_call, '*') ORDER BY id LIMIT 1;
  IF NOT FOUND THEN RETURN NULL; END IF;
  IF f.remaining > 1 THEN
    UPDATE sim.fault SET remaining = remaining - 1 WHERE id = f.id;
  ELSE
    DELETE FROM sim.fault WHERE id = f.id;
    UPDATE sim.host SET has_faults = EXISTS (SELECT FROM sim.fault WHERE host_id = p_host) WHERE id = p_host;
  END IF;
  RETURN f.outcome;
END $$;

-- What every call meets first: a host that is down, or a fault that was ordered.
CREATE FUNCTION sim.begin_call(p_host integer, p_call text) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  h sim.host;
  a sim.answer;
BEGIN
  SELECT * INTO h FROM sim.host WHERE id = p_host;
  IF NOT FOUND OR h.down THEN
    RETURN sim.refusal(a, 'unreachable', 'the simulated host is down');
  END IF;
  IF h.has_faults THEN a.fault := sim.take_fault(p_host, p_call); END IF;
  IF a.fault = 'hang' THEN RETURN sim.refusal(a, 'hang', NULL); END IF;
  IF a.fault = 'fail' THEN RETURN sim.refusal(a, 'failed', 'the simulated host was told to fail this call'); END IF;
  RETURN a;
END $$;

CREATE FUNCTION sim.tell(p_host integer, p_uuid uuid, p_detail text) RETURNS void LANGUAGE sql AS
$$ SELECT pg_notify('sim_event', p_host || ' changed ' || p_uuid || ' ' || p_detail) $$;

CREATE FUNCTION sim.write_console(p_host integer, p_uuid uuid, p_kind text, p_definition jsonb) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO sim.console_log AS c (host_id, uuid, entries)
  VALUES (p_host, p_uuid, jsonb_build_array(jsonb_build_object('kind', p_kind, 'boot', gen_random_uuid(),
    'at', clock_timestamp(), 'cpuCount', p_definition->'cpuCount', 'memoryMib', p_definition->'memoryMib',
    'commandLine', p_definition->'commandLine')))
  ON CONFLICT (host_id, uuid)
  -- The last 64 entries: older ones are rotated away.
  DO UPDATE SET entries = jsonb_path_query_array(c.entries, '$[last - 62 to last]') || EXCLUDED.entries
$$;

-- Changes a domain's power, tells watchers and writes what the guest says. A domain that goes off takes its
-- definition, which may have been replaced while it ran.
CREATE FUNCTION sim.set_power(d sim.domain, p_power text, p_reason text, p_event text, p_console text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE ends boolean := p_power IN ('off', 'crashed');
BEGIN
  UPDATE sim.domain SET power = p_power, reason = p_reason, stops_at = NULL, absent_until = NULL,
    cpu_count = CASE WHEN ends THEN (definition->>'cpuCount')::integer ELSE cpu_count END,
    memory_mib = CASE WHEN ends THEN (definition->>'memoryMib')::integer ELSE memory_mib END,
    live_nics = CASE WHEN NOT ends THEN coalesce(live_nics, definition->'nics') END
  WHERE host_id = d.host_id AND uuid = d.uuid;
  IF p_console IS NOT NULL THEN PERFORM sim.write_console(d.host_id, d.uuid, p_console, d.definition); END IF;
  PERFORM sim.tell(d.host_id, d.uuid, p_event);
END $$;

-- Why nothing can be done to a domain at this moment: it reboots, and the host makes it anew.
CREATE FUNCTION sim.if_absent(d sim.domain, p_answer sim.answer) RETURNS sim.answer LANGUAGE sql AS $$
  SELECT CASE WHEN d.absent_until > clock_timestamp()
    THEN sim.refusal(p_answer, 'busy', format('domain %s is being rebooted: it is made anew', d.name))
    ELSE p_answer END
$$;

-- Writes down that a guest has stopped whose time to stop is over. True when there was something to write.
CREATE FUNCTION sim.settle_domain(p_host integer, p_uuid uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE d sim.domain;
BEGIN
  SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid AND stops_at <= clock_timestamp()
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM sim.set_power(d, 'off', 'shutdown', 'stopped', 'power-down');
  RETURN true;
END $$;

-- Why a domain cannot start: something missing, or no memory. The caller holds the host's row, so that two starts
-- do not both take the last memory.
CREATE FUNCTION sim.obstacle(d sim.domain, p_memory_mib integer, p_answer sim.answer) RETURNS sim.answer
LANGUAGE plpgsql AS $$
DECLARE
  missing text;
  used bigint;
BEGIN
  SELECT string_agg(format('volume %s in pool %s', v->>'name', v->>'pool'), ', ') INTO missing
  FROM jsonb_array_elements(d.definition->'volumes') v
  WHERE NOT EXISTS (SELECT FROM sim.volume w WHERE w.host_id = d.host_id AND w.pool = v->>'pool' AND w.name = v->>'name');
  IF missing IS NULL THEN
    SELECT string_agg(format('volume %s in pool %s', w.base_name, w.pool), ', ') INTO missing
    FROM jsonb_array_elements(d.definition->'volumes') v
    JOIN sim.volume w ON w.host_id = d.host_id AND w.pool = v->>'pool' AND w.name = v->>'name'
    WHERE w.base_name IS NOT NULL
      AND NOT EXISTS (SELECT FROM sim.volume b WHERE b.host_id = w.host_id AND b.pool = w.pool AND b.name = w.base_name);
  END IF;
  IF missing IS NULL THEN
    SELECT string_agg('network ' || n, ', ') INTO missing
    FROM jsonb_array_elements_text(d.definition->'networks') n
    WHERE n <> 'default' AND NOT EXISTS (SELECT FROM sim.network w WHERE w.host_id = d.host_id AND w.name = n);
  END IF;
  IF missing IS NOT NULL THEN
    RETURN sim.refusal(p_answer, 'invalid-spec', format('domain %s needs what the host does not have: %s', d.name, missing));
  END IF;
  SELECT coalesce(sum(memory_mib), 0) INTO used FROM sim.domain_now
  WHERE host_id = d.host_id AND power IN ('running', 'paused');
  IF used + d.memory_mib > p_memory_mib THEN
    RETURN sim.refusal(p_answer, 'no-capacity', format('domain %s needs %s MiB of memory; the host has %s MiB left',
      d.name, d.memory_mib, p_memory_mib - used));
  END IF;
  RETURN p_answer;
END $$;

-- All calls that change a domain's power; p_rule is one of POWER_RULES.
CREATE FUNCTION sim.change_power(p_host integer, p_call text, p_uuid uuid, p_installation uuid, p_rule jsonb,
  p_memory_mib integer, p_after_ms integer) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  d sim.domain;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  IF (p_rule->>'admits')::boolean THEN PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE; END IF;
  SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN sim.refusal(a, 'not-found', format('the host has no domain %s', p_uuid)); END IF;
  IF d.installation_id IS DISTINCT FROM p_installation THEN
    RETURN sim.refusal(a, 'foreign', format('domain %s is not ours: it is left alone', d.name));
  END IF;
  a := sim.if_absent(d, a);
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  IF p_rule ? 'guestTypes' AND NOT p_rule->'guestTypes' ? (d.definition->>'guestType') THEN
    RETURN sim.refusal(a, 'unsupported', format('guests of type %s cannot do this', d.definition->>'guestType'));
  END IF;
  IF d.stops_at <= clock_timestamp() THEN
    PERFORM sim.settle_domain(p_host, p_uuid);
    SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid;
  END IF;
  IF d.power = 'saved' THEN p_rule := p_rule || coalesce(p_rule->'fromSaved', '{}'); END IF;
  IF p_rule->'keeps' ? d.power THEN RETURN a; END IF;
  IF NOT p_rule->'from' ? d.power THEN
    RETURN sim.refusal(a, 'invalid-state', format('domain %s is %s', d.name, d.power));
  END IF;
  IF (p_rule->>'asksGuest')::boolean AND d.ignores_shutdown THEN RETURN a; END IF;
  IF (p_rule->>'admits')::boolean THEN
    a := sim.obstacle(d, p_memory_mib, a);
    IF a.error IS NOT NULL THEN RETURN a; END IF;
  END IF;
  IF p_after_ms > 0 THEN
    UPDATE sim.domain SET stops_at = coalesce(stops_at, clock_timestamp() + p_after_ms * interval '1 millisecond')
    WHERE host_id = p_host AND uuid = p_uuid;
  ELSE
    PERFORM sim.set_power(d, coalesce(p_rule->>'to', d.power), p_rule->>'reason', p_rule->>'event', p_rule->>'console');
  END IF;
  IF (p_rule->>'absentMs')::integer > 0 THEN
    UPDATE sim.domain SET absent_until = clock_timestamp() + (p_rule->>'absentMs')::integer * interval '1 millisecond'
    WHERE host_id = p_host AND uuid = p_uuid;
  END IF;
  RETURN a;
END $$;

CREATE FUNCTION sim.define_domain(p_host integer, p_call text, p_uuid uuid, p_name text, p_installation uuid,
  p_vm uuid, p_definition jsonb) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  d sim.domain;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid FOR NO KEY UPDATE;
  IF FOUND AND d.installation_id IS DISTINCT FROM p_installation THEN
    RETURN sim.refusal(a, 'foreign', format('domain %s is not ours: it is left alone', d.name));
  END IF;
  a := sim.if_absent(d, a);
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  IF EXISTS (SELECT FROM sim.domain WHERE host_id = p_host AND name = p_name AND uuid <> p_uuid) THEN
    RETURN sim.refusal(a, 'already-exists', format('the host has another domain named %s', p_name));
  END IF;
  INSERT INTO sim.domain AS t (host_id, uuid, name, power, cpu_count, memory_mib, definition, installation_id, vm_id)
  VALUES (p_host, p_uuid, p_name, 'off', (p_definition->>'cpuCount')::integer, (p_definition->>'memoryMib')::integer,
    p_definition, p_installation, p_vm)
  ON CONFLICT (host_id, uuid) DO UPDATE SET name = EXCLUDED.name, definition = EXCLUDED.definition,
    cpu_count = CASE WHEN t.power IN ('running', 'paused', 'saved') THEN t.cpu_count ELSE EXCLUDED.cpu_count END,
    memory_mib = CASE WHEN t.power IN ('running', 'paused', 'saved') THEN t.memory_mib ELSE EXCLUDED.memory_mib END;
  PERFORM sim.tell(p_host, p_uuid, 'defined');
  RETURN a;
END $$;

CREATE FUNCTION sim.remove_domain(p_host integer, p_call text, p_uuid uuid, p_installation uuid) RETURNS sim.answer
LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  d sim.domain;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid FOR UPDATE;
  IF NOT FOUND THEN RETURN a; END IF;
  IF d.installation_id IS DISTINCT FROM p_installation THEN
    RETURN sim.refusal(a, 'foreign', format('domain %s is not ours: it is left alone', d.name));
  END IF;
  a := sim.if_absent(d, a);
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.domain_now WHERE host_id = p_host AND uuid = p_uuid AND power IN ('running', 'paused');
  IF FOUND THEN RETURN sim.refusal(a, 'invalid-state', format('domain %s is %s', d.name, d.power)); END IF;
  DELETE FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid;
  PERFORM sim.tell(p_host, p_uuid, 'undefined');
  RETURN a;
END $$;

CREATE FUNCTION sim.delete_console_log(p_host integer, p_call text, p_uuid uuid, p_installation uuid)
RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE a sim.answer := sim.begin_call(p_host, p_call);
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  IF EXISTS (SELECT FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid
      AND installation_id IS DISTINCT FROM p_installation) THEN
    RETURN sim.refusal(a, 'foreign', format('domain %s is not ours: it is left alone', p_uuid));
  END IF;
  DELETE FROM sim.console_log WHERE host_id = p_host AND uuid = p_uuid;
  RETURN a;
END $$;
`;
