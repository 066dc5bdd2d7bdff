import { findCluster, sharedCluster } from '../catalog/clusters.ts';
import { recordNextHome } from '../catalog/moves.ts';
import { findHome, type ReachableHome } from '../catalog/tenants.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { parseDatabaseSecret } from '../isolation/credentials.ts';
import { isolations } from '../isolation/isolation.ts';
import { isText, readHistory } from '../migrations/history.ts';
import { migrateHome } from '../migrations/migrator.ts';
import type { Sides } from '../move/catch-up.ts';
import { reading, type Side } from '../move/side.ts';
import { type ControlPlane, endpointOf } from './control-plane.ts';
import { recordMigrated } from './migrated.ts';
import type { MoveInput, Mover } from './move.ts';
import { instancePlace, sharedPlace } from './new-place.ts';
import { keepLoginSecret } from './place.ts';

/**
 * The home to move to, at the source's schema version, closed; safe to repeat.
 * @param goOn asked before whatever is made: it throws once the move has ended
 * @throws TenantryError `move_refused`
 */
export async function makeTarget(
  mover: Mover,
  catalog: ControlConnection,
  source: ReachableHome,
  { homeId, strategy, placement, clusterId: wanted }: MoveInput,
  goOn: () => Promise<void>,
): Promise<ReachableHome> {
  const { plane, release } = mover;
  const isolation = isolations[strategy];
  const own = isolation.place(placement);
  await goOn();
  const place =
    own === 'instance'
      ? await instancePlace(plane, catalog, homeId)
      : await sharedPlace(plane, await sharedCluster(catalog, wanted), homeId, own);
  const { clusterId, database, databaseId, host, port } = place;
  const names = isolation.name(homeId);
  await recordNextHome(catalog, {
    homeId,
    tenant: source.tenant,
    strategy,
    clusterId,
    database,
    databaseId,
    ...names,
    epoch: source.epoch + 1,
  });
  const home = (await findHome(catalog, homeId))!;
  const secret = isolation.secret(home, place, plane.loginsUse);
  const at = { host, port, dbname: database, username: home.login };
  const isKept = secret !== undefined && secret.name === secretOf(plane, source);
  await goOn();
  const password =
    secret && (await (isKept ? addPassword(plane, secret) : keepLoginSecret(plane, secret, at)));
  await goOn();
  await withConnection(place.admin, (connection) => isolation.provision(connection, home, password));
  if (isolation.ownsTables) {
    const files = await filesOf(mover, source);
    await withConnection(place.admin, (connection) =>
      migrateHome(connection, { home, databaseId, keys: plane.keys }, files),
    );
    await recordMigrated(catalog, home, release, files);
  }
  return home;
}

/** A tenant's databases have one secret, and one password: it tells of the new one when that is in use. */
async function addPassword(
  plane: ControlPlane,
  { name, password }: { name: string; password: boolean },
): Promise<string | undefined> {
  if (!password) return undefined;
  const { host, port, dbname, username } = parseDatabaseSecret(name, await plane.secrets.read(name, true));
  return keepLoginSecret(plane, { name, password }, { host, port, dbname, username });
}

/** The files that the source has: a tenant that is pinned keeps its version where it goes. */
async function filesOf({ plane, release }: Mover, source: ReachableHome) {
  const history = await withConnection(endpointOf(plane, source), async (connection) => {
    await connection.query('begin read only; set local role tenancy_owner');
    const history = await readHistory(connection, source);
    await connection.query('commit');
    return history;
  });
  const files = release.home.filter(({ name }) => history.get(name)?.isDone);
  if (files.length !== history.size)
    throw new TenantryError(
      'move_refused',
      'This home has migrations that this release lacks, or one that has not ended. Deploy and migrate first.',
    );
  return files;
}

/** @throws TenantryError `move_refused` when one home has migrations that the other lacks */
export async function requireSameSchema({ release }: Mover, { source, target }: Sides): Promise<void> {
  const filesOf = (side: Side) => reading(side, () => readHistory(side.connection, side.home));
  const [here, there] = [await filesOf(source), await filesOf(target)];
  const names = new Set([...here.keys(), ...there.keys()]);
  const inBoth = release.home.filter((file) =>
    [here, there].every((history) => {
      const applied = history.get(file.name);
      return applied?.isDone && isText(file, applied.checksum);
    }),
  );
  const differing = [...names].filter((name) => !inBoth.some((file) => file.name === name));
  if (differing.length > 0)
    throw new TenantryError(
      'move_refused',
      `Its home and the one to move to are not at the same schema version: ${differing.sort().join(', ')}. Run \`npm run tenants -- migrate run\` first.`,
    );
}

/** The secret that a home's login has; what kind of cluster it is in decides only whether a password is in it. */
export function secretOf(plane: ControlPlane, home: ReachableHome): string | undefined {
  return isolations[home.strategy].secret(
    home,
    { clusterId: home.clusterId, kind: 'shared' },
    plane.loginsUse,
  )?.name;
}

/** A tenant's secret says where its database is: the one in use now. While there is another, it keeps the password, which is that of both. */
export async function tellSecret(
  plane: ControlPlane,
  catalog: ControlConnection,
  home: ReachableHome,
  isOnlyHome = false,
): Promise<void> {
  const { host, port, kind } = (await findCluster(catalog, home.clusterId))!;
  const secret = isolations[home.strategy].secret(home, { clusterId: home.clusterId, kind }, plane.loginsUse);
  if (secret === undefined) return;
  const password = secret.password || (isOnlyHome ? false : 'as it is');
  const at = { host, port, dbname: home.database, username: home.login };
  await keepLoginSecret(plane, { name: secret.name, password }, at);
}
