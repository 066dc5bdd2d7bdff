import { type ControlConnection, withConnection } from '../database/connect.ts';
import { catalogDatabase } from '../isolation/catalog-reader.ts';
import type { MasterKeys } from '../isolation/context.ts';
import { catalogEndpoint } from '../lifecycle/control-plane.ts';
import { auditInstances, auditSecrets, auditSigningKeys } from './account.ts';
import { auditDatabase } from './audit-database.ts';
import { auditUntried, findCanaries, type Pair, provisionCanary } from './canaries.ts';
import { type Check, checks, finding, type HealthFinding, type HealthState, stateOf } from './findings.ts';
import { type Tally, tallyFrom } from './in-a-row.ts';
import { auditPublicUrl } from './outside.ts';
import { type Picture, readPicture } from './picture.ts';
import { isSampled, lastInARow, placesOf, proofOf, stillThere } from './places.ts';
import { type HealthReport, type Next, readNext, saveRecord } from './record.ts';
import { auditFunctions, type Runtimes } from './runtime.ts';
import { auditMoves, auditOperations, auditQuarantine, auditTenants } from './upkeep.ts';
import { type Visit, visit } from './visit.ts';
import { tryWalls } from './walls.ts';
import { inParallel, part, reasonOf, takingTurns, type Watch, within } from './watch.ts';

/** Homes with tables of their own that one run looks at: two thousand come round in less than an hour. */
const homesAtOnce = 48;
/** No further home, and no database but a shared one, is begun after this time, ms: what is left comes first in the next run. */
const homesMs = 10_000;
/** For a whole database, ms: what was begun at the last moment still ends long before the function's time is up. */
const placeMs = 20_000;
/** Databases looked into at once: each is a connection of the reserve. */
const width = 4;
/** A tool call that takes longer, ms, is not answered; the function itself gives up later. */
const probeMs = 20_000;
/** What everything waits for, ms: an address of AWS that never answers must not keep the run from its end. */
const awsMs = 5_000;
const kept = 200;

export interface HealthRun {
  readonly state: HealthState;
  readonly report: HealthReport;
}

/**
 * One run: tries the walls with the canaries' logins, audits every server and the databases whose turn it is, compares
 * the catalog with what is there, and records what it found. Undefined: another run is under way.
 * @throws when the catalog can't be reached: then there is no record, and its absence is the alarm
 */
export async function runCanary(
  watch: Watch,
  clock = Date.now,
  size = homesAtOnce,
): Promise<HealthRun | undefined> {
  return withConnection(catalogEndpoint(watch.plane), async (connection) => {
    await connection.query("set statement_timeout = '5s'");
    const catalog = takingTurns(connection);
    const { rows } = await catalog.query<{ first: boolean }>(
      `select pg_try_advisory_lock(hashtext('tenancy.canary'), 0) as first`,
    );
    if (!rows[0]!.first) return undefined;
    const started = clock();
    const next = await readNext(catalog);
    const seen = await look(watch, catalog, next, started, clock, size);
    const run = { state: stateOf(seen.report.findings), report: { ...seen.report, ms: clock() - started } };
    await saveRecord(catalog, new Date(started), run.state, run.report, seen.next);
    return run;
  });
}

async function look(
  watch: Watch,
  catalog: ControlConnection,
  next: Next,
  now: number,
  clock: () => number,
  size: number,
): Promise<{ report: Omit<HealthReport, 'ms'>; next: Next }> {
  const picture = await readPicture(catalog, next.after, size);
  const [{ keys, findings: keyless }, dedicated] = await Promise.all([
    readKeys(watch, picture),
    lookAtInstances(watch, picture),
  ]);
  const places = placesOf(picture, dedicated.away);
  const { pairs, missing } = await findCanaries(catalog, picture.strategies);
  const results: Visit[] = [];
  const looked = new Set<string>();
  const runtimes: Runtimes[] = [];
  const counts = { failed: 0, quarantined: 0 };
  const tally = tallyFrom(next.undone);
  const isLate = () => clock() >= now + homesMs;
  // However late it is, one has its turn: shared databases that don't answer must not keep all others from theirs for ever.
  const first = places.find(({ isShared, homes }) => !isShared && homes.some(isSampled));

  const parts = await Promise.all([
    ...pairs.map((pair) => walls(watch, keys, pair, now, tally)),
    ...pairs.map((pair) => dataPath(watch, pair)),
    // Beside all else: while one can't be begun, the others' walls are tried.
    ...missing.map((canary) => part(canary.slug, () => provisionCanary(watch, catalog, canary))),
    auditPublicUrl(watch, catalog, pairs, now),
    inParallel(places, width, async (place) => {
      if (!place.isShared && isLate() && place !== first) return [];
      let result: Visit | undefined;
      const inspect = async () => {
        result = await visit(watch, catalog, picture, keys, place, next, isLate, found);
        return [];
      };
      const found: HealthFinding[] = [];
      const failure = await part(`database ${place.database}`, inspect, {
        ms: placeMs,
        proof: proofOf(place, picture, tally),
      });
      if (result !== undefined) {
        results.push(result);
        runtimes.push(result.runtimes);
      }
      // One that can't be reached must not keep the others from their turn.
      for (const homeId of result?.looked ?? place.homes.map((home) => home.homeId)) looked.add(homeId);
      return [...found, ...failure];
    }).then((each) => each.flat()),
    part(
      'the catalog’s database',
      async () => {
        const all = picture.strategies;
        const functions = await auditFunctions(catalog, 'catalog', catalogDatabase, all, next.runtimes);
        runtimes.push(functions.runtimes);
        const rows = await auditDatabase(catalog, []);
        return [
          ...functions.findings,
          ...rows.map((row) => finding(row.check, all, row.object, row.finding, row.remedy)),
        ];
      },
      { proof: { strategies: picture.strategies, name: 'catalog', tally } },
    ),
    part('tenants', () => auditTenants(catalog)),
    part('moves', () => auditMoves(watch, catalog, now)),
    part('operations', async () => {
      const { failed, findings } = await auditOperations(catalog);
      counts.failed = failed;
      return findings;
    }),
    part('quarantined homes', async () => {
      const { quarantined, findings } = await auditQuarantine(catalog);
      counts.quarantined = quarantined;
      return findings;
    }),
    part('secrets', () => auditSecrets(watch, catalog, picture, next.secrets)),
    part('the pair that signs API keys', () => auditSigningKeys(watch)),
  ]);
  const tried = keys === undefined ? [] : pairs.map(({ strategy }) => strategy);
  const untried = auditUntried(picture.strategies, tried, tally);
  const findings = distinct([...keyless, ...untried, ...dedicated.findings, ...parts.flat()]);
  return {
    report: {
      strategies: picture.strategies,
      checks: verdicts(findings),
      findings: findings.slice(0, kept),
      found: findings.length,
      sessionLocks: results.reduce((sum, result) => sum + result.sessionLocks, 0),
      operationsFailed: counts.failed,
      homesQuarantined: counts.quarantined,
      homes: looked.size,
    },
    next: {
      after: lastInARow(picture.homes, looked, dedicated.away) ?? next.after,
      secrets: (next.secrets + 1) % 16,
      // What a place has seen for the first time is compared from now on; what was known stays as it was.
      runtimes: Object.assign({}, ...runtimes, next.runtimes),
      passes: Object.assign({}, ...results.map(({ passes }) => passes), next.passes),
      undone: stillThere(tally.undone, picture, dedicated.away),
    },
  };
}

async function lookAtInstances(watch: Watch, picture: Picture) {
  try {
    return auditInstances(picture, await within(() => watch.instances(), awsMs));
  } catch (error) {
    const text = `could not be listed: ${reasonOf(error)}`;
    const findings = [finding('unfinished', [], 'dedicated instances', text, 'the next run tries it again')];
    return { findings, away: new Set<string>() };
  }
}

async function readKeys(
  watch: Watch,
  { strategies }: Picture,
): Promise<{ keys: MasterKeys | undefined; findings: HealthFinding[] }> {
  try {
    return { keys: await within(() => watch.readKeys(), awsMs), findings: [] };
  } catch (error) {
    const text = `can't be used: ${reasonOf(error)} New environments can't serve`;
    const remedy = 'restore the secret within its recovery window';
    const object = `secret ${watch.keySecrets.contextKeySecret}`;
    return { keys: undefined, findings: [finding('signing_keys', strategies, object, text, remedy)] };
  }
}

async function walls(
  watch: Watch,
  keys: MasterKeys | undefined,
  pair: Pair,
  now: number,
  tally: Tally,
): Promise<HealthFinding[]> {
  if (keys === undefined) return [];
  return part(`the canaries of ${pair.strategy}`, () => tryWalls(watch, keys, pair, now), {
    proof: { strategies: [pair.strategy], name: pair.strategy, tally },
  });
}

/** One canary that does not answer is that canary's own trouble; when neither does, nobody's call gets through. */
async function dataPath(watch: Watch, { strategy, a, b }: Pair): Promise<HealthFinding[]> {
  const failures = await Promise.all(
    [a, b].map((route) =>
      within(() => watch.probe(route.tenant), probeMs).then(
        () => undefined,
        (error) => ({ slug: route.slug, reason: reasonOf(error) }),
      ),
    ),
  );
  const failed = failures.filter((failure) => failure !== undefined);
  const risk = failed.length === 2 ? 'service' : 'none';
  return failed.map(({ slug, reason }) =>
    finding(
      'data_path',
      [strategy],
      slug,
      `a tool call failed: ${reason}`,
      `npm run tenants -- health ${slug}`,
      risk,
    ),
  );
}

const gravity = { isolation: 0, service: 1, none: 2 } as const;

/** Once each, the worst first. */
function distinct(findings: readonly HealthFinding[]): HealthFinding[] {
  const each = new Map(findings.map((one) => [`${one.check} ${one.object} ${one.finding}`, one]));
  return [...each.values()].sort((one, other) => gravity[one.risk] - gravity[other.risk]);
}

function verdicts(findings: readonly HealthFinding[]): Record<Check, 'ok' | 'red'> {
  const red = new Set(findings.map(({ check }) => check));
  const verdict = (check: string) => [check, red.has(check as Check) ? 'red' : 'ok'];
  return Object.fromEntries(Object.keys(checks).map(verdict));
}
