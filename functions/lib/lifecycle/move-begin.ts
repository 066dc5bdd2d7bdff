import { randomUUID } from 'node:crypto';
import { type Cluster, countHomes, type SharedDatabase, sharedClusters } from '../catalog/clusters.ts';
import { type MoveCandidate, moveCandidates } from '../catalog/move-candidates.ts';
import { recordMove } from '../catalog/moves.ts';
import type { ReachableHome } from '../catalog/tenants.ts';
import type { ControlConnection } from '../database/connect.ts';
import { TenantryError } from '../errors.ts';
import { isolations, owningStrategies } from '../isolation/isolation.ts';
import type { Placement, Strategy } from '../tenant/tenant.ts';
import { ownOf } from './leaving-homes.ts';
import type { MoveInput } from './move.ts';
import { beginRecorded, type Operation, operationOfKey } from './operations.ts';

export interface MoveRequest {
  readonly slug: string;
  readonly to: Strategy;
  /** Of a database: an instance of its own, or beside others. */
  readonly placement: Placement;
  /** The shared cluster to go to; undefined: the one it is in, from an instance of its own the first one. */
  readonly cluster?: string | undefined;
  /** How long the way back stays open, s; until `complete` at the latest. */
  readonly windowSeconds: number;
}

/** Where a move goes. */
export interface Destination {
  readonly source: ReachableHome;
  readonly own: 'shared' | 'database' | 'instance';
  /** undefined: an instance of its own. */
  readonly clusterId: string | undefined;
}

/**
 * Begins to move a tenant, or answers the move that this key has begun.
 * @throws TenantryError `unknown_tenant`, `wrong_status`, `move_refused`, `idempotency_conflict`; `operation_running`:
 *   another operation is changing this tenant, or a migration run is under way
 */
export async function beginMove(
  catalog: ControlConnection,
  request: MoveRequest,
  idempotencyKey?: string,
): Promise<Operation<'move'>> {
  const known = idempotencyKey && (await operationOfKey(catalog, idempotencyKey, 'move', request));
  if (known) return known;
  const { slug, to, placement, windowSeconds } = request;
  const candidate = await requireCandidate(catalog, request);
  const { source, own, clusterId } = destinationOf(candidate, request, await readRoom(catalog));
  const { tenant } = source;
  const homeId = randomUUID();
  const input: MoveInput = {
    homeId,
    sourceHome: source.homeId,
    from: source.strategy,
    slug,
    strategy: to,
    placement,
    clusterId,
    instances: [
      ...(ownOf(source) === 'instance' ? [source.homeId] : []),
      ...(own === 'instance' ? [homeId] : []),
    ],
    windowSeconds,
  };
  const wanted = { kind: 'move', tenant, request, input, idempotencyKey } as const;
  return beginRecorded(catalog, wanted, async (operation) => {
    // Whoever pins it waits from here on, and then sees a move.
    refusePinned(await requireCandidate(catalog, request), to);
    // With it, so that it can be cancelled before its first step, and whoever looks sees a move.
    await recordMove(catalog, moveOf(operation));
  });
}

/** Shared tables are all at one version: there its pin would hold nothing. @throws TenantryError `move_refused` */
function refusePinned({ slug, home, pin }: MoveCandidate, to: Strategy): void {
  if (home === undefined || pin === undefined) return;
  if (!isolations[home.strategy].ownsTables || isolations[to].ownsTables) return;
  throw refused(
    `${slug} is pinned to ${pin.version} until ${pin.until.toISOString().slice(0, 10)}, and shared tables are all at one version: npm run tenants -- migrate unpin ${slug}`,
  );
}

/** @throws TenantryError `unknown_tenant` */
export async function requireCandidate(
  catalog: ControlConnection,
  { slug, cluster }: Pick<MoveRequest, 'slug' | 'cluster'>,
): Promise<MoveCandidate> {
  const [candidate] = await moveCandidates(catalog, { slug }, cluster);
  if (candidate === undefined) throw new TenantryError('unknown_tenant', `There is no tenant ${slug}.`);
  return candidate;
}

/** What the state machine is told: whether there is an instance to make. */
export const machineInput = ({ operationId, input: { homeId, instances } }: Operation<'move'>) => ({
  operation: operationId,
  input: { placement: instances.includes(homeId) ? 'dedicated' : 'shared' },
});

/** Whether this home is where a move of this kind would take its tenant. */
export function isThere(
  home: ReachableHome,
  { to, placement, cluster }: Pick<MoveRequest, 'to' | 'placement' | 'cluster'>,
): boolean {
  const own = isolations[to].place(placement);
  if (home.strategy !== to || ownOf(home) !== own) return false;
  return own === 'instance' || cluster === undefined || home.clusterId === cluster;
}

/** The shared clusters, and how many homes with a login of their own each cluster has. */
export interface Room {
  readonly clusters: readonly (Cluster & SharedDatabase)[];
  readonly homes: ReadonlyMap<string, number>;
}

export const readRoom = async (catalog: ControlConnection): Promise<Room> => ({
  clusters: await sharedClusters(catalog),
  homes: await countHomes(catalog, owningStrategies),
});

/** Its present home, and where it goes. @throws TenantryError `wrong_status`, `move_refused`, `tenant_not_served` */
export function destinationOf(
  candidate: MoveCandidate,
  { to, placement, cluster }: Pick<MoveRequest, 'to' | 'placement' | 'cluster'>,
  { clusters, homes }: Room,
): Destination {
  const { slug, status, isCanary, home: source } = candidate;
  if (status !== 'active')
    throw new TenantryError('wrong_status', `Only an active tenant can be moved: ${slug} is ${status}.`);
  if (isCanary) throw refused(`${slug} is the product's own: it watches its strategy.`);
  if (source === undefined) throw new TenantryError('tenant_not_served', 'This tenant has no home.');
  refusePinned(candidate, to);
  const own = isolations[to].place(placement);
  if (own === 'instance') {
    if (cluster !== undefined)
      throw refused('An instance of its own is in no cluster: leave the cluster out.');
    if (ownOf(source) === 'instance') throw refused(`${slug} has an instance of its own already.`);
    return { source, own, clusterId: undefined };
  }
  const here = clusters.find(({ clusterId }) => clusterId === source.clusterId);
  const there =
    cluster === undefined ? (here ?? clusters[0]) : clusters.find(({ clusterId }) => clusterId === cluster);
  if (there === undefined)
    throw refused(
      `There is no shared cluster ${cluster}. There are: ${clusters.map(({ clusterId, adminHost }) => `${clusterId} (${adminHost})`).join(', ')}.`,
    );
  if (to === source.strategy && own === ownOf(source) && there.clusterId === source.clusterId)
    throw refused(
      `${slug} is kept apart by ${to} in this cluster already.${clusters.length > 1 ? ' Name another cluster to move it there.' : ''}`,
    );
  // With one more home of the same cluster nothing changes there.
  if (isolations[to].ownsTables && there.clusterId !== source.clusterId) {
    const count = homes.get(there.clusterId) ?? 0;
    if (count >= homesPerCluster)
      throw refused(
        `The cluster ${there.clusterId} has ${count} homes with a login of their own, and room for ${homesPerCluster}. Name another cluster, or give it an instance of its own: --to database.`,
      );
  }
  return { source, own, clusterId: there.clusterId };
}

/** Logins of their own that one server was tried with. */
const homesPerCluster = 2_000;

const refused = (message: string) => new TenantryError('move_refused', message);

/** As the catalog records it. */
export const moveOf = ({ operationId, tenant, input }: Operation<'move'>) => ({
  operationId,
  tenant,
  sourceHome: input.sourceHome,
  targetHome: input.homeId,
  windowSeconds: input.windowSeconds,
});
