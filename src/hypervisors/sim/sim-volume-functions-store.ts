/** The calls that change a simulated host's volumes, as database functions: see sim-functions-store.ts. */
export const SIM_VOLUME_FUNCTIONS = `
CREATE FUNCTION sim.volume_value(v sim.volume) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('pool', v.pool, 'name', v.name, 'capacityBytes', v.capacity_bytes,
    'allocationBytes', v.allocation_bytes)
$$;

-- Room left in the pool. The caller holds the host's row, so that two calls do not both take the last of it.
CREATE FUNCTION sim.pool_available(p_host integer, p_pool_bytes bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  RETURN greatest(0, p_pool_bytes - (SELECT filled_bytes FROM sim.host WHERE id = p_host)
    - (SELECT coalesce(sum(allocation_bytes), 0) FROM sim.volume WHERE host_id = p_host));
END $$;

CREATE FUNCTION sim.create_volume(p_host integer, p_call text, p_pool text, p_name text, p_format text,
  p_capacity bigint, p_allocation bigint, p_pool_bytes bigint) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  v sim.volume;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE;
  SELECT * INTO v FROM sim.volume WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  IF NOT FOUND THEN
    IF sim.pool_available(p_host, p_pool_bytes) < p_allocation THEN
      RETURN sim.refusal(a, 'storage-full', format('pool %s is full: volume %s does not fit', p_pool, p_name));
    END IF;
    INSERT INTO sim.volume VALUES (p_host, p_pool, p_name, p_format, p_capacity, p_allocation) RETURNING * INTO v;
  END IF;
  a.value := sim.volume_value(v);
  RETURN a;
END $$;

-- The content itself is not kept, only its size and digest. p_capacity: what the content says; null: as it is.
CREATE FUNCTION sim.upload_volume(p_host integer, p_call text, p_pool text, p_name text, p_size bigint,
  p_sha256 text, p_capacity bigint, p_pool_bytes bigint) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  v sim.volume;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE;
  SELECT * INTO v FROM sim.volume WHERE host_id = p_host AND pool = p_pool AND name = p_name FOR UPDATE;
  IF NOT FOUND THEN
    RETURN sim.refusal(a, 'not-found', format('pool %s has no volume %s', p_pool, p_name));
  END IF;
  IF v.format = 'raw' AND p_size > v.capacity_bytes THEN
    RETURN sim.refusal(a, 'invalid-spec', format('%s bytes do not fit into volume %s of %s bytes', p_size, p_name, v.capacity_bytes));
  END IF;
  IF p_size - v.allocation_bytes > sim.pool_available(p_host, p_pool_bytes) THEN
    RETURN sim.refusal(a, 'storage-full', format('pool %s is full: the content of %s does not fit', p_pool, p_name));
  END IF;
  UPDATE sim.volume SET allocation_bytes = greatest(allocation_bytes, p_size), content_sha256 = p_sha256,
    base_name = NULL, received_bytes = received_bytes + p_size,
    capacity_bytes = CASE WHEN format = 'qcow2' THEN coalesce(p_capacity, capacity_bytes) ELSE capacity_bytes END
  WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  RETURN a;
END $$;

-- Makes a volume of another one, anew where one of this name is there. p_overlay: holds nothing but what will differ.
CREATE FUNCTION sim.clone_volume(p_host integer, p_call text, p_pool text, p_name text, p_format text, p_capacity bigint,
  p_source text, p_overlay boolean, p_allocation bigint, p_pool_bytes bigint) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  s sim.volume;
  v sim.volume;
  needed bigint;
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  PERFORM FROM sim.host WHERE id = p_host FOR NO KEY UPDATE;
  SELECT * INTO s FROM sim.volume WHERE host_id = p_host AND pool = p_pool AND name = p_source;
  IF NOT FOUND THEN
    RETURN sim.refusal(a, 'not-found', format('pool %s has no volume %s', p_pool, p_source));
  END IF;
  DELETE FROM sim.volume WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  needed := CASE WHEN p_overlay THEN p_allocation ELSE s.allocation_bytes END;
  IF sim.pool_available(p_host, p_pool_bytes) < needed THEN
    RETURN sim.refusal(a, 'storage-full', format('pool %s is full: volume %s does not fit', p_pool, p_name));
  END IF;
  INSERT INTO sim.volume (host_id, pool, name, format, capacity_bytes, allocation_bytes, content_sha256, base_name)
  VALUES (p_host, p_pool, p_name, p_format, greatest(p_capacity, s.capacity_bytes), needed,
    CASE WHEN p_overlay THEN NULL ELSE s.content_sha256 END, CASE WHEN p_overlay THEN p_source ELSE s.base_name END)
  RETURNING * INTO v;
  a.value := sim.volume_value(v);
  RETURN a;
END $$;

CREATE FUNCTION sim.grow_volume(p_host integer, p_call text, p_pool text, p_name text, p_capacity bigint)
RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE a sim.answer := sim.begin_call(p_host, p_call);
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  UPDATE sim.volume SET capacity_bytes = greatest(capacity_bytes, p_capacity)
  WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  IF NOT FOUND THEN
    RETURN sim.refusal(a, 'not-found', format('pool %s has no volume %s', p_pool, p_name));
  END IF;
  RETURN a;
END $$;

-- Gives a guest that is on a disk, takes one from it, or grows one: p_change is 'attach', 'detach' or 'grow'. The guest
-- and its definition have the same disks. A guest that takes no notice does not let go: the value says whether it did.
CREATE FUNCTION sim.change_disk(p_host integer, p_call text, p_uuid uuid, p_installation uuid, p_change text,
  p_pool text, p_name text, p_capacity bigint) RETURNS sim.answer LANGUAGE plpgsql AS $$
DECLARE
  a sim.answer := sim.begin_call(p_host, p_call);
  d sim.domain;
  disk jsonb := jsonb_build_object('pool', p_pool, 'name', p_name);
  has boolean;
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
  has := d.definition->'volumes' @> jsonb_build_array(disk);
  IF p_change <> 'detach' AND NOT EXISTS (SELECT FROM sim.volume
      WHERE host_id = p_host AND pool = p_pool AND name = p_name) THEN
    RETURN sim.refusal(a, 'invalid-spec', format('pool %s has no volume %s', p_pool, p_name));
  END IF;
  IF p_change = 'attach' AND NOT has THEN
    UPDATE sim.domain SET definition = jsonb_set(definition, '{volumes}', definition->'volumes' || disk)
    WHERE host_id = p_host AND uuid = p_uuid;
  ELSIF p_change = 'detach' THEN
    a.value := to_jsonb(NOT has OR NOT d.ignores_shutdown);
    IF has AND NOT d.ignores_shutdown THEN
      UPDATE sim.domain SET definition = jsonb_set(definition, '{volumes}', (
        SELECT coalesce(jsonb_agg(v), '[]') FROM jsonb_array_elements(definition->'volumes') v WHERE v <> disk))
      WHERE host_id = p_host AND uuid = p_uuid;
    END IF;
  ELSIF p_change = 'grow' THEN
    IF NOT has THEN RETURN sim.refusal(a, 'not-found', format('domain %s has no disk %s', d.name, p_name)); END IF;
    UPDATE sim.volume SET capacity_bytes = greatest(capacity_bytes, p_capacity)
    WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  END IF;
  RETURN a;
END $$;

CREATE FUNCTION sim.delete_volume(p_host integer, p_call text, p_pool text, p_name text) RETURNS sim.answer
LANGUAGE plpgsql AS $$
DECLARE a sim.answer := sim.begin_call(p_host, p_call);
BEGIN
  IF a.error IS NOT NULL THEN RETURN a; END IF;
  DELETE FROM sim.volume WHERE host_id = p_host AND pool = p_pool AND name = p_name;
  RETURN a;
END $$;
`;
