-- What moving a home takes beyond what each home has been ready for. Run as tenancy_keeper.

-- The attempt of a step that may work on this home now. Every attempt takes it for itself before it begins, and every
-- transaction of it looks: one that was thought dead and wakes up late changes nothing any more.
alter table tenancy.homes add column mover uuid;

-- Several tenants may be moving at once, and a deleted entry stays in the table until it is vacuumed.
create index changes_tenant on tenancy.changes (tenant_id, change_id);

-- The mover reads changed rows with their owner's rights, in the snapshot in which it reads what has changed.
grant select on tenancy.changes to tenancy_owner;
