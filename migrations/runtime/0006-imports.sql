-- Which imports have been carried out here: written in the import's own transaction, so that a repetition of one whose answer
-- was lost finds it. Run as tenancy_keeper.
create table tenancy.imports (
  operation_id uuid primary key,
  tenant_id uuid not null,
  imported_at timestamptz not null default now()
);
