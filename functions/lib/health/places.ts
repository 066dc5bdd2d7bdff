import { canarySlugs } from './canaries.ts';
import type { Tally, Undone } from './in-a-row.ts';
import type { OwnedHome, Picture } from './picture.ts';
import type { Place } from './visit.ts';
import type { Proof } from './watch.ts';

/** The shared databases, always; beside them the databases of the homes whose turn it is, except where nobody is up. */
export function placesOf({ servers, homes }: Picture, away: ReadonlySet<string>): Place[] {
  const places = new Map<string, Place & { homes: OwnedHome[] }>();
  for (const server of servers)
    if (server.database !== null && server.databaseId !== null)
      places.set(nameOf(server.clusterId, server.database), {
        server,
        database: server.database,
        databaseId: server.databaseId,
        isShared: true,
        homes: [],
      });
  for (const home of homes) {
    const { clusterId, database, databaseId } = home;
    const server = servers.find((each) => each.clusterId === clusterId);
    if (server === undefined || away.has(clusterId)) continue;
    const key = nameOf(clusterId, database);
    if (!places.has(key)) places.set(key, { server, database, databaseId, isShared: false, homes: [] });
    places.get(key)!.homes.push(home);
  }
  return [...places.values()];
}

/** A shared database stands for all, another one for its homes. */
export const proofOf = (
  { isShared, homes, server, database }: Place,
  { strategies }: Picture,
  tally: Tally,
): Proof => ({
  strategies: isShared ? strategies : [...new Set(homes.map(({ strategy }) => strategy))],
  name: nameOf(server.clusterId, database),
  tally,
  isAlone: server.kind === 'dedicated',
});
const nameOf = (clusterId: string, database: string) => `${clusterId} ${database}`;

/** Without those of servers that are gone, or stopped: nobody is there. */
export const stillThere = (undone: Undone, { servers }: Picture, away: ReadonlySet<string>) =>
  Object.fromEntries(
    Object.entries(undone).filter(([name]) => {
      const server = name.split(' ')[0]!;
      return (
        !name.includes(' ') || (!away.has(server) && servers.some(({ clusterId }) => clusterId === server))
      );
    }),
  );

/** The canaries' are looked at in every run. */
export const isSampled = ({ slug }: Pick<OwnedHome, 'slug'>) => !canarySlugs.includes(slug);

/** The last home up to which all were looked at, or can't be: the next run goes on behind it. */
export function lastInARow(
  homes: readonly OwnedHome[],
  looked: ReadonlySet<string>,
  away: ReadonlySet<string>,
): string | undefined {
  let last: string | undefined;
  for (const { homeId, slug, clusterId } of homes) {
    if (!isSampled({ slug })) continue;
    if (!looked.has(homeId) && !away.has(clusterId)) break;
    last = homeId;
  }
  return last;
}
