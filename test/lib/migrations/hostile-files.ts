import { literal } from '../../../functions/lib/database/connect.ts';

/** What people write into migration files, by mistake or on purpose. */

const good =
  'create table extra (tenant_id uuid not null, id uuid not null, note text, primary key (tenant_id, id))';
const dynamic = (sql: string) => `do $$ begin execute ${literal(sql)}; end $$`;

/** What it is, the file, what the refusal names, and a word of its remedy. `{other}`: a schema that is not the home's. */
export const refused: [string, string, RegExp, string][] = [
  [
    'a key over all tenants',
    `${good}; create unique index on extra (note)`,
    /extra_note_idx: is unique over/,
    'add tenant_id',
  ],
  [
    'a key over all tenants, beside a view',
    `${good}; alter table extra add unique (note); create view seen as select * from extra`,
    /extra_note_key: is unique/,
    'add tenant_id',
  ],
  [
    'a definer function',
    "create function f() returns int language sql security definer as 'select 1'",
    /f\(\): is a SECURITY DEFINER/,
    'drop SECURITY DEFINER',
  ],
  [
    'a definer procedure, later',
    "create procedure f() language sql as 'select 1'; alter routine f() security definer",
    /f\(\): is a SECURITY DEFINER/,
    'drop SECURITY DEFINER',
  ],
  [
    'a materialized view',
    'create materialized view m as select 1 as one',
    /m: is a materialized view/,
    'use a table or a view',
  ],
  [
    'a rule',
    'create rule r as on insert to notes do instead nothing',
    /notes\.r: is a rule/,
    'use a trigger',
  ],
  [
    'a view for everybody',
    'create view seen as select * from notes; grant select on seen to public',
    /seen: SELECT is granted to PUBLIC/,
    'do not grant',
  ],
  [
    'a table of nobody’s',
    dynamic('create table plain (id int primary key)'),
    /plain: has no column `tenant_id/,
    'declare `tenant_id',
  ],
  [
    'a table without a key',
    'create table copied (tenant_id uuid not null, number integer)',
    /copied: has no primary key/,
    'write `primary key (tenant_id',
  ],
  [
    'a table that inherits',
    'create table kid () inherits (notes)',
    /kid: has no primary key/,
    'write `primary key (tenant_id',
  ],
  [
    'an event trigger',
    'create event trigger e on ddl_command_start execute function f()',
    /whole database or server, at line 1/,
    'leave it out',
  ],
  [
    'an event trigger in a DO block',
    dynamic('create event trigger e on ddl_command_start execute function f()'),
    /failed: .*42501.*at line 1/,
    'leave it out',
  ],
  [
    'default privileges',
    'alter default privileges grant all on tables to public',
    /default privileges, at line 1/,
    'leave rights',
  ],
  [
    'default privileges in a DO block',
    dynamic('alter default privileges grant all on tables to public'),
    /default privileges: would hold/,
    'leave rights',
  ],
  [
    'another session',
    'set session authorization postgres',
    /handles roles, at line 1/,
    'leave transactions and roles',
  ],
  ['another role', 'select 1;\nreset role', /handles roles, at line 2/, 'leave transactions and roles'],
  [
    'another role in quotes',
    'set "role" = \'tenancy_keeper\'',
    /changes role, at line 1/,
    'leave transactions and roles',
  ],
  [
    'another role in a DO block',
    dynamic('reset role'),
    /changes its role, in a function or DO block, at line 1/,
    'leave transactions and roles',
  ],
  [
    'another role, and back',
    `do $$ begin set local role tenancy_keeper; update tenancy.homes set epoch = epoch + 1; set local role tenancy_owner; end $$`,
    /changes its role, in a function or DO block, at line 1/,
    'leave transactions and roles',
  ],
  ['an extension', 'create extension dblink', /handles an extension, at line 1/, 'the setting `extensions`'],
  [
    'an extension in a DO block',
    dynamic('create extension dblink'),
    /failed: .*dblink.*at line 1/,
    'leave it out',
  ],
  [
    'a foreign table',
    "create foreign table f (id int) server s options (a 'b')",
    /failed: server "s" does not exist .*at line 1/,
    'correct it',
  ],
  ['a publication', 'create publication p for table notes', /publishes tables, at line 1/, 'leave it out'],
  [
    'a publication in a DO block',
    dynamic('create publication p for table notes'),
    /p: is a publication/,
    'leave it out',
  ],
  ['a large language', 'create language plperl', /whole database or server, at line 1/, 'leave it out'],
  [
    'a commit in a procedure',
    "create procedure p() language plpgsql as 'begin commit; end'; call p()",
    /failed: .*2D000.*at line 1/,
    'leave it out',
  ],
  [
    'a commit behind what looks like a quote',
    'select 1 as a$$; commit; select 2 as b$$',
    /handles transactions, at line 1/,
    'leave transactions',
  ],
  [
    'the schema of another home',
    'drop schema {other} cascade',
    /handles schemas, at line 1/,
    'leave schemas',
  ],
  [
    'the schema of another home in a DO block',
    dynamic('drop schema {other} cascade'),
    /is dropped or altered|took its history/,
    'to the migrator',
  ],
  [
    'a table of another home',
    'drop table if exists {other}.notes',
    /names a schema, at line 1/,
    'without a schema',
  ],
  [
    'a function for another home',
    'create or replace function {other}.f() returns int language sql as $$ select 1 $$',
    /names a schema, at line 1/,
    'without a schema',
  ],
  [
    'a table for another home',
    dynamic('create table {other}.leak as select 1 as one'),
    /\.leak: is not of the home|permission denied|took its/,
    'schema',
  ],
  [
    'its history',
    'truncate _migrations',
    /touches a table of the product’s own, at line 1/,
    'to the migrator',
  ],
  [
    'its history in a DO block',
    'do $$ begin delete from _migrations; end $$',
    /_migrations: is the migrator's own/,
    'leave it alone',
  ],
  [
    'another owner',
    'alter table notes owner to tenancy_keeper',
    /failed: .*42501.*at line 1|is owned by/,
    'leave owners',
  ],
  [
    'a right for another tenant',
    'grant select on notes to {stranger}',
    /notes: SELECT is granted to/,
    'do not grant',
  ],
  ['no limits', "set statement_timeout = '1h'", /changes statement_timeout, at line 1/, 'leave it out'],
  [
    'a system’s setting',
    "alter system set wal_level = 'logical'",
    /whole database or server, at line 1/,
    'leave it out',
  ],
  ['a program', "copy notes to program 'cat'", /contains `copy`, at line 1/, 'insert into … values'],
  [
    'a file of the server in a DO block',
    dynamic("copy notes to '/tmp/x'"),
    /failed: .*42501.*at line 1/,
    'leave it out',
  ],
  [
    'a large object',
    dynamic("select lo_from_bytea(0, 'x')"),
    /large objects: are written by the file/,
    'into a table of the home',
  ],
  ['a vacuum', 'vacuum full notes', /contains `vacuum`, at line 1/, 'leave it out'],
  [
    'a comment that does not end',
    'select 1;\n/* /* */ drop table notes;',
    /does not end, from line 2/,
    'end it',
  ],
];
/** Only where tables are shared. */
export const refusedInShared: typeof refused = [
  [
    'a policy of its own',
    'create policy p on notes using (true)',
    /notes\.p: is a policy of its own/,
    'drop it',
  ],
  [
    'a changed policy',
    'alter policy tenancy_rows on notes using (true)',
    /notes: the policy tenancy_rows is/,
    'leave policies',
  ],
  [
    'a row of nobody’s',
    "insert into notes (body) values ('x')",
    /rows of tenants are reached for none of them.*at line 1/,
    '`-- shared`',
  ],
];

/** Nothing of it is left, or it is put right. */
export const harmless: [string, string][] = [
  ['nothing', ''],
  // Each part of it is a comment, too: there are more ways to read it than there is time.
  ['a line behind a text', `select 'x' ${'-'.repeat(80)}\n, E'y' ${'-'.repeat(80)}\n, 'z'`],
  ['comments', '/* a /* nested; commit; */ one */ -- commit;\n;;;'],
  ['words in texts', "select E'\\'; commit; --', $x$ '; reset role; $x$, 'it''s; rollback'"],
  [
    'lines that end as on Windows',
    '-- shared\r\ncreate table crlf (id int primary key);\r\ninsert into crlf values (1);\r\n',
  ],
  ['row security taken away', 'alter table notes disable row level security, no force row level security'],
  [
    'a view with its owner’s rights',
    'create view open_view with (security_invoker = false) as select * from notes',
  ],
  [
    'a cursor, a message and an advisory lock',
    'declare c cursor for select 1; notify x; select pg_try_advisory_lock(7)',
  ],
  [
    'a function that nobody calls',
    'create function now() returns text language sql as $$ select null::text $$',
  ],
  [
    'a key beyond ASCII',
    'create table "Größen" (tenant_id uuid not null, "größe" text, "a\\b" int, primary key (tenant_id, "größe", "a\\b"))',
  ],
  ['a name beyond ASCII', 'alter table notes add column "größe 😀" text default \'ä\''],
  [
    '5 MB of rows',
    `-- shared\ncreate table large (id int primary key, body text);\ninsert into large values ${Array.from({ length: 50_000 }, (_, id) => `(${id}, '${'ä;--$$'.repeat(13)}')`).join(',\n')}`,
  ],
];
