-- What the canary has seen. Run as tenancy_keeper.

-- One row a run, the newest of them what GET /health answers from. `state` as in functions/lib/health/findings.ts.
create table catalog.health_runs (
  run_id bigint generated always as identity primary key,
  started_at timestamptz not null,
  finished_at timestamptz not null default now(),
  state text not null check (state in ('ok', 'degraded', 'broken', 'down')),
  -- For operators: what was checked and what is wrong, with names.
  report jsonb not null,
  -- Where the next run goes on: no run looks at every home. Of the newest row alone.
  next jsonb
);

-- For the public answer: one word and how old it is, and nothing that names anybody.
create function catalog.health() returns table (state text, age_seconds double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.state, extract(epoch from now() - r.finished_at)::double precision
    from catalog.health_runs r order by r.run_id desc limit 1
$$;

grant execute on function catalog.health() to tenancy_catalog_reader;
grant select, insert, update, delete on catalog.health_runs to tenancy_provisioner;
