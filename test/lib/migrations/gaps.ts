/** What migrations do wrong: each on a home with the table `notes`. */

export const good =
  'create table extra (tenant_id uuid not null, id uuid not null default gen_random_uuid(), note text, primary key (tenant_id, id))';

const kids = (action: string) =>
  `create table kids (tenant_id uuid not null, id uuid not null, note_id uuid, seen bigint, primary key (tenant_id, id),
     foreign key (tenant_id, note_id) references notes on delete ${action});
   create function look() returns trigger language plpgsql as 'begin perform from notes; return coalesce(new, old); end';
   create function is_known(uuid) returns boolean language sql as 'select exists (select from notes where note_id = $1)'`;

/** A migration that would leave a gap, the object the refusal names, and a word of its remedy. */
export const gaps: [string, string, string, string][] = [
  ['no tenant_id', 'create table extra (id uuid primary key)', 'extra', 'tenant_id uuid not null'],
  [
    'a nullable tenant_id',
    'create table extra (tenant_id uuid, id uuid, unique (tenant_id, id))',
    'extra',
    'tenant_id uuid not null',
  ],
  [
    'tenant_id as text',
    'create table extra (tenant_id text not null, id uuid, primary key (tenant_id, id))',
    'extra',
    'uuid',
  ],
  [
    'no primary key',
    'create table extra (tenant_id uuid not null, id uuid)',
    'extra',
    'primary key (tenant_id',
  ],
  [
    'a primary key led by another column',
    'create table extra (tenant_id uuid not null, id uuid, primary key (id, tenant_id))',
    'extra',
    'primary key (tenant_id',
  ],
  [
    'a unique key over all tenants',
    `${good}; create unique index extra_note on extra (note)`,
    'extra_note',
    'add tenant_id to its columns',
  ],
  [
    'a unique key that only carries tenant_id along',
    `${good}; create unique index extra_note on extra (note) include (tenant_id)`,
    'extra_note',
    'add tenant_id to its columns',
  ],
  [
    'an exclusion constraint between tenants',
    'alter table notes add constraint apart exclude using btree (tenant_id with =, amount with =) where (amount > 5); alter table notes add constraint alone exclude using btree (amount with =)',
    'alone',
    'add tenant_id to its columns',
  ],
  [
    'an exclusion constraint over all tenants',
    `${good}; alter table extra add constraint apart exclude (note with =)`,
    'apart',
    'add tenant_id to its columns',
  ],
  [
    'a foreign key without tenant_id',
    `${good}; alter table notes add column extra_id uuid; create unique index extra_all on extra (tenant_id, id); alter table extra add constraint by_id unique (id); alter table notes add constraint loose foreign key (extra_id) references extra (id)`,
    'notes.loose',
    'foreign key (tenant_id',
  ],
  [
    'a crossed foreign key',
    `${good}; alter table extra add column other uuid; alter table extra add constraint crossed foreign key (other, id) references notes (tenant_id, note_id)`,
    'extra.crossed',
    'foreign key (tenant_id',
  ],
  [
    'on delete set null of tenant_id',
    `${good}; alter table extra add constraint loses foreign key (tenant_id, id) references notes on delete set null`,
    'extra.loses',
    'on delete set null (column)',
  ],
  [
    'a sequence',
    'create table extra (tenant_id uuid not null, id serial, primary key (tenant_id, id))',
    'extra',
    'gen_random_uuid',
  ],
  ['a materialized view', 'create materialized view extra as select 1 as one', 'extra', 'table or a view'],
  ['a sequence', 'create sequence extra', 'extra', 'generated always as identity'],
  [
    'a sequence of a column that draws from it no more',
    `${good}; create sequence extra_note_seq owned by extra.note`,
    'extra_note_seq',
    'generated always as identity',
  ],
  ['a rule', 'create rule extra as on delete to notes do instead nothing', 'notes.extra', 'trigger'],
  [
    'a definer function without a fixed path',
    "create function extra() returns bigint language sql security definer as 'select count(*) from notes'",
    'extra()',
    'drop SECURITY DEFINER',
  ],
  [
    'a definer function with a fixed path',
    "create function extra() returns bigint language sql security definer set search_path = pg_catalog, pg_temp as 'select 1'",
    'extra()',
    'drop SECURITY DEFINER',
  ],
  [
    'a definer trigger function',
    "create function extra() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as 'begin return new; end'",
    'extra()',
    'drop SECURITY DEFINER',
  ],
  [
    'a tenant_id of another type in a table for reading only',
    'create table extra (tenant_id bigint not null, id uuid primary key); grant select on extra to {login}',
    'extra',
    'tenant_id uuid not null',
  ],
  [
    'a tenant_id of another type beside rows for reading only',
    'create table extra as select 1 as one, gen_random_uuid()::text as tenant_id; grant select on extra to {login}',
    'extra',
    'tenant_id uuid not null',
  ],
  [
    'a default tenant',
    good.replace('not null,', "not null default '00000000-0000-0000-0000-000000000001',"),
    'extra',
    'default of tenant_id',
  ],
  [
    'a trigger before what a cascade deletes',
    `${kids('cascade')}; create trigger before_delete before delete on kids for each row execute function look()`,
    'kids.before_delete',
    'a trigger AFTER',
  ],
  [
    'a trigger before the statement of a cascade',
    `${kids('cascade')}; create trigger before_all before delete on kids execute function look()`,
    'kids.before_all',
    'a trigger AFTER',
  ],
  [
    'a trigger before what a key sets to null',
    `${kids('set null (note_id)')}; create trigger before_update before update of note_id on kids for each row execute function look()`,
    'kids.before_update',
    'on delete no action',
  ],
  [
    'a trigger that has another function look',
    `${kids('cascade')}; create function look_on() returns trigger language plpgsql as 'begin if is_known(old.id) then return null; end if; return old; end';
     create trigger before_delete before delete on kids for each row execute function look_on()`,
    'kids.before_delete',
    'a trigger AFTER',
  ],
  [
    'a trigger whose condition looks',
    `${kids('cascade')}; create trigger after_delete after delete on kids for each row when (is_known(old.id)) execute function look()`,
    'kids.after_delete',
    'on delete no action',
  ],
  [
    'a check that looks when a key sets to null',
    `${kids('set null (note_id)')}; alter table kids add constraint known check (is_known(id) or note_id is null)`,
    'kids.known',
    'on delete no action',
  ],
  ['a grant', `${good}; grant select on extra to public`, 'extra', 'do not grant'],
  [
    'a grant on a column',
    `${good}; grant select (body) on notes to tenancy_tenants`,
    'notes.body',
    'do not grant',
  ],
  ['a privilege beyond data', 'grant truncate on notes to tenancy_app', 'notes', 'do not grant'],
  [
    'a disabled capture trigger',
    'alter table notes disable trigger tenancy_capture',
    'notes',
    'tenancy_capture',
  ],
  [
    'a grant on the migrator’s table',
    'do $$ begin grant select on _migrations to tenancy_tenants; end $$',
    '_migrations',
    'do not grant',
  ],
];
export const sharedGaps: typeof gaps = [
  [
    'an index that is looked up in among all tenants’ values',
    'create index extra on notes (amount)',
    'extra',
    'add tenant_id to its columns',
  ],
  [
    'an IMMUTABLE function that reads rows',
    "create function extra() returns text language plpgsql immutable as 'begin return (select max(body) from notes); end'",
    'extra()',
    'declare it STABLE',
  ],
  [
    'an IMMUTABLE function with a body of SQL that reads rows',
    'create function extra() returns text language sql immutable begin atomic select max(body) from notes; end',
    'extra()',
    'declare it STABLE',
  ],
  [
    'an IMMUTABLE function that reads who is asking',
    "create function extra() returns text language sql immutable as $$ select current_setting('tenancy.tenant') $$",
    'extra()',
    'declare it STABLE',
  ],
  ...Object.entries({
    'has others read rows': [
      `create function reads() returns text language sql stable as 'select max(body) from notes';
       create function second() returns text language plpgsql stable as 'begin return reads(); end';`,
      'select second()',
    ],
    'reads rows in a list': ['', 'select max(n.body) from (values (1)) v(id), notes n'],
    'reads rows behind a comment': ['', 'select max(body) from /* all */ notes'],
    'reads rows in parentheses': ['', 'select max(n.body) from (notes n cross join notes m)'],
    'reads a whole table': ['', 'select max(body) from (table notes) n'],
    'runs a text': ['', "select query_to_xml('select body from ' || 'notes', true, true, '')::text"],
  }).map(([what, [before, query]]): (typeof gaps)[number] => [
    `an IMMUTABLE function that ${what}`,
    `${before} create function extra() returns text language sql immutable as $$ ${query} $$`,
    'extra()',
    'declare it STABLE',
  ]),
  [
    'a policy that lets everything through',
    'create policy wide on notes using (true)',
    'notes.wide',
    'drop it',
  ],
  [
    'a changed policy',
    'alter policy tenancy_rows on notes using (true)',
    'notes',
    'policies to the migrator',
  ],
  [
    'rights on a sequence, which is over all tenants',
    'alter table notes add column number bigint generated always as identity; grant select, update on notes_number_seq to tenancy_app',
    'notes_number_seq',
    'do not grant',
  ],
  [
    'a guard for nobody',
    'drop policy tenancy_guard on notes; create policy tenancy_guard on notes as restrictive for select to tenancy_app using (tenant_id = (select tenancy.current_tenant()))',
    'notes',
    'policies to the migrator',
  ],
];
export const ownGaps: typeof gaps = [
  [
    'a weaker home constraint',
    'alter table notes drop constraint tenancy_home; alter table notes add constraint tenancy_home check (tenant_id is not null)',
    'notes',
    'tenancy_home',
  ],
];

/** What reaches beyond the home, in ways that only the migration's own transaction shows: the same columns. */
export const strays: typeof gaps = [
  ['a schema of its own', "do $$ begin execute 'create schema reporting'; end $$", 'reporting', 'schemas'],
  [
    'a table elsewhere',
    "do $$ begin execute 'create schema reporting'; create table reporting.leak as select 1 as one; end $$",
    'reporting.leak',
    'without a schema',
  ],
];

/** What the migrator puts back by itself. */
export const mended = [
  'drop trigger tenancy_capture on notes',
  'create view seen as select body from notes; alter view seen set (security_invoker = false)',
];
export const sharedMended = [
  'alter table notes disable row level security',
  'alter table notes no force row level security',
  'drop policy tenancy_guard on notes',
  'alter table notes alter column tenant_id drop default',
];
export const ownMended = [
  'alter table notes drop constraint tenancy_home',
  'alter table notes alter column tenant_id drop default',
];
