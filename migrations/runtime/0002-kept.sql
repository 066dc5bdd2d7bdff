-- What the functions keep outside the tables. Databases of the first releases have both. Run as tenancy_keeper.

-- Has no rows: how often it was read tells how often rows were refused, also where that error was caught.
create table if not exists tenancy.refusals ();

-- The secret of passes, of 126 bits. In sequences, because their last value is read by a plain function call: a query on a table costs
-- more than all else that current_tenant() does. Whoever may use the keeper's rights may read it.
do $$ begin
  if to_regclass('tenancy.pass_secret_1') is null then
    create sequence tenancy.pass_secret_1 minvalue 0;
    create sequence tenancy.pass_secret_2 minvalue 0;
    perform setval('tenancy.pass_secret_1', random.value), setval('tenancy.pass_secret_2', random.other)
       from (select ('x' || left(digest, 16))::bit(64)::bigint & 9223372036854775807 as value,
                    ('x' || right(digest, 16))::bit(64)::bigint & 9223372036854775807 as other
               from (select encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex') as digest) d) random;
  end if;
end $$;
