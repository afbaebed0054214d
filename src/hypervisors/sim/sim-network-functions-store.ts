/** The calls that change a simulated host's networks, as database functions: see sim-functions-store.ts. */
export const SIM_NETWORK_FUNCTIONS = `
CREATE FUNCTION sim.foreign_network(n sim.network, p_answer sim.answer) RETURNS sim.answer LANGUAGE sql IMMUTABLE AS $$
  SELECT sim.refusal(p_answer, 'foreign', format('network %s is not ours: it is left alone', n.name))
$$;

CREATE FUNCTION sim.ensure_network(p_host integer, p_call text, p_uuid uuid, p_name text, p_installation uuid,
  p_definition jsonb) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  n sim.network;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE;
  SELECT * INTO n FROM sim.network WHERE host_id = p_host AND uuid = p_uuid;
  IF FOUND AND n.installation_id IS DISTINCT FROM p_installation THEN RETURN sim.foreign_network(n, a); END IF;
  IF FOUND THEN RETURN a; END IF;
  IF p_name = 'default' OR EXISTS (SELECT FROM sim.network WHERE host_id = p_host AND name = p_name) THEN
    RETURN sim.refusal(a, 'already-exists', format('the host has another network named %s', p_name));
  END IF;
  INSERT INTO sim.network (host_id, uuid, name, definition, installation_id)
  VALUES (p_host, p_uuid, p_name, p_definition, p_installation);
  RETURN a;
END $$;

CREATE FUNCTION sim.remove_network(p_host integer, p_call text, p_uuid uuid, p_installation uuid) RETURNS sim.answer
LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  n sim.network;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  SELECT * INTO n FROM sim.network WHERE host_id = p_host AND uuid = p_uuid FOR UPDATE;
  IF NOT FOUND THEN RETURN a; END IF;
  IF n.installation_id IS DISTINCT FROM p_installation THEN RETURN sim.foreign_network(n, a); END IF;
  DELETE FROM sim.network WHERE host_id = p_host AND uuid = p_uuid;
  RETURN a;
END $$;

-- Sets what a MAC address gets by DHCP, or with no address what it got.
CREATE FUNCTION sim.set_lease(p_host integer, p_call text, p_uuid uuid, p_installation uuid, p_mac text, p_address text)
RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  n sim.network;
  kept jsonb;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  SELECT * INTO n FROM sim.network WHERE host_id = p_host AND uuid = p_uuid FOR NO KEY UPDATE;
  IF NOT FOUND AND p_address IS NULL THEN RETURN a; END IF;
  IF NOT FOUND THEN RETURN sim.refusal(a, 'not-found', format('the host has no network %s', p_uuid)); END IF;
  IF n.installation_id IS DISTINCT FROM p_installation THEN RETURN sim.foreign_network(n, a); END IF;
  SELECT coalesce(jsonb_agg(l), '[]') INTO kept FROM jsonb_array_elements(n.leases) l
  WHERE l->>'macAddress' <> p_mac AND l->>'ipv4Address' IS DISTINCT FROM p_address;
  IF p_address IS NOT NULL THEN
    kept := kept || jsonb_build_array(jsonb_build_object('macAddress', p_mac, 'ipv4Address', p_address));
  END IF;
  UPDATE sim.network SET leases = kept WHERE host_id = p_host AND uuid = p_uuid;
  RETURN a;
END $$;

-- Plugs a NIC into a guest that is on, or with no NIC takes that of the MAC address out.
CREATE FUNCTION sim.set_live_nic(p_host integer, p_call text, p_uuid uuid, p_installation uuid, p_mac text, p_nic jsonb)
RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  d sim.domain;
  others jsonb;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  SELECT * INTO d FROM sim.domain WHERE host_id = p_host AND uuid = p_uuid FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN sim.refusal(a, 'not-found', format('the host has no domain %s', p_uuid)); END IF;
  IF d.installation_id IS DISTINCT FROM p_installation THEN
    RETURN sim.refusal(a, 'foreign', format('domain %s is not ours: it is left alone', d.name));
  END IF;
  a := sim.if_absent(d, a);
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.domain_now WHERE host_id = p_host AND uuid = p_uuid AND power IN ('running', 'paused');
  IF NOT FOUND THEN RETURN sim.refusal(a, 'invalid-state', format('domain %s is %s', d.name, d.power)); END IF;
  IF p_nic IS NOT NULL AND p_nic->>'network' <> 'default'
    AND NOT EXISTS (SELECT FROM sim.network WHERE host_id = p_host AND name = p_nic->>'network') THEN
    RETURN sim.refusal(a, 'not-found', format('the host has no network %s', p_nic->>'network'));
  END IF;
  SELECT coalesce(jsonb_agg(n), '[]') INTO others
  FROM jsonb_array_elements(coalesce(d.live_nics, d.definition->'nics', '[]')) n WHERE n->>'macAddress' <> p_mac;
  IF p_nic IS NOT NULL THEN others := others || jsonb_build_array(p_nic); END IF;
  UPDATE sim.domain SET live_nics = others WHERE host_id = p_host AND uuid = p_uuid;
  PERFORM sim.tell(p_host, p_uuid, 'nics');
  RETURN a;
END $$;
`;
