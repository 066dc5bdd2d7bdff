import type { Queryable } from '../../../functions/lib/database/types.ts';
import { type Catalogue, catalogues, type Kind } from './catalogues.ts';

export interface DemoOptions {
  /** The same seed gives the same inventory. */
  seed?: number;
  items?: number;
  /** When the last movements happened. */
  until?: Date;
}

export interface DemoItem {
  sku: string;
  name: string;
  category: string;
  location: string;
  unit: Kind['unit'];
  price_cents: number;
  quantity: number;
  reorder_level: number;
}

export interface DemoMovement {
  sku: string;
  change: number;
  balance: number;
  reason: string;
  note: string | null;
  made_by: string;
  made_at: Date;
}

export interface DemoInventory {
  items: DemoItem[];
  /** Of each item in the order in which they happened; the last balance is the item's quantity. */
  movements: DemoMovement[];
}

/** Rows per statement. */
const chunk = 1000;
const day = 86_400_000;

/** A believable inventory for one of the demo tenants. */
export function demoInventory(
  tenant: keyof typeof catalogues,
  { seed = 1, items: count = 2500, until = new Date() }: DemoOptions = {},
): DemoInventory {
  const random = randomOf(`${tenant}:${seed}`);
  const inventory: DemoInventory = { items: [], movements: [] };
  for (const item of pick(allItems(catalogues[tenant]), count, random)) {
    addItem(inventory, item, catalogues[tenant].places, until, random);
  }
  return inventory;
}

/**
 * Writes the inventory through the tenant's own connection, as a tool would. Rows that are there already stay as they are,
 * so that a seeding which was interrupted can be repeated.
 */
export async function seedInventory(db: Queryable, { items, movements }: DemoInventory): Promise<void> {
  for (const rows of chunks(items)) {
    await db.query(
      `insert into items (sku, name, category, location, unit, price_cents, quantity, reorder_level)
       select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::integer[], $8::integer[])
       on conflict (tenant_id, sku) do nothing`,
      columns(
        rows,
        'sku',
        'name',
        'category',
        'location',
        'unit',
        'price_cents',
        'quantity',
        'reorder_level',
      ),
    );
  }
  const numbered = movements.map((movement, index) => ({ ...movement, key: `demo-${index}` }));
  for (const rows of chunks(numbered)) {
    await db.query(
      `insert into stock_movements (item_id, change, balance, reason, note, made_by, made_at, idempotency_key)
       select item_id, change, balance, reason, note, made_by, made_at, key
         from unnest($1::text[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[])
           as m (sku, change, balance, reason, note, made_by, made_at, key)
         join items using (sku)
       on conflict (tenant_id, idempotency_key) do nothing`,
      columns(rows, 'sku', 'change', 'balance', 'reason', 'note', 'made_by', 'made_at', 'key'),
    );
  }
}

type Candidate = Omit<DemoItem, 'location' | 'quantity' | 'reorder_level'> & { delivery: number };

function allItems(catalogue: Catalogue): Candidate[] {
  return catalogue.kinds.flatMap((kind) => {
    const combinations = [...kind.variants, catalogue.makers].reduce<string[][]>(
      (made, list) => made.flatMap((words) => list.map((word) => [...words, word])),
      [[]],
    );
    const [cheapest, dearest] = kind.price;
    return combinations.map((words, index) => ({
      sku: `${kind.code}-${String(1001 + index)}`,
      name: `${kind.name}, ${words.join(', ')}`,
      category: kind.category,
      unit: kind.unit,
      // Dearer towards the end of the lists, ending in 9 as prices do.
      price_cents:
        Math.round((cheapest + ((dearest - cheapest) * index) / combinations.length) / 10) * 10 + 9,
      delivery: kind.delivery,
    }));
  });
}

/** An opening delivery and a few months of business; one item in ten runs low in the end. */
function addItem(
  inventory: DemoInventory,
  { delivery, ...candidate }: Candidate,
  places: readonly string[],
  until: Date,
  random: () => number,
): void {
  const between = (low: number, high: number) => low + Math.floor(random() * (high - low + 1));
  const one = <T>(list: readonly T[]): T => list[between(0, list.length - 1)]!;
  const reorder_level = Math.ceil(delivery / 4);
  const runsLow = random() < 0.1;
  let balance = 0;
  let made_at = new Date(until.getTime() - between(120, 240) * day);

  const move = (change: number, reason: string, note: string | null) => {
    if (change === 0) return;
    balance += change;
    inventory.movements.push({
      sku: candidate.sku,
      change,
      balance,
      reason,
      note,
      made_by: one(staff),
      made_at,
    });
    made_at = new Date(made_at.getTime() + random() * 0.5 * (until.getTime() - made_at.getTime()));
  };

  move(delivery, 'received', `Delivery ${between(10_000, 99_999)}`);
  for (let remaining = between(0, 6); remaining > 0; remaining--) {
    if (balance <= reorder_level) move(delivery, 'received', `Delivery ${between(10_000, 99_999)}`);
    else if (random() < 0.06) move(-1, 'damaged', one(damages));
    else if (random() < 0.05) move(1, 'returned', null);
    else move(-between(1, Math.min(balance - 1, Math.ceil(delivery / 3))), one(['sold', 'used']), null);
  }
  if (runsLow) move(between(0, reorder_level) - balance, 'sold', null);
  else if (balance <= reorder_level) move(delivery, 'received', `Delivery ${between(10_000, 99_999)}`);
  inventory.items.push({
    ...candidate,
    location: `${one(places)}, shelf ${between(1, 40)}`,
    quantity: balance,
    reorder_level,
  });
}

const staff = ['m.weber', 'l.okafor', 's.tanaka', 'j.silva', 'till-1', 'till-2'] as const;
const damages = ['Dropped while unpacking', 'Packaging torn', 'Water damage', 'Failed inspection'] as const;

/** `count` of the list in the list's own order; all of them when there are fewer. */
function pick<T>(list: T[], count: number, random: () => number): T[] {
  let wanted = Math.min(count, list.length);
  return list.filter((_, index) => {
    const taken = random() * (list.length - index) < wanted;
    if (taken) wanted--;
    return taken;
  });
}

function chunks<T>(rows: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(rows.length / chunk) }, (_, index) =>
    rows.slice(index * chunk, (index + 1) * chunk),
  );
}

/** One array a column, as `unnest` takes them: the statement stays short however many rows there are. */
function columns<T>(rows: readonly T[], ...names: (keyof T)[]): unknown[][] {
  return names.map((name) => rows.map((row) => row[name]));
}

/** Mulberry32 over a hash of the text: small, fast, and the same everywhere. */
function randomOf(text: string): () => number {
  let state = 2_166_136_261;
  for (const character of text) state = Math.imul(state ^ character.codePointAt(0)!, 16_777_619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
