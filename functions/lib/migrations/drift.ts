import type { ControlConnection } from '../database/connect.ts';
import { asRole } from '../isolation/homes.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import { applyFiles } from './apply.ts';
import { type History, isText, readHistory } from './history.ts';
import type { MigrationFile } from './migration-file.ts';
import { inReference, withoutConcurrently } from './reference.ts';
import { versionNamed, versionOf } from './release.ts';
import type { MigrationTarget } from './script.ts';

/** One way in which a home is not what its version should be. */
export interface Drift {
  readonly object: string;
  readonly drift: string;
}

type Shape = ReadonlyMap<string, string>;

/**
 * As tenancy_provisioner, in the home's database: compares the home with one that is made here, from the files that the
 * home says it has, in a transaction that is rolled back. `references`: what was made so far, by version.
 * @returns also the newest version that the home has, which the release may lack
 */
export async function driftOf(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
  references: Map<string, Shape>,
): Promise<{ drifts: Drift[]; version: string | null }> {
  const { home } = target;
  const history = await asRole(connection, 'tenancy_owner', () => readHistory(connection, home));
  const drifts = historyDrifts(history, files);
  const applied = files.filter(({ name }) => history.get(name)?.isDone);
  const key = `${isolations[home.strategy].ownsTables} ${applied.map(({ checksum }) => checksum).join()}`;
  const reference = references.get(key) ?? (await referenceShape(connection, target, applied));
  references.set(key, reference);
  const actual = await asRole(connection, 'tenancy_owner', () => shapeOf(connection, home));
  const audited = await auditDrifts(connection, home);
  const newest = [...history]
    .flatMap(([name, { isDone }]) => (isDone ? [name] : []))
    .sort()
    .at(-1);
  return {
    drifts: [...drifts, ...differences(reference, actual), ...audited],
    version: newest === undefined ? null : versionNamed(newest),
  };
}

function historyDrifts(history: History, files: readonly MigrationFile[]): Drift[] {
  const known = new Map(files.map((file) => [file.name, file]));
  return [...history].flatMap(([name, { checksum, isDone }]) => {
    const object = `migration ${name}`;
    const file = known.get(name);
    if (file === undefined) return [{ object, drift: 'was applied, and is not in this release' }];
    if (!isText(file, checksum)) return [{ object, drift: 'was edited after it was applied' }];
    return isDone ? [] : [{ object, drift: 'has begun and not ended: `npm run tenants -- migrate run`' }];
  });
}

function differences(reference: Shape, actual: Shape): Drift[] {
  const missing = [...reference].filter(([object]) => !actual.has(object));
  const foreign = [...actual].filter(([object]) => !reference.has(object));
  const changed = [...actual].filter(
    ([object, definition]) => reference.has(object) && reference.get(object) !== definition,
  );
  return [
    ...missing.map(([object]) => ({ object, drift: 'is missing' })),
    ...foreign.map(([object]) => ({ object, drift: 'is in no migration' })),
    ...changed.map(([object, definition]) => ({
      object,
      drift: `is \`${definition}\`, should be \`${reference.get(object)}\``,
    })),
  ];
}

async function auditDrifts(connection: ControlConnection, home: Home): Promise<Drift[]> {
  const findings = await asRole(connection, 'tenancy_owner', () =>
    isolations[home.strategy].check(connection, [home]),
  );
  return findings.map(({ object, finding }) => ({ object, drift: finding }));
}

async function shapeOf(connection: ControlConnection, { schema, login }: Home): Promise<Shape> {
  const { rows } = await connection.query<{ object: string; definition: string }>(
    'select object, definition from tenancy.home_shape($1, $2)',
    [schema, login],
  );
  return new Map(rows.map(({ object, definition }) => [object, definition]));
}

/** What a home that has these files, and no others, looks like. */
function referenceShape(
  connection: ControlConnection,
  target: MigrationTarget,
  files: readonly MigrationFile[],
): Promise<Shape> {
  return inReference(connection, target, async (reference) => {
    await applyFiles(connection, reference, files.map(withoutConcurrently));
    await isolations[reference.home.strategy].complete(connection, [reference.home], 'whole');
    return shapeOf(connection, reference.home);
  }).catch((cause) => {
    throw new Error(`A reference home at ${versionOf(files)} could not be made`, { cause });
  });
}
