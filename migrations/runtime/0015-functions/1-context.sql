-- The way into a home. Run as tenancy_keeper.
--
-- context: v1.<key id>.<database id>.<tenant uuid>.<epoch>.<mode r|w>.<purpose>.<statement ms>.<expires, unix s>.<hex hmac>
--
-- SQLSTATEs: TN001 no context   TN002 not a valid context here   TN003 expired    TN004 stale epoch or not its home
--            TN005 fenced       TN006 read-only                  TN007 suspended  TN008 busy
--            TN009 wrong transaction isolation
--
-- A check costs by the number of its expressions and queries, far more than by what they compute: each is set up anew in
-- every transaction. So a call enters by a procedure (CALL plans nothing), one query accepts what is usual, and all else is
-- left to `verify`, which takes its time and says why.

-- Whether the last part of a context is the signature of all that comes before it. The digests' digests are compared: how
-- far a forged signature agrees must not show in the time this takes.
create or replace function tenancy.signed(context text, inner_pad bytea, outer_pad bytea) returns boolean
language sql stable parallel safe as $$
  select sha256(convert_to(right(context, 64), 'UTF8')) = sha256(convert_to(encode(
    sha256(outer_pad || sha256(inner_pad || convert_to(left(context, -65), 'UTF8'))), 'hex'), 'UTF8'))
$$;

-- Says why a context was refused. Internal: runs as the keeper, below the definer functions that fix the path.
create or replace function tenancy.refuse(context text) returns void
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
create or replace function tenancy.verify(context text, out tenant uuid, out home_schema name, out statement_ms bigint, out capturing boolean)
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

-- What a transaction was admitted with is not the signed context, which the statements of a tool could read in the session and
-- carry elsewhere, but a pass: a digest over tenant, access mode and start of this one transaction, and a secret of this database.

-- Holds in the one transaction that it was made in (now() is its start), and only while that is as read-only as it was: a
-- reading pass kept past a savepoint opens nothing for writing. The secret comes last: a digest can be extended at its end.
-- VOLATILE and plain SQL, so that it is inlined.
create or replace function tenancy.pass(tenant text) returns text
language sql volatile parallel safe as $$
  select encode(sha256(timestamptz_send(now()) || convert_to(tenant || current_setting('transaction_read_only'), 'UTF8')
    || int8send(pg_sequence_last_value('tenancy.pass_secret_1')) || int8send(pg_sequence_last_value('tenancy.pass_secret_2'))), 'hex')
$$;

-- Admits a transaction to the context's home and sets what its statements depend on, but for the search path: that is the
-- answer, because what this function sets of its own path ends with it. VOLATILE: each statement sees a new snapshot. A reading
-- context makes its transaction read-only by itself (which cannot be taken back), so that a call that reads needs no BEGIN.
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
       current_setting('xmloption'), current_setting('timezone_abbreviations'), current_setting('log_parameter_max_length_on_error'),
       current_setting('debug_print_plan'), current_setting('xmlbinary'), current_setting('quote_all_identifiers'),
       current_setting('synchronous_commit')) <> 'ISO, MDY|postgres|hex|off|on|0|on|on|1|content|Default|0|off|base64|off|on' then
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
    set local timezone_abbreviations = 'Default';
    set local log_parameter_max_length_on_error = 0;
    set local debug_print_plan = off;
    set local xmlbinary = base64;
    set local quote_all_identifiers = off;
    if current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
      set local synchronous_commit = on;
    end if;
  end if;
  return path;
end
$$;

-- The first statement of every call. An invoker's, without a SET clause: with one, the path would end with it.
-- RESET ALL ends what an earlier call may have left in this session, whichever of some 200 settings it was.
create or replace procedure tenancy.admit(context text)
language plpgsql as $$
declare
  path text;
begin
  reset all;
  path := tenancy.open_home(context);
  perform pg_catalog.set_config('search_path', path, true);
end
$$;

-- The same for SQL that can't CALL.
create or replace function tenancy.enter(context text) returns void
language plpgsql volatile as $$
begin
  call tenancy.admit(context);
end
$$;

grant execute on function tenancy.open_home(text), tenancy.verify(text), tenancy.enter(text) to tenancy_app, tenancy_tenants;
grant execute on procedure tenancy.admit(text) to tenancy_app, tenancy_tenants;
