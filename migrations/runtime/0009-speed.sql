-- What the audit costs over many homes. Run as tenancy_keeper.

-- After a file, where it was asked before it. What still holds a lock is named. Without a count from before nothing is counted:
-- every table of the database would be asked, once for each batch.
create or replace function tenancy.audit_elsewhere(home_schemas name[], before numeric)
returns table (home_schema name, object text, finding text, remedy text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if before is null then
    return;
  end if;
  if tenancy.read_elsewhere(home_schemas, true) > before then
    return query select * from tenancy.audit_strays(home_schemas);
    if not found then
      return query select home_schemas[1], 'a table of another home'::text, 'is read where errors are caught'::text, 'write names without a schema'::text;
    end if;
  end if;
end
$$;

-- As what it calls is: PostgreSQL puts it into the audit's query then. As IMMUTABLE it was a query of its own for every table,
-- three quarters of the audit.
alter function tenancy.key_arguments(text[]) stable;
