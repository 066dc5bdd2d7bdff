-- Moves that wait for the operator, and migrations that wait for a move. Run as tenancy_keeper.

alter table catalog.moves
  drop constraint moves_wanted_check,
  add constraint moves_wanted_check check (wanted in ('complete', 'reverse', 'cancel', 'pause')),
  -- A paused move's execution has ended; the one that goes on has a number of its own.
  add column paused_at timestamptz,
  add column resumed_at timestamptz,
  add column resumptions integer not null default 0;

-- As before; and what the operator has asked for meanwhile is not passed over: before the switch there is time for it.
create or replace function catalog.switch_home(move uuid, from_phase text, to_phase text, tenant uuid, from_home uuid, to_home uuid, to_epoch bigint)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform from catalog.moves m where m.operation_id = move and m.phase = from_phase and (from_phase <> 'moving' or m.wanted is null and m.paused_at is null) for update;
  if not found then
    return false;
  end if;
  update catalog.tenants t
     set home_id = to_home, strategy = (select h.strategy from catalog.homes h where h.home_id = to_home), updated_at = now()
   where t.tenant_id = tenant and t.home_id = from_home and t.status = 'active';
  if not found then
    return false;
  end if;
  update catalog.homes h set state = 'moved' where h.home_id = from_home;
  update catalog.homes h set state = 'open', epoch = to_epoch where h.home_id = to_home;
  update catalog.moves m set phase = to_phase, switched_at = now(), wanted = null where m.operation_id = move;
  return true;
end
$$;

-- A migration changes the tables that a move copies. A move does not begin while a run is under way; a run passes over the
-- homes that a move holds, and takes them along the next time.
create or replace function catalog.operations_apart() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtext('catalog.operations_apart'), 0);
  if new.kind = 'move' and exists (select from catalog.operations o where o.kind = 'migrate' and o.state = 'running') then
    raise exception 'a migration is running' using errcode = '23P01', constraint = 'operations_apart';
  end if;
  return new;
end
$$;
alter table catalog.migration_targets
  drop constraint migration_targets_state_check,
  add constraint migration_targets_state_check check (state in ('pending', 'leased', 'done', 'quarantined', 'pinned', 'gone', 'moving'));
