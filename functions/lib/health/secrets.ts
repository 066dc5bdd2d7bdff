import { type ControlConnection, withConnection } from '../database/connect.ts';
import { ConnectFailure } from '../database/failure.ts';
import { type DatabaseSecret, parseDatabaseSecret, tenantSecretName } from '../isolation/credentials.ts';
import { isolations } from '../isolation/isolation.ts';
import { finding, type HealthFinding } from './findings.ts';
import { type OwnedHome, readBusy, type Server } from './picture.ts';
import { inParallel, reasonOf, type Watch, within } from './watch.ts';

/** One secret is read in milliseconds; after this time, ms, it counts as one that can't be. */
const readMs = 5_000;
/** Tried at once: each is a connection of its tenant's own login. */
const width = 4;

/**
 * What stands in the tenants' secrets of these homes, all on one server: whether it leads new connections where the catalog
 * has the home, and whether the login takes the password. No value of a secret is told.
 */
export async function auditSecretsOf(
  { plane }: Pick<Watch, 'plane'>,
  catalog: ControlConnection,
  server: Server,
  homes: readonly OwnedHome[],
): Promise<HealthFinding[]> {
  const each = await inParallel(homes, width, async (home) => {
    const secret = isolations[home.strategy].secret(home, server, plane.loginsUse);
    // A login in a shared database has one only where no IAM is: on somebody's own machine.
    if (secret?.name !== tenantSecretName(home.tenant)) return [];
    const wrong = await wrongWith(plane, secret, home, server);
    if (wrong === undefined) return [];
    const [text, remedy] = wrong;
    const object = `secret ${secret.name} of ${home.slug}`;
    const found = finding('secrets', [home.strategy], object, `${text}: new connections fail`, remedy);
    return [{ home, found }];
  });
  if (each.flat().length === 0) return [];
  // Asked last: what has begun meanwhile changes home and secret one after the other.
  const busy = await readBusy(catalog);
  return each
    .flat()
    .filter(({ home }) => !busy.has(home.tenant))
    .map(({ found }) => found);
}

const restore = 'put its version before back (RUNBOOK.md, errors 5xx)';

/** @returns what is wrong, and what to do about it */
async function wrongWith(
  { secrets, tls }: Watch['plane'],
  { name, password: needsPassword }: { name: string; password: boolean },
  { database, login }: OwnedHome,
  { callHost, callPort }: Server,
): Promise<readonly [text: string, remedy: string] | undefined> {
  let known: DatabaseSecret;
  try {
    const text = await within(() => secrets.find(name), readMs);
    known = parseDatabaseSecret(name, text ?? '');
  } catch (error) {
    // Names the secret already, and no value of it.
    return [`can't be used (${reasonOf(error)})`, restore];
  }
  const wanted = { host: callHost, port: callPort, dbname: database, username: login };
  const other = Object.entries(wanted).flatMap(([field, value]) =>
    known[field as keyof typeof wanted] === value ? [] : field,
  );
  if (other.length > 0) return [`has another ${other.join(', ')} than the catalog`, restore];
  if (!needsPassword) return undefined;
  const { password } = known;
  if (password === undefined) return ['has no password', restore];
  try {
    const { host, port, dbname, username } = known;
    const endpoint = { host, port, database: dbname, login: username, password: async () => password, tls };
    await withConnection(endpoint, async () => {});
  } catch (error) {
    if (!(error instanceof ConnectFailure)) throw error;
    // Whatever else keeps it out is told of the server, the database or the login.
    if (error.meaning === 'credential')
      return ['has a password that its login is refused with', `${restore}, or give the login this password`];
  }
  return undefined;
}
