import { describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { requireWhose } from '../../../functions/lib/migrations/whose-rows.ts';

/** In shared tables a migration reaches the rows of all tenants: what it joins without tenant_id it mixes. */
const read = (sql: string) => () =>
  requireWhose([
    parseMigration('0002-lands.sql', '-- shared\ncreate table if not exists lands (land text primary key)'),
    parseMigration('0003-told.sql', `select 1;\n${sql}`),
  ]);

describe('is refused, with line and remedy:', () => {
  it.each([
    'update orders o set email = p.email from people p where p.id = o.person',
    'update "Order" set email = "Person".email from "Person" where "Person".id = "Order".person',
    'update orders set number = n.number from (select id, row_number() over (order by made_at) as number from orders) n where n.id = orders.id',
    'update orders set total = (select sum(price) from lines where lines.order_id = orders.id)',
    'update orders set paid = true where id in (select order_id from payments)',
    'delete from people a using people b where a.id > b.id and a.email = b.email',
    'delete from lines where not exists (select from orders where orders.id = lines.order_id)',
    'insert into labels (id, name) select id, name from tags',
    'with paid as (select order_id from payments) update orders set paid = true from paid where paid.order_id = orders.id',
    'merge into orders o using people p on p.id = o.person when matched then update set email = p.email',
    "update orders set note = 'tenant_id' from people where people.id = orders.person",
  ])('%s', (sql) => {
    expect(read(sql)).toThrow(
      /^0003-told\.sql reads tenants’ rows without tenant_id, at line 2 .*: in shared/,
    );
  });
});

describe('is taken:', () => {
  it.each([
    'update orders o set email = p.email from people p where p.tenant_id = o.tenant_id and p.id = o.person',
    'insert into labels (tenant_id, id) select distinct tenant_id, gen_random_uuid() from tags',
    "update orders set made_on = date_trunc('day', made_at), year = extract(year from made_at), code = trim(both ' ' from code)",
    'update orders set words = (select string_agg(w, $$ $$) from unnest(tags) w) where tags is distinct from labels',
    "update orders set state = v.state from (values (1, 'open'), (2, 'paid')) v (number, state) where v.number = orders.number",
    "with v (number, state) as (values (1, 'open')) update orders set state = v.state from v where v.number = orders.number",
    'update orders set land = l.land from lands l where lower(l.land) = orders.land',
    'delete from orders where paid',
    'create view totals as select person, count(*) from orders join people on people.id = orders.person group by person',
  ])('%s', (sql) => {
    expect(read(sql)).not.toThrow();
  });
});
