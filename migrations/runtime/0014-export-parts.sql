-- Where an export that takes several invocations goes on within a large table: the key of the first row of each later part.
-- Here and not in the catalog: a key may hold a tenant's own values. Run as tenancy_keeper.
create table tenancy.exports (
  operation_id uuid not null,
  table_name name not null,
  part integer not null,
  -- It goes with its home.
  home_id uuid not null references tenancy.homes on delete cascade,
  begins_at text[] not null,
  primary key (operation_id, table_name, part)
);
create index exports_home on tenancy.exports (home_id);
