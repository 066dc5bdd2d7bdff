import { catchUp, type Sides, tooFast } from './catch-up.ts';
import { always, type Digest, differs, digest, requireSame, suspects } from './diff.ts';
import { fence, letWritersIn, setState } from './hold.ts';
import { carryIdentities, identitiesOf } from './identities.ts';
import { carryLast, type LastChange, lastOf, prepareLast, readLast } from './last-changes.ts';
import { hashesOf, type Keys } from './rows.ts';
import { type Hold, reading } from './side.ts';
import { landing } from './staging.ts';
import type { MovedTable } from './tables.ts';
import { disableTriggers, enablingTriggers } from './triggers.ts';

/** Keys that may be left for the pause: some milliseconds' work. */
const FEW = 200;
/** Below this a round takes as long as its round trips: another one would not find fewer. */
const FEWEST = 20;
const ROUNDS = 40;
const ATTEMPTS = 10;
/** How often what differed may be the same a moment later, because a writer came upon it. */
const COMPARISONS = 5;

export interface Switched {
  /** How long writers were kept out, ms: it begins when the last of them has ended. */
  readonly pauseMs: number;
  /** Of each table, when both sides were compared in full. */
  readonly rows: Readonly<Record<string, number>>;
}

/** Puts both homes back to where a switch begins, whatever an earlier attempt has left; the catalog says that it did not decide. */
export async function unfence(
  { source, target }: Pick<Sides, 'source' | 'target'>,
  sourceState: 'open' | 'suspended',
) {
  // The target first: nobody holds its epoch yet, but never are two homes open.
  await setState(target, ['provisioning', 'moved', 'fenced', 'open'], 'provisioning', { capturing: false });
  await letWritersIn(source, sourceState, true);
}

/**
 * From a target that has landed to one that is the tenant's home: compares both in full, carries over what has changed
 * since, keeps writers out, carries over the last changes, lets the catalog decide and hands the tenant over.
 * @param decide the commit point; what it throws leaves open whether it was reached
 * @param goOn asked while both are compared, which takes minutes
 * @throws TenantryError `move_differs`, `move_refused`, `busy` while the tenant writes faster than it can be followed
 */
export async function switchOver(
  sides: Sides,
  epoch: number,
  decide: () => Promise<void>,
  goOn = always,
): Promise<Switched> {
  const { source, target } = sides;
  await disableTriggers(target, sides.tables);
  const { rows } = await compareInFull(sides, goOn);
  const identities = await identitiesOf(sides);
  const { from, changes, isKept } = await fenceWithFew(sides);
  await carryIdentities(sides, identities);
  // From its first writer on it captures for the way back.
  const serving = { capturing: true, epoch, first: enablingTriggers(target) };
  if (!(await carryLast(sides, changes, serving))) {
    await catchUp(sides, true, { isLast: true });
    await setState(target, landing, 'fenced', serving);
  }
  await isKept;
  await decide();
  // Until the source refuses its readers too, the target keeps writers out: those readers would not see what they write.
  await closeSource(source);
  await setState(target, ['fenced', 'open'], 'open', { capturing: true, isFlushed: false });
  return { pauseMs: performance.now() - from, rows };
}

/** Writers that were let in until the fence may have left more than they should now wait for: then they go on, and so do we. */
async function fenceWithFew(sides: Sides) {
  await prepareLast(sides);
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    await follow(sides);
    const carried = await followClosely(sides);
    const { from, rows, isKept } = await fence<LastChange>(sides.source, readLast(carried));
    const { changes, areTooMany } = lastOf(rows);
    if (!areTooMany) return { from, changes, isKept };
    await isKept;
    await letWritersIn(sides.source, 'open', true);
  }
  throw tooFast();
}

/**
 * In as few round trips as at the fence: less is left to the pause than by whole rounds, during which more changes.
 * @returns what was carried, and stays in the log
 */
async function followClosely(sides: Sides): Promise<string[]> {
  const carried: string[] = [];
  let before = Number.POSITIVE_INFINITY;
  for (;;) {
    const rows = await reading(sides.source, async (rows) => rows, readLast(carried));
    const { changes, entries, areTooMany } = lastOf(rows as readonly LastChange[]);
    if (areTooMany || changes.length === 0 || changes.length >= before) return carried;
    if (!(await carryLast(sides, changes))) return carried;
    carried.push(...entries);
    before = changes.length;
  }
}

/** Round after round carries over what changed during the one before, until that grows no smaller: the rest is the pause's. */
async function follow(sides: Sides): Promise<void> {
  let before = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= ROUNDS; round += 1) {
    const { changed } = await catchUp(sides, true);
    if (changed <= FEWEST || (changed <= FEW && changed >= before)) return;
    before = changed;
  }
  throw tooFast();
}

/** What an attempt that died behind the catalog's decision has left to do; a tenant that was suspended meanwhile stays so. */
export async function handOver(
  { source, target }: Pick<Sides, 'source' | 'target'>,
  to: 'open' | 'suspended',
) {
  await closeSource(source);
  await letWritersIn(target, to, true);
}

/**
 * What the catalog has decided, told to the source itself: it refuses every call, and calls look for their new route. On the
 * way back an attempt that died may have left the home, as `unfence` does, in `provisioning`.
 */
export const closeSource = (source: Hold) =>
  setState(source, ['open', 'fenced', 'suspended', 'moved', 'provisioning'], 'moved', { capturing: false });

/** Both sides at the same moment of the source, while it goes on. @throws TenantryError `move_differs` */
export async function compareInFull(sides: Sides, goOn = always): Promise<Pick<Switched, 'rows'>> {
  const { source, target, tables } = sides;
  let keys: Keys = new Map();
  for (let comparison = 0; comparison < COMPARISONS; comparison += 1) {
    const { meanwhile } = await catchUp(sides, true, { meanwhile: () => digest(source, tables, goOn) });
    keys = await suspects(sides, meanwhile, goOn);
    if (keys.size === 0) return { rows: countsOf(meanwhile) };
    // Once more at one moment: only what nobody has changed meanwhile differs still.
    const { meanwhile: here } = await catchUp(sides, true, { meanwhile: () => hashesOf(source, keys) });
    requireSame(keys, here, await reading(target, () => hashesOf(target, keys)));
    // A writer has come upon what differed, and its rows were carried over. Or they are not found by their keys.
  }
  throw differs([...keys.keys()].map(({ name }) => ({ table: name, keys: [] })));
}

const countsOf = (digests: ReadonlyMap<MovedTable, Digest>) =>
  Object.fromEntries([...digests].map(([{ name }, { rows }]) => [name, rows]));
