import { withConnection } from '../database/connect.ts';
import { catalogDatabase } from '../isolation/catalog-reader.ts';
import type { MasterKeys } from '../isolation/context.ts';
import { catalogEndpoint } from '../lifecycle/control-plane.ts';
import { auditInstances, auditSecrets, auditSigningKeys } from './account.ts';
import { auditDatabase } from './audit-database.ts';
import { auditUntried, findCanaries, type Pair, provisionCanary } from './canaries.ts';
import { type Check, checks, finding, type HealthFinding, type HealthState, stateOf } from './findings.ts';
import { tallyFrom } from './in-a-row.ts';
import { auditPublicUrl } from './outside.ts';
import { type Picture, readPicture } from './picture.ts';
import { isSampled, lastInARow, placesOf, proofOf, stillThere } from './places.ts';
import { type HealthReport, type Next, readNext, saveRecord } from './record.ts';
import { auditFunctions, type Runtimes } from './runtime.ts';
import { auditMoves, auditOperations, auditQuarantine, auditTenants } from './upkeep.ts';
import { type Place, type Visit, visit } from './visit.ts';
import { tryWalls } from './walls.ts';
import { inParallel, part, type Run, reasonOf, takingTurns, type Watch, within } from './watch.ts';

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
    const now = clock();
    const known = await readNext(catalog);
    const picture = await readPicture(catalog, known.after, size);
    const [{ keys, findings: keyless }, dedicated] = await Promise.all([
      readKeys(watch, picture),
      lookAtInstances(watch, picture),
    ]);
    const tally = tallyFrom(known.undone);
    const isLate = () => clock() >= now + homesMs;
    const run: Run = { watch, catalog, picture, keys, known, tally, now, isLate };
    const seen = await look(run, [...keyless, ...dedicated.findings], dedicated.away);
    const report = { ...seen.report, ms: clock() - now };
    const state = stateOf(report.findings);
    await saveRecord(catalog, new Date(now), state, report, seen.next);
    return { state, report };
  });
}

async function look(
  run: Run,
  before: readonly HealthFinding[],
  away: ReadonlySet<string>,
): Promise<{ report: Omit<HealthReport, 'ms'>; next: Next }> {
  const { watch, catalog, picture, known, tally, now, isLate } = run;
  const places = placesOf(picture, away);
  const { pairs, missing } = await findCanaries(catalog, picture.strategies);
  let ofCatalog: Runtimes = {};
  const counts = { failed: 0, quarantined: 0 };
  // However late it is, one has its turn: shared databases that don't answer must not keep all others from theirs for ever.
  const first = places.find(({ isShared, homes }) => !isShared && homes.some(isSampled));

  const [inspected, ...parts] = await Promise.all([
    inParallel(places, width, async (place) =>
      place.isShared || place === first || !isLate() ? inspect(run, place) : undefined,
    ).then((all) => all.filter((one) => one !== undefined)),
    ...pairs.map((pair) => walls(run, pair)),
    ...pairs.map((pair) => dataPath(watch, pair)),
    // Beside all else: while one can't be begun, the others' walls are tried.
    ...missing.map((canary) => part(canary.slug, () => provisionCanary(watch, catalog, canary))),
    auditPublicUrl(watch, catalog, pairs, now),
    part(
      'the catalog’s database',
      async () => {
        const all = picture.strategies;
        const functions = await auditFunctions(catalog, 'catalog', catalogDatabase, all, known.runtimes);
        ofCatalog = functions.runtimes;
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
    part('secrets', () => auditSecrets(watch, catalog, picture, known.secrets)),
    part('the pair that signs API keys', () => auditSigningKeys(watch)),
  ]);
  const tried = run.keys === undefined ? [] : pairs.map(({ strategy }) => strategy);
  const untried = auditUntried(picture.strategies, tried, tally);
  const findings = distinct([
    ...before,
    ...untried,
    ...inspected.flatMap((one) => one.findings),
    ...parts.flat(),
  ]);
  const visits = inspected.flatMap((one) => one.visit ?? []);
  const looked = new Set(inspected.flatMap((one) => one.looked));
  return {
    report: {
      strategies: picture.strategies,
      checks: verdicts(findings),
      findings: findings.slice(0, kept),
      found: findings.length,
      sessionLocks: visits.reduce((sum, one) => sum + one.sessionLocks, 0),
      operationsFailed: counts.failed,
      homesQuarantined: counts.quarantined,
      homes: looked.size,
    },
    next: {
      after: lastInARow(picture.homes, looked, away) ?? known.after,
      secrets: (known.secrets + 1) % 16,
      // What a place has seen for the first time is compared from now on; what was known stays as it was.
      runtimes: Object.assign({}, ofCatalog, ...visits.map(({ runtimes }) => runtimes), known.runtimes),
      passes: Object.assign({}, ...visits.map(({ passes }) => passes), known.passes),
      undone: stillThere(tally.undone, picture, away),
    },
  };
}

/** Looks into one database. What was found before it failed counts too. */
async function inspect(
  run: Run,
  place: Place,
): Promise<{ findings: HealthFinding[]; looked: readonly string[]; visit: Visit | undefined }> {
  const found: HealthFinding[] = [];
  let made: Visit | undefined;
  const work = async () => {
    made = await visit(run, place, found);
    return [];
  };
  const proof = proofOf(place, run.picture, run.tally);
  const failure = await part(`database ${place.database}`, work, { ms: placeMs, proof });
  // One that can't be reached must not keep the others from their turn.
  const looked = made?.looked ?? place.homes.map(({ homeId }) => homeId);
  return { findings: [...found, ...failure], looked, visit: made };
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

async function walls({ watch, keys, now, tally }: Run, pair: Pair): Promise<HealthFinding[]> {
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
