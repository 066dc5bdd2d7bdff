-- What a transaction was admitted with, made cheaper to check and impossible to carry elsewhere. `admit` no longer leaves
-- the signed context in the session, where the statements of a tool could read it, but a pass: a digest over tenant, access
-- mode and start of this one transaction and a secret that only the keeper can read. Row security checks that.

-- The secret of this database, of 126 bits. In sequences, because their last value is read by a plain function call: a
-- query on a table costs more than all else that current_tenant() does. Whoever may use the keeper's rights may read it.
create sequence tenancy.pass_secret_1 minvalue 0;
create sequence tenancy.pass_secret_2 minvalue 0;
select setval('tenancy.pass_secret_1', random.value), setval('tenancy.pass_secret_2', random.other)
  from (select ('x' || left(digest, 16))::bit(64)::bigint & 9223372036854775807 as value,
               ('x' || right(digest, 16))::bit(64)::bigint & 9223372036854775807 as other
          from (select encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex') as digest) d) random;

-- Holds in the one transaction that it was made in (now() is its start), and only while that is as read-only as it was: a
-- reading pass kept past a savepoint opens nothing for writing. The secret comes last: a digest can be extended at its end.
-- VOLATILE and plain SQL, so that it is inlined.
create function tenancy.pass(tenant text) returns text
language sql volatile parallel safe as $$
  select encode(sha256(timestamptz_send(now()) || convert_to(tenant || current_setting('transaction_read_only'), 'UTF8')
    || int8send(pg_sequence_last_value('tenancy.pass_secret_1')) || int8send(pg_sequence_last_value('tenancy.pass_secret_2'))), 'hex')
$$;

-- As in 0004, but: a reading context makes its transaction read-only by itself (which cannot be taken back), so that a call
-- that reads needs no BEGIN; one query accepts and sets; and constants that a login's defaults rarely differ from are
-- compared in one expression.
create or replace function tenancy.open_home(context text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  path text;
  accepted uuid;
  lock bigint;
  set_to text;
  verified record;
begin
  if split_part(context, '.', 6) = 'w' then
    select h.tenant_id, h.lock_key into accepted, lock from tenancy.homes h
     where h.login = session_user and h.tenant_id = (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad));
  else
    set local transaction_read_only = on;
  end if;
  -- The lock in a statement of its own, before the one that reads the home: see `verify`.
  if accepted is null or pg_try_advisory_xact_lock_shared(lock) then
    -- A key is this database's alone: its signature says that the context is for here. Nothing of a context is cast before
    -- its signature holds: the cast stands in the answer of the query that has checked it (behind concat, which is STABLE:
    -- the planner computes ahead what is IMMUTABLE), and all else is compared as text, the time too (ten digits until 2286).
    -- Nothing is set unless there is a row: what stands in its answer is computed for what the conditions have let through.
    select concat(quote_ident(h.schema_name), ', extensions, pg_temp'),
           set_config('tenancy.tenant', h.tenant_id::text, true),
           set_config('tenancy.pass', tenancy.pass(h.tenant_id::text), true),
           set_config('tenancy.capture', case when h.capturing then '1' else '' end, true),
           set_config('statement_timeout', split_part(context, '.', 8), true)
      into path, set_to, set_to, set_to, set_to
      from tenancy.homes h
     where h.login = session_user and h.tenant_id = coalesce(accepted, (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad)))
       -- Only at one place of a context can its parts follow each other so: epoch, mode, purpose.
       and h.state = 'open'
       and strpos(context, concat('.', h.epoch, case when accepted is null then '.r.call.' else '.w.call.' end)) > 0
       and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C"
       and current_setting('transaction_isolation') = 'read committed';
  end if;
  if path is null then
    verified := tenancy.verify(context);
    path := concat(quote_ident(verified.home_schema), ', extensions, pg_temp');
    perform set_config('tenancy.tenant', verified.tenant::text, true),
            set_config('tenancy.pass', tenancy.pass(verified.tenant::text), true),
            set_config('tenancy.capture', case when verified.capturing then '1' else '' end, true),
            set_config('statement_timeout', split_part(context, '.', 8), true);
  end if;

  perform pg_advisory_unlock_all();
  set local lock_timeout = '5s';
  set local timezone = 'UTC';
  -- RESET ALL goes back to the login's own defaults, which a login may change: these change answers.
  if concat_ws('|', current_setting('datestyle'), current_setting('intervalstyle'), current_setting('bytea_output'),
       current_setting('transform_null_equals'), current_setting('row_security'), current_setting('gin_fuzzy_search_limit'),
       current_setting('standard_conforming_strings'), current_setting('array_nulls'), current_setting('extra_float_digits'),
       current_setting('xmloption')) <> 'ISO, MDY|postgres|hex|off|on|0|on|on|1|content' then
    set local datestyle = 'ISO, MDY';
    set local intervalstyle = 'postgres';
    set local bytea_output = 'hex';
    set local transform_null_equals = off;
    set local row_security = on;
    set local gin_fuzzy_search_limit = 0;
    set local standard_conforming_strings = on;
    set local array_nulls = on;
    set local extra_float_digits = 1;
    set local xmloption = content;
  end if;
  return path;
end
$$;

-- The wall of the shared tables. Null, which is nobody's, in a migration or move: those have a policy of their own, and no
-- pass but a signed context (see `maintained_tenant`). Every other doubt raises.
create or replace function tenancy.current_tenant() returns uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  tenant text := current_setting('tenancy.tenant', true);
  context text;
begin
  if current_setting('tenancy.pass', true) = tenancy.pass(tenant) then
    return tenant;
  end if;
  context := current_setting('tenancy.context', true);
  perform from tenancy.keys k
   where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad)
     and split_part(context, '.', 7) in ('migrate', 'move')
     and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C";
  if not found then
    perform tenancy.refuse(context);
  end if;
  return null;
end
$$;
