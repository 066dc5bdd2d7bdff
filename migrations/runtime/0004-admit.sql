-- The way into a home, made cheaper. A check costs by the number of its expressions and queries, far more than by what
-- they compute: each is set up anew in every transaction. So a call enters by a procedure (CALL plans nothing), one
-- query accepts what is usual, and all else is left to `verify`, which takes its time and says why.

-- Admits a transaction to the context's home and sets what its statements depend on, but for the search path: that is
-- the answer, because what this function sets of its own path ends with it. VOLATILE: each statement sees a new snapshot.
create function tenancy.open_home(context text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  home uuid;
  lock bigint;
  tenant text;
  path text;
  captures boolean;
  verified record;
begin
  -- A key is this database's alone: its signature says that the context is for here. Nothing of a context is cast before
  -- its signature holds: the cast stands in the answer of the query that has checked it (behind concat, which is STABLE:
  -- the planner computes ahead what is IMMUTABLE), and all else is compared as text, the time too (ten digits until 2286).
  if split_part(context, '.', 6) = 'w' then
    select h.home_id, h.lock_key into home, lock from tenancy.homes h
     where h.login = session_user and h.tenant_id = (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad));
    -- The lock in a statement of its own, before the one that reads the home: see `verify`.
    if pg_try_advisory_xact_lock_shared(lock) then
      select quote_ident(h.schema_name) || ', extensions, pg_temp', h.tenant_id::text, h.capturing into path, tenant, captures
        from tenancy.homes h
       where h.home_id = home and h.state = 'open' and strpos(context, concat('.', h.epoch, '.w.call.')) > 0
         and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C"
         and current_setting('transaction_isolation') = 'read committed';
    end if;
  else
    select quote_ident(h.schema_name) || ', extensions, pg_temp', h.tenant_id::text, h.capturing into path, tenant, captures
      from tenancy.homes h
     where h.login = session_user and h.tenant_id = (
       select concat(split_part(context, '.', 4))::uuid from tenancy.keys k
        where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad))
       -- Only at one place of a context can its parts follow each other so: epoch, mode, purpose.
       and h.state = 'open' and strpos(context, concat('.', h.epoch, '.r.call.')) > 0
       and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C"
       and current_setting('transaction_isolation') = 'read committed' and current_setting('transaction_read_only') = 'on';
  end if;
  if path is null then
    verified := tenancy.verify(context);
    path := quote_ident(verified.home_schema) || ', extensions, pg_temp';
    tenant := verified.tenant;
    captures := verified.capturing;
  end if;

  perform set_config('tenancy.context', context, true), set_config('tenancy.tenant', tenant, true),
          set_config('statement_timeout', split_part(context, '.', 8), true), pg_advisory_unlock_all();
  set local tenancy.capture = '';
  if captures then
    set local tenancy.capture = '1';
  end if;
  -- RESET ALL goes back to the login's own defaults, which a login may change: these change answers.
  set local lock_timeout = '5s';
  set local timezone = 'UTC';
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
  return path;
end
$$;

-- The first statement of every call. An invoker's, without a SET clause: with one, the path would end with it.
-- RESET ALL ends what an earlier call may have left in this session, whichever of some 200 settings it was.
create procedure tenancy.admit(context text)
language plpgsql as $$
declare
  path text;
begin
  reset all;
  path := tenancy.open_home(context);
  perform pg_catalog.set_config('search_path', path, true);
end
$$;

-- The same for SQL that can't CALL, and for functions deployed before this.
create or replace function tenancy.enter(context text) returns void
language plpgsql volatile as $$
begin
  call tenancy.admit(context);
end
$$;

create or replace function tenancy.current_tenant() returns uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  context text := current_setting('tenancy.context', true);
  tenant uuid;
begin
  select case when split_part(context, '.', 7) in ('call', 'verify') then concat(split_part(context, '.', 4))::uuid end into tenant
    from tenancy.keys k
   where k.key_id = split_part(context, '.', 2) and tenancy.signed(context, k.inner_pad, k.outer_pad)
     and split_part(context, '.', 9) >= extract(epoch from now())::text collate "C";
  if not found then
    perform tenancy.refuse(context);
  end if;
  return tenant;
end
$$;

grant execute on function tenancy.open_home(text) to tenancy_app, tenancy_tenants;
grant execute on procedure tenancy.admit(text) to tenancy_app, tenancy_tenants;
