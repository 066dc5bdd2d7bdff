import type { Route } from '../catalog/route.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import type { Endpoint } from '../database/types.ts';
import { type ContextClaims, type MasterKeys, signContext } from '../isolation/context.ts';
import { isolations } from '../isolation/isolation.ts';
import type { Pair } from './canaries.ts';
import { type Check, finding, type HealthFinding } from './findings.ts';
import type { Watch } from './watch.ts';

/** What PostgreSQL answered to the last of some statements: rows, or an SQLSTATE. */
type Answer =
  | { readonly rows: Record<string, unknown>[]; readonly count: number }
  | { readonly code: string };
type Statement = readonly [text: string, values?: readonly unknown[]];

const enter = (context: string): Statement => ['select tenancy.enter($1)', [context]];
const refused = (answer: Answer, ...codes: string[]) => 'code' in answer && codes.includes(answer.code);
const said = (answer: Answer) =>
  'code' in answer ? `answered ${answer.code}` : `was let through (${answer.count} rows)`;

/**
 * Tries the walls between two canaries with `a`'s own login, as an injected statement would have it. Everything twice on
 * one connection: what the first round leaves behind must not open the second.
 * @throws ConnectFailure when a canary's database does not let its own login in
 */
export async function tryWalls(
  { plane }: Pick<Watch, 'plane'>,
  keys: MasterKeys,
  pair: Pair,
  now: number,
): Promise<HealthFinding[]> {
  const endpoints = await Promise.all(
    [pair.a, pair.b].map((route) =>
      isolations[route.strategy].locate(route, plane.credentials, plane.tls, true),
    ),
  );
  const [a, b] = endpoints as [Endpoint, Endpoint];
  const other = signer(keys, pair.b, now)();
  await withConnection(b, (connection) => leaveMarker(connection, pair.b, other));
  return withConnection(a, async (connection) => {
    await leaveMarker(connection, pair.a, signer(keys, pair.a, now)());
    const findings = [];
    for (const round of ['first', 'second'])
      findings.push(...(await tryOnce(connection, keys, pair, now, round)));
    findings.push(...(await tryDoor(a, b, pair)));
    return findings;
  });
}

const markerOf = ({ slug }: Route) => `marker of ${slug}`;

const signer =
  (keys: MasterKeys, { databaseId, tenant, epoch }: Route, now: number) =>
  (claims: Partial<ContextClaims> = {}, at = now) =>
    signContext(
      keys,
      { databaseId, tenant, epoch, mode: 'w', purpose: 'call', statementMs: 5_000, ...claims },
      at,
    );

/** The one row by which the other knows that it sees too much. */
async function leaveMarker(connection: ControlConnection, route: Route, context: string): Promise<void> {
  await connection.query('begin isolation level read committed read write');
  try {
    await connection.query(...(enter(context) as [string, unknown[]]));
    await connection.query(
      'insert into tenancy_probe (marker) select $1::text where not exists (select from tenancy_probe where marker = $1::text)',
      [markerOf(route)],
    );
    await connection.query('commit');
  } catch (error) {
    await connection.query('rollback').catch(() => {});
    // It is looked for below, and its absence is the finding.
    if ((error as { code?: string }).code === undefined) throw error;
  }
}

async function answerTo(
  connection: ControlConnection,
  mode: 'only' | 'write',
  ...statements: Statement[]
): Promise<Answer> {
  await connection.query(`begin isolation level read committed read ${mode}`);
  try {
    let answer: Answer = { rows: [], count: 0 };
    for (const [text, values = []] of statements) {
      const { rows, rowCount } = await connection.query(text, values);
      answer = { rows, count: rowCount ?? 0 };
    }
    return answer;
  } catch (error) {
    const { code } = error as { code?: string };
    // Not PostgreSQL's answer: the connection is gone.
    if (code === undefined || code.length !== 5) throw error;
    return { code };
  } finally {
    // Nothing that is tried here is ever kept.
    await connection.query('rollback').catch(() => {});
  }
}

async function tryOnce(
  connection: ControlConnection,
  keys: MasterKeys,
  pair: Pair,
  now: number,
  round: string,
): Promise<HealthFinding[]> {
  const { strategy, a, b } = pair;
  const sign = signer(keys, a, now);
  const table = `${a.schema}.tenancy_probe`;
  const findings: HealthFinding[] = [];
  const red = (check: Check, text: string, remedy: string, object = `${a.slug}, ${table}`) =>
    findings.push(finding(check, [strategy], object, `${text} (${round} round)`, remedy));
  const ask = (mode: 'only' | 'write', ...statements: Statement[]) =>
    answerTo(connection, mode, ...statements);
  const wall =
    'the audit names what is open: close it, and find out since when (RUNBOOK.md, isolation in doubt)';

  const seen = await ask('only', enter(sign({ mode: 'r' })), [
    `select count(*) filter (where tenant_id = $1 and marker = $2)::int as own, count(*) filter (where tenant_id <> $1)::int as foreign
       from tenancy_probe`,
    [a.tenant, markerOf(a)],
  ]);
  const row = 'rows' in seen ? (seen.rows[0] as { own: number; foreign: number }) : undefined;
  if (row?.own !== 1)
    red(
      'own_rows',
      `does not see the row it has written: ${row ? `${row.own} of 1` : said(seen)}`,
      `npm run tenants -- health ${a.slug}`,
    );
  if (row && row.foreign > 0) red('foreign_rows', `sees ${row.foreign} rows of other tenants`, wall);

  for (const [what, text, values] of [
    ['write a row', 'insert into tenancy_probe (tenant_id, marker) values ($1, $2)', [b.tenant, 'planted']],
    ['give a row away', 'update tenancy_probe set tenant_id = $1 where tenant_id = $2', [b.tenant, a.tenant]],
  ] as const) {
    const written = await ask('write', enter(sign()), [text, values]);
    if (row === undefined ? !('code' in written) : !refused(written, '42501', '23514'))
      red('foreign_writes', `can ${what} of another tenant: ${said(written)}`, wall);
  }
  const changed = await ask('write', enter(sign()), [
    'update tenancy_probe set marker = marker where tenant_id = $1',
    [b.tenant],
  ]);
  if ('count' in changed && changed.count > 0)
    red('foreign_writes', `can change ${changed.count} rows of another tenant`, wall);

  // Only `enter` sets a path; what has it without a context is reached by nobody.
  const lost = await ask('only', ['select from tenancy_probe']);
  if (!('code' in lost)) red('no_context', `is reached without a context: ${said(lost)}`, wall);
  const forged = sign({ mode: 'r' }).replace(a.tenant, b.tenant);
  const tries: [Check, string, Answer, string[]][] = [
    ['forged_context', 'a forged context', await ask('only', enter(forged)), ['TN002']],
    [
      'expired_context',
      'an expired context',
      await ask('only', enter(sign({ mode: 'r' }, now - 3_600_000))),
      ['TN003'],
    ],
    [
      'foreign_home',
      'a context of another epoch',
      await ask('only', enter(sign({ mode: 'r', epoch: a.epoch + 1 }))),
      ['TN004'],
    ],
  ];
  if (isolations[strategy].ownsTables) {
    const theirs = signer(keys, b, now)({ mode: 'r' });
    tries.push([
      'foreign_home',
      "another home's context",
      await ask('only', enter(theirs)),
      ['TN002', 'TN004'],
    ]);
    if (a.database === b.database)
      tries.push([
        'foreign_home',
        "another home's table",
        await ask('only', [`select from ${b.schema}.tenancy_probe`]),
        ['42501'],
      ]);
  } else {
    const set = (context: string): Statement => [
      `select set_config('tenancy.context', $1, true), set_config('tenancy.tenant', $2, true)`,
      [context, b.tenant],
    ];
    const all: Statement = [`select from ${table}`];
    tries.push(
      ['no_context', 'a statement without a context', await ask('only', all), ['TN001']],
      ['forged_context', 'a setting without a signature', await ask('only', set(''), all), ['TN001']],
      ['forged_context', 'a forged context in the setting', await ask('only', set(forged), all), ['TN002']],
      [
        'expired_context',
        'an expired context in the setting',
        await ask('only', set(sign({}, now - 3_600_000)), all),
        ['TN003'],
      ],
    );
  }
  // Where not even its own context is let in, any refusal will do: why it refuses is another finding.
  const held = (answer: Answer, codes: string[]) =>
    row === undefined ? 'code' in answer : refused(answer, ...codes);
  for (const [check, what, answer, codes] of tries)
    if (!held(answer, codes))
      red(check, `${what} ${said(answer)}, where ${codes.join(' or ')} is right`, wall);
  return findings;
}

/**
 * A login gets into no database but its home's. A proxy may let in whom the server refuses afterwards, and in words of its
 * own: so something is asked there, and only an answer is a hole.
 */
async function tryDoor(
  a: Endpoint,
  b: Endpoint,
  { strategy, a: from, b: to }: Pair,
): Promise<HealthFinding[]> {
  if (a.database === b.database) return [];
  const isIn = await withConnection({ ...a, database: b.database }, (connection) =>
    connection.query('select 1', []),
  ).then(
    () => true,
    () => false,
  );
  if (!isIn) return [];
  return [
    finding(
      'foreign_home',
      [strategy],
      `database ${b.database} of ${to.slug}`,
      `answers the login of ${from.slug}`,
      `revoke connect on database ${b.database} from public`,
    ),
  ];
}
