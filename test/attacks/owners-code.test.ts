import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import { migrate, targetOf } from '../lib/migrations/target.ts';
import { startWorld, strategies, type World } from '../support/world.ts';

/**
 * What a migration leaves behind that others run with the rights of the owner of all homes: a foreign key's action, past row security,
 * and the server, when it analyses a table. Each of these read another tenant's rows there before it was refused.
 */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const reads = `create function reads() returns boolean language plpgsql as 'begin return exists (select from notes); end';`;
/** Changed by the owner when a row of `trees` goes. */
const leaves = (column: string, more = '') =>
  `create table trees (tenant_id uuid not null, id int not null, primary key (tenant_id, id));
   create table leaves (tenant_id uuid not null, id int not null, tree ${column}, ${more} primary key (tenant_id, id),
     foreign key (tenant_id, tree) references trees on delete set null (tree));`;
const returns = (name: string, parameters: string, type: string, body: string) =>
  `create function ${name}(${parameters}) returns ${type} immutable language plpgsql as $$ begin return ${body}; end $$;`;

/** What it is, the file, and the object that the refusal names. */
const refused: [string, string, string][] = [
  [
    'a domain’s check',
    `${reads} create domain d as int check (reads()); ${leaves('d')}`,
    'd_check on .*\\.d',
  ],
  [
    'a domain’s default',
    `${reads} ${returns('one', '', 'int', 'reads()::int')} create domain d as int default one()`,
    'd',
  ],
  [
    'an operator',
    `${reads} ${returns('same', 'int, int', 'boolean', '$1 = $2 or reads()')}
     create operator === (function = same, leftarg = int, rightarg = int); ${leaves('int', 'check (id === id),')}`,
    '===\\(integer,integer\\)',
  ],
  [
    'a cast',
    `${reads} create type p as (a int); create type f as (a int); ${returns('pf', 'p', 'f', 'case when reads() then row($1.a)::f end')}
     create cast (p as f) with function pf(p) as assignment;
     create table trees (tenant_id uuid not null, id p not null, primary key (tenant_id, id));
     create table leaves (tenant_id uuid not null, id int not null, tree f, primary key (tenant_id, id),
       foreign key (tenant_id, tree) references trees on update cascade)`,
    '\\(.*\\.p AS .*\\.f\\)',
  ],
  [
    'a function behind two others',
    `${reads} ${returns('second', '', 'boolean', 'reads()')} ${returns('first', 'int', 'boolean', 'second()')} ${leaves('int', 'check (first(tree)),')}`,
    'leaves_tree_check',
  ],
  [
    'a function behind a comment and capital letters',
    `${reads} ${returns('first', 'int', 'boolean', '"reads" /* ( */ ()')} ${leaves('int', 'g boolean generated always as (FIRST(tree)) stored,')}`,
    'leaves\\.g',
  ],
  [
    'an aggregate',
    `${returns('reads', 'boolean, boolean', 'boolean', 'exists (select from notes)')} create aggregate any_of (boolean) (sfunc = reads, stype = boolean);
     ${returns('first', 'int', 'boolean', 'any_of(true)')} ${leaves('int', 'check (first(tree)),')}`,
    'leaves_tree_check',
  ],
  [
    'an index’s expression',
    `${reads} ${returns('peek', 'text', 'text', 'case when reads() then $1 end')} create index notes_peek on notes (peek(body), tenant_id)`,
    'notes_peek',
  ],
  [
    'a body that PostgreSQL keeps parsed',
    `create function peek(text) returns text immutable language sql return (with n as (select body from notes) select min(body) from n);
     create index notes_peek on notes (peek(body), tenant_id)`,
    'notes_peek',
  ],
  [
    'a parsed body that writes',
    `create function peek(word text) returns text immutable language sql begin atomic delete from notes returning body; end;
     ${leaves('text', 'check (peek(tree) is null),').replaceAll('id int', 'id text')}`,
    'leaves_tree_check',
  ],
  [
    'a parsed body that runs a text',
    `create function peek(word text) returns text immutable language sql return query_to_xml('select body from notes', true, false, '')::text;
     ${leaves('text', 'check (peek(tree) is null),').replaceAll('id int', 'id text')}`,
    'leaves_tree_check',
  ],
  [
    'a function behind a parsed body',
    `${reads} create function peek(text) returns boolean immutable language sql return reads() and $1 = trim(both ' ' from $1);
     create index notes_peek on notes (peek(body), tenant_id)`,
    'notes_peek',
  ],
  [
    'an index’s condition',
    `${reads} ${returns('peek', 'text', 'boolean', 'reads()')} create index notes_peek on notes (tenant_id) where peek(body)`,
    'notes_peek',
  ],
  [
    'statistics',
    `${reads} ${returns('peek', 'text', 'text', 'case when reads() then $1 end')} create statistics notes_peek on (peek(body)) from notes`,
    'notes_peek',
  ],
  [
    'a partition’s key',
    `${reads} ${returns('part', 'int', 'int', '$1 + reads()::int')}
     create table parts (tenant_id uuid not null, id int not null, n int) partition by list (part(n))`,
    'parts',
  ],
  [
    'a trigger of rows that go to another partition',
    `create table trees (tenant_id uuid not null, id int not null, primary key (tenant_id, id));
     create table leaves (tenant_id uuid not null, id int not null, tree int not null, primary key (tenant_id, id, tree),
       foreign key (tenant_id, tree) references trees on update cascade) partition by list (tree);
     create function look() returns trigger language plpgsql as 'begin perform from notes; return new; end';
     create trigger look before insert on leaves for each row execute function look()`,
    'leaves\\.look',
  ],
  [
    'a text that a check runs',
    leaves('int', "check (query_to_xml('select count(*) from '||'notes', true, false, '') is not null),"),
    'leaves',
  ],
  [
    'a text that a default runs',
    leaves(`int default (length(table_to_xml('notes', true, false, '')::text))`),
    'leaves',
  ],
  [
    'a text that a domain runs',
    `create domain d as text check (query_to_xml('sel'||'ect 1', true, false, '') is not null)`,
    'd',
  ],
  [
    'a text that an operator runs',
    `create operator ===> (procedure = ts_rewrite, leftarg = tsquery, rightarg = text);
     ${leaves('int', "query text, check (('a'::tsquery ===> query) is not null or tree is null),")}`,
    '===>\\(pg_catalog\\.tsquery,pg_catalog\\.text\\)',
  ],
  [
    'a text that an aggregate runs',
    `create aggregate rewritten (text) (sfunc = ts_rewrite, stype = tsquery, initcond = 'a');
     create function is_rewritten(text) returns boolean language sql immutable as 'select rewritten($1) is not null';
     ${leaves('int', 'query text, check (is_rewritten(query)),')}`,
    'rewritten\\(pg_catalog\\.text\\)',
  ],
];

/** In a trigger before what a key’s action changes, whichever columns; most look like none. */
const hidden: [string, string][] = [
  ['that everybody sees', 'select count(*) into n from notes;'],
  ['on the line that ends a comment', '/*\n--*/ select count(*) into n from notes;'],
  ['on the line that ends a text', "s := '\n-- '; select count(*) into n from notes;"],
  ['behind a carriage return', '-- nothing\r select count(*) into n from notes;'],
  ['as a comparison', 'n := count(*) -- is distinct\n from notes;'],
  ['as a part of a date', 'n := count(*) -- extract(\n x from notes;'],
  ['in a block of its own', "do 'begin per'\n'form 1; end';"],
  ['in a text for XML', "s := query_to_xml('sel' || 'ect 1', true, false, '');"],
  ['that empties a table', 'truncate notes cascade;'],
  ['that opens a table', 'create policy everybody on notes using (true);'],
  ['that gives rights', 'grant all on notes to tenancy_app;'],
  ['behind a name in escapes', 'n := u&"re\\0061ds"();'],
];

/** Nothing of this reads a row. */
const sound = `create domain mail as text check (value like '%@%'); ${returns('folded', 'text', 'text', 'lower($1)')}
  ${returns('joined', 'text, text', 'text', 'folded($1) || folded($2)')}
  create function stamp() returns trigger language plpgsql as $$
    begin
      -- Taken from no table, and selected nowhere.
      if new.tree is distinct from old.tree then new.stamped := extract(epoch from now()); end if;
      return new;
    end $$;
  ${leaves('int', 'stamped bigint, word text, address mail, check (joined(word, word) is not null),')}
  create function words(text) returns text language sql immutable
    return trim(both ' ' from array_to_string(array(select distinct w from unnest(string_to_array($1, '_')) w), substring($1 from '^.')));
  create index leaves_words on leaves (words(word), tenant_id);
  create trigger stamp before update on leaves for each row execute function stamp();
  create index leaves_folded on leaves (joined(word, address), tenant_id);
  create statistics leaves_both on (folded(word)), tree from leaves;
  drop table leaves, trees; drop function words(text), stamp(), joined(text, text), folded(text); drop domain mail;`;

describe.each(strategies)('in a home of %s', (strategy) => {
  let number = 9100;
  const tenant = () => world.tenants[strategy].a;
  const refusal = async (sql: string, isSound: boolean) => {
    const file = parseMigration(`${++number}-x.sql`, sql);
    const error = await migrate(world, tenant(), [file], { isSound }).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'migration_refused' });
    return (error as Error).message;
  };

  it.each(refused)('%s that reads rows is refused', async (_, sql, object) => {
    for (const isSound of [true, false])
      expect(await refusal(sql, isSound)).toMatch(
        new RegExp(`(^|[ .])${object}[:,].* (runs statements|has an expression|runs a text)`, 'm'),
      );
  });

  it.each(hidden)('a statement %s is found', async (_, body) => {
    const trigger = `set check_function_bodies = off;
      create function look() returns trigger language plpgsql as $t$ declare n int; s text; begin ${body} return new; end $t$;
      ${leaves('int')} create trigger look before update on leaves for each row execute function look()`;
    expect(await refusal(trigger, true)).toMatch(/leaves\.look: runs statements/);
  });

  it('a word of a statement in a message counts, and whoever reads the refusal is told so', async () => {
    const says = `create function look() returns trigger language plpgsql as $$ begin
        if new.body is null then raise 'pick one from the list'; end if; return new; end $$;
      ${leaves('int')} create trigger look before update on leaves for each row execute function look()`;
    expect(await refusal(says, true)).toMatch(/leaves\.look: runs statements.* count wherever they stand/);
  });

  it('a function that notifies or writes large objects is refused', async () => {
    const writes = {
      tell: "perform pg_notify('changes', to_jsonb(new)::text);",
      keep: "perform lo_from_bytea(0, convert_to(new.body, 'UTF8'));",
    };
    for (const [name, body] of Object.entries(writes))
      expect(
        await refusal(
          `create function ${name}() returns trigger language plpgsql as $$ begin ${body} return null; end $$;
           create trigger ${name} after insert on notes for each row execute function ${name}()`,
          true,
        ),
      ).toMatch(new RegExp(`${name}\\(\\): passes values on`));
  });

  it('an index without a transaction is refused before its functions get a row', async () => {
    const { schema } = targetOf(world, tenant()).home;
    const files = [
      '-- shared\ncreate table seen (word text primary key)',
      `create function see(text) returns void language plpgsql as $$ begin insert into ${schema}.seen values ($1); end $$;
       ${returns('peek', 'text', 'text', `concat($1, ${schema}.see($1))`)}`,
    ].map((sql) => parseMigration(`${++number}-x.sql`, sql));
    await migrate(world, tenant(), files, { isSound: true });
    await world.database(tenant()).query("insert into notes (body) values ('a secret')");
    const index = '-- no-transaction\ncreate index concurrently peeks on notes (peek(body), tenant_id)';
    expect(await refusal(index, true)).toMatch(/\.peeks: runs statements/);
    expect((await world.database(tenant()).query('select * from seen')).rows).toEqual([]);
  });

  it('the function is named, and a text in SQL that may read no table is told how to be written', async () => {
    const written = (body: string) =>
      `create function initials(text[]) returns text language sql immutable ${body};
       create table phrases (tenant_id uuid not null, phrase_id uuid not null, words text[], primary key (tenant_id, phrase_id));
       create index phrases_initials on phrases (initials(words), tenant_id)`;
    const select = "select string_agg(left(word, 1), '') from unnest($1) word";
    const said = await refusal(written(`as $$ ${select} $$`), true);
    expect(said).toMatch(/phrases_initials: runs statements, in the function initials, with the rights of/);
    expect(said).toMatch(/where it reads no table .* `return \(select …\)` or `begin atomic … end`/);
    const file = parseMigration(`${++number}-x.sql`, written(`return (${select})`));
    expect(await migrate(world, tenant(), [file], { isSound: true })).toEqual([file.name]);
  });

  it('what calls functions without statements is taken', async () => {
    expect(targetOf(world, tenant()).home.strategy).toBe(strategy);
    const file = parseMigration(`${++number}-x.sql`, sound);
    expect(await migrate(world, tenant(), [file], { isSound: true })).toEqual([file.name]);
  });
});
