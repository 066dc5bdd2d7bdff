import Table from 'cli-table3';
import { otherResiduals, residuals } from './corpus/residuals.ts';
import type { EndpointFinding } from './endpoint.ts';
import type { Finding } from './prove.ts';

export interface Report {
  readonly url: string;
  /** Per victim: the tables and views that were attacked. */
  readonly tables: Readonly<Record<string, readonly string[]>>;
  /** Those of them in which the victim has no row: nothing of it could be seen or changed there. */
  readonly withoutRows: Readonly<Record<string, readonly string[]>>;
  readonly findings: readonly (Finding | EndpointFinding)[];
}

const held = (findings: readonly (Finding | EndpointFinding)[]) =>
  findings.filter(({ outcome }) => outcome === 'held').length;

/** What is true of every PostgreSQL with these rights, and was therefore not done to a system in use. */
const knownResiduals = [
  ...residuals.attacks.map(({ name, residual }) => ({ name, reason: residual!.reason })),
  ...otherResiduals,
];

/** For people. */
export function table({ url, tables, withoutRows, findings }: Report): string {
  const victims = Object.keys(tables);
  const grid = new Table({ head: ['tried and held', ...victims], style: { head: [], border: [] } });
  for (const theme of new Set(findings.map(({ theme }) => theme))) {
    const cells = victims.map((victim) => {
      const tried = findings.filter(
        (finding) => finding.theme === theme && nameOf(finding.victim) === victim,
      );
      return `${held(tried)} of ${tried.length}`;
    });
    grid.push([theme, ...cells]);
  }
  grid.push(['tables and views attacked', ...victims.map((victim) => tables[victim]!.join('\n'))]);
  const leaks = findings.filter(({ outcome }) => outcome === 'leaked');
  const lines = leaks.map((leak) => {
    const way = 'way' in leak ? ` (${leak.way}, on ${leak.table})` : '';
    return `  ${leak.theme}: ${leak.attack}${way}, by ${nameOf(leak.attacker)}: ${leak.what}`;
  });
  return [
    grid.toString(),
    leaks.length === 0
      ? `All ${findings.length} attempts on ${url} and its databases held.`
      : `LEAKED, ${leaks.length} of ${findings.length} attempts:\n${lines.join('\n')}`,
    ...inVain(withoutRows),
    `Not tried on a system in use, because PostgreSQL can't keep it from a shared login that sends its own statements\n(npx vitest run test/attacks does, and see SECURITY.md):`,
    ...knownResiduals.map(({ name, reason }) => `  ${name}: ${reason}`),
  ].join('\n');
}

/** Where nothing can be seen or changed, and what to do about it: lines for people, none when there are rows everywhere. */
export function inVain(withoutRows: Report['withoutRows']): string[] {
  const empty = Object.entries(withoutRows).filter(([, names]) => names.length > 0);
  if (empty.length === 0) return [];
  return [
    'Attacked in vain, because they have no row (give these tenants some, by your tools or `npm run tenants -- import`, and prove again):',
    ...empty.map(([victim, names]) => `  ${victim}: ${names.join(', ')}`),
  ];
}

/** For programs. */
export function json({ url, tables, withoutRows, findings }: Report): string {
  const flat = findings.map(({ attacker, victim, ...finding }) => ({
    ...finding,
    attacker: nameOf(attacker),
    victim: nameOf(victim),
  }));
  const leaked = flat.filter(({ outcome }) => outcome === 'leaked');
  const summary = { url, tried: flat.length, held: held(findings), leaked: leaked.length };
  return JSON.stringify(
    { ...summary, tables, withoutRows, findings: flat, residuals: knownResiduals },
    undefined,
    2,
  );
}

const nameOf = (party: { name: string } | string) => (typeof party === 'string' ? party : party.name);
