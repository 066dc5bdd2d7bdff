-- The product's own table in every home, protected and audited like the adopting team's: what is written to it and read
-- back through the data path proves a home before it opens, and every minute after.
create table tenancy_probe (
  tenant_id uuid not null,
  probe_id uuid not null default gen_random_uuid(),
  marker text not null,
  primary key (tenant_id, probe_id)
);
