-- The tenancy runtime: which tenant a transaction belongs to, proved by a signature, and whether its home may be used.
-- Lives in every database that holds tenants. Run as tenancy_keeper, who owns all of it.
--
-- context: v1.<key id>.<database id>.<tenant uuid>.<epoch>.<mode r|w>.<purpose>.<statement ms>.<expires, unix s>.<hex hmac>
--
-- SQLSTATEs: TN001 no context   TN002 not a valid context here   TN003 expired    TN004 stale epoch or not its home
--            TN005 fenced       TN006 read-only                  TN007 suspended  TN008 busy
--            TN009 wrong transaction isolation

-- PostgreSQL lets everybody execute a new function; here nobody may until it is granted.
alter default privileges revoke execute on functions from public;

-- The two halves of each HMAC-SHA256 key, derived from the master key for this database alone. Two rows during a rotation.
create table tenancy.keys (
  key_id text primary key,
  database_id uuid not null,
  inner_pad bytea not null check (octet_length(inner_pad) = 64),
  outer_pad bytea not null check (octet_length(outer_pad) = 64),
  created_at timestamptz not null default now()
);

create table tenancy.homes (
  home_id uuid primary key,
  tenant_id uuid not null,
  -- The one login that may act for this home: a context presented by any other is refused.
  login name not null,
  schema_name name not null,
  epoch bigint not null check (epoch > 0),
  state text not null check (state in ('provisioning', 'open', 'read_only', 'fenced', 'suspended', 'moved')),
  -- The call fence. Random and not derived from a signing key: a rotation must not split the lock.
  lock_key bigint not null default ('x' || encode(substring(uuid_send(gen_random_uuid()) from 9), 'hex'))::bit(64)::bigint,
  -- While true, the capture triggers of this tenant's tables write to tenancy.changes.
  capturing boolean not null default false,
  move_id uuid,
  unique (tenant_id, login)
);

-- Keys of rows that changed while their tenant was being moved; empty otherwise.
create table tenancy.changes (
  change_id bigint generated always as identity primary key,
  tenant_id uuid not null,
  schema_name name not null,
  table_name name not null,
  key jsonb not null
);

-- Whether the last part of a context is the signature of all that comes before it. The digests' digests are compared: how
-- far a forged signature agrees must not show in the time this takes.
create function tenancy.signed(context text, inner_pad bytea, outer_pad bytea) returns boolean
language sql stable parallel safe as $$
  select sha256(convert_to(right(context, 64), 'UTF8')) = sha256(convert_to(encode(
    sha256(outer_pad || sha256(inner_pad || convert_to(left(context, -65), 'UTF8'))), 'hex'), 'UTF8'))
$$;

-- Says why a context was refused. The ways in below accept in one query and come here only when it found nothing: most
-- of what a check costs in PL/pgSQL is the number of its expressions.
-- Internal: runs as the keeper, below the definer functions that fix the path.
create function tenancy.refuse(context text) returns void
language plpgsql stable parallel safe as $$
declare
  part text[] := string_to_array(context, '.');
  pad record;
begin
  if coalesce(context, '') = '' then
    raise exception 'no tenant context' using errcode = 'TN001';
  end if;
  select inner_pad, outer_pad into pad from tenancy.keys where key_id = part[2] and database_id::text = part[3];
  if not found or not tenancy.signed(context, pad.inner_pad, pad.outer_pad) then
    raise exception 'not a tenant context' using errcode = 'TN002';
  end if;
  if part[9]::bigint < extract(epoch from now()) then
    raise exception 'the tenant context has expired' using errcode = 'TN003';
  end if;
  raise exception 'not a context for this' using errcode = 'TN002';
end
$$;

-- Admits a transaction to the context's home, or raises. VOLATILE on purpose: each statement below sees a new snapshot.
-- Lock and read in one statement, a STABLE function and REPEATABLE READ were tried: a writer then passes on what it saw
-- before the mover's commit.
create function tenancy.verify(context text, out tenant uuid, out home_schema name, out statement_ms bigint, out capturing boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  part text[] := string_to_array(context, '.');
  home record;
begin
  -- Nothing of the context is read before this: what we have signed has the form that the casts below expect.
  perform from tenancy.keys k
   where k.key_id = part[2] and k.database_id::text = part[3] and tenancy.signed(context, k.inner_pad, k.outer_pad);
  if not found then
    perform tenancy.refuse(context);
  end if;
  -- now() is the transaction's start: a context does not expire in the middle of its transaction.
  select h.home_id, h.tenant_id, h.schema_name, h.epoch, h.state, h.lock_key, h.capturing,
         asked.writes, asked.verifies, asked.valid,
         current_setting('transaction_isolation') = 'read committed' as sees_the_fence,
         current_setting('transaction_read_only') = 'on' as reads_only
    into home
    from (select part[6] = 'w' as writes, part[7] = 'verify' as verifies,
                 part[7] in ('call', 'verify') and part[9]::bigint >= extract(epoch from now()) as valid) asked
    left join tenancy.homes h on h.tenant_id = part[4]::uuid and h.login = session_user;
  if not home.valid then
    perform tenancy.refuse(context);
  end if;
  if not home.sees_the_fence then
    raise exception 'a call runs in READ COMMITTED' using errcode = 'TN009';
  end if;
  if home.writes and home.tenant_id is not null then
    if not pg_try_advisory_xact_lock_shared(home.lock_key) then
      begin
        perform set_config('lock_timeout', '100ms', true);
        perform pg_advisory_xact_lock_shared(home.lock_key);
      exception when lock_not_available then
        raise exception 'the home is being switched' using errcode = 'TN008';
      end;
    end if;
    -- Again, now that nobody can change it any more.
    select h.epoch, h.state, h.capturing into home.epoch, home.state, home.capturing
      from tenancy.homes h where h.home_id = home.home_id;
    if not found then
      home.state := 'moved';
    end if;
  end if;
  if home.state = 'open' and home.epoch = part[5]::bigint and (home.writes or home.reads_only) then
    tenant := home.tenant_id;
    home_schema := home.schema_name;
    statement_ms := part[8]::bigint;
    capturing := home.capturing;
    return;
  end if;

  if home.tenant_id is null or home.state = 'moved' or home.epoch <> part[5]::bigint then
    raise exception 'not the home of this context, or not any more' using errcode = 'TN004';
  elsif not home.writes and not home.reads_only then
    raise exception 'a reading context in a writing transaction' using errcode = 'TN006';
  elsif home.state = 'suspended' then
    raise exception 'the tenant is suspended' using errcode = 'TN007';
  elsif home.state = 'provisioning' and not home.verifies then
    raise exception 'the home is not open yet' using errcode = 'TN005';
  elsif home.state = 'fenced' and home.writes then
    raise exception 'the home is fenced' using errcode = 'TN005';
  elsif home.state = 'read_only' and home.writes then
    raise exception 'the home is read-only' using errcode = 'TN006';
  end if;
  tenant := home.tenant_id;
  home_schema := home.schema_name;
  statement_ms := part[8]::bigint;
  capturing := home.capturing;
end
$$;

-- The first statement of every call. No SET clause: with one, all that it sets would end with it.
-- RESET ALL ends what an earlier call may have left in this session, whichever of some 200 settings it was.
create function tenancy.enter(context text) returns void
language plpgsql volatile as $$
declare
  home record;
begin
  reset all;
  home := tenancy.verify(context);
  perform
    pg_catalog.pg_advisory_unlock_all(),
    pg_catalog.set_config('tenancy.context', context, true),
    pg_catalog.set_config('tenancy.tenant', home.tenant::pg_catalog.text, true),
    pg_catalog.set_config('tenancy.capture', case when home.capturing then '1' else '' end, true),
    pg_catalog.set_config('search_path', pg_catalog.concat(pg_catalog.quote_ident(home.home_schema), ', extensions, pg_temp'), true),
    pg_catalog.set_config('statement_timeout', home.statement_ms::pg_catalog.text, true),
    pg_catalog.set_config('lock_timeout', '5s', true),
    pg_catalog.set_config('TimeZone', 'UTC', true),
    pg_catalog.set_config('DateStyle', 'ISO, MDY', true),
    pg_catalog.set_config('IntervalStyle', 'postgres', true),
    pg_catalog.set_config('bytea_output', 'hex', true),
    pg_catalog.set_config('transform_null_equals', 'off', true),
    -- RESET ALL goes back to the login's own defaults, which a login may change: these change answers.
    pg_catalog.set_config('row_security', 'on', true),
    pg_catalog.set_config('gin_fuzzy_search_limit', '0', true),
    pg_catalog.set_config('standard_conforming_strings', 'on', true),
    pg_catalog.set_config('array_nulls', 'on', true),
    pg_catalog.set_config('extra_float_digits', '1', true),
    pg_catalog.set_config('xmloption', 'content', true);
end
$$;

-- The wall of the shared tables: policies compare tenant_id with (select tenancy.current_tenant()), so that the signature
-- is checked once in every statement. What tool SQL may have written into the setting is worth nothing without a signature.
-- Null, which is nobody's, in a migration or move: those have a policy of their own. Every other doubt raises.
create function tenancy.current_tenant() returns uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  context text := current_setting('tenancy.context', true);
  part text[] := string_to_array(context, '.');
begin
  perform from tenancy.keys k
   where k.key_id = part[2] and k.database_id::text = part[3] and tenancy.signed(context, k.inner_pad, k.outer_pad);
  if not found or part[9]::bigint < extract(epoch from now()) then
    perform tenancy.refuse(context);
  end if;
  return case when part[7] in ('call', 'verify') then part[4]::uuid end;
end
$$;

-- For the owner's maintenance policy: which tenant's rows a migration or move may touch; null is every tenant's (a migration
-- of the shared tables). Raises without a context of such a purpose: an owner's backfill would otherwise report UPDATE 0.
create function tenancy.maintained_tenant() returns uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  context text := current_setting('tenancy.context', true);
  part text[] := string_to_array(context, '.');
begin
  perform from tenancy.keys k
   where k.key_id = part[2] and k.database_id::text = part[3] and tenancy.signed(context, k.inner_pad, k.outer_pad);
  if not found or part[7] not in ('migrate', 'move') or part[9]::bigint < extract(epoch from now()) then
    perform tenancy.refuse(context);
  end if;
  return nullif(part[4]::uuid, '00000000-0000-0000-0000-000000000000');
end
$$;

grant usage on schema tenancy to tenancy_app, tenancy_tenants, tenancy_owner;
grant execute on function tenancy.enter(text), tenancy.verify(text), tenancy.current_tenant() to tenancy_app, tenancy_tenants;
grant execute on function tenancy.current_tenant(), tenancy.maintained_tenant() to tenancy_owner;
