-- The example's tables: what a tenant has in stock, and every change of it.
--
-- One file serves all three strategies. Write names without a schema, `tenant_id uuid not null` without a default as the
-- first column, and tenant_id at the head of every primary key, unique key and foreign key. The migrator adds the rest for
-- each home (the default, row-level security or the check, grants, deferrable foreign keys, capture triggers), checks it in
-- this file's own transaction, and refuses the file when something would be left unprotected.
--
-- Columns that are searched or filtered are text with a CHECK rather than an enum, integer or bigint rather than numeric:
-- behind row-level security PostgreSQL uses an index only for conditions that are known not to leak.
--
-- Tools don't name the tenant in their conditions. In shared tables row-level security adds it, in a tenant's own tables
-- nothing does, and there a key that begins with tenant_id finds nothing. So what tools look up by gets an index that
-- begins with it and ends with tenant_id, and tables are joined by their whole key. Without tenant_id an index of a shared
-- table is looked up in among all tenants' values, before the wall: whether one is there could be told.

create table items (
  tenant_id uuid not null,
  item_id uuid not null default gen_random_uuid(),
  sku text not null check (char_length(sku) between 1 and 64),
  name text not null check (char_length(name) between 1 and 200),
  category text not null check (char_length(category) between 1 and 80),
  location text not null check (char_length(location) <= 80), -- where in the store: aisle, shelf, room
  unit text not null check (unit in ('piece', 'pack', 'box', 'pair', 'set', 'litre', 'metre', 'kilogram')),
  price_cents bigint not null check (price_cents >= 0), -- of one unit, in cents of the tenant's own currency
  quantity integer not null default 0 check (quantity >= 0), -- units; changed together with a stock movement only
  reorder_level integer not null default 0 check (reorder_level >= 0), -- at or below it, the item is low
  primary key (tenant_id, item_id),
  unique (tenant_id, sku)
);

create index items_sku on items (sku, tenant_id);
create index items_low on items (tenant_id, category) where quantity <= reorder_level;

create table stock_movements (
  tenant_id uuid not null,
  movement_id uuid not null default gen_random_uuid(),
  item_id uuid not null,
  change integer not null check (change <> 0),
  balance integer not null check (balance >= 0), -- units in stock after the change
  reason text not null check (reason in ('received', 'sold', 'used', 'returned', 'damaged', 'counted')),
  note text check (char_length(note) <= 500),
  made_by text not null, -- who called: a token's subject or an API key's id
  idempotency_key text not null check (char_length(idempotency_key) <= 100),
  -- Of the statement, not of its transaction: a call that waited for the item's row must not be dated before the one it waited for.
  made_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, movement_id),
  -- What makes a retried call change nothing twice.
  unique (tenant_id, idempotency_key),
  foreign key (tenant_id, item_id) references items (tenant_id, item_id)
);

create index stock_movements_history on stock_movements (item_id, made_at desc, movement_id desc, tenant_id);
