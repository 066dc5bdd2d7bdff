import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { type Aim, type Attack, quoted, type Theme, type Way, ways } from './attack.ts';
import { attempt } from './attempt.ts';
import { contextOf, forgeries, misfits, type Party } from './party.ts';
import { identifier, relationOf, type Sample, sampleOf, tablesOf } from './tables.ts';
import { type Victim, watch } from './victim.ts';

export interface Finding {
  readonly theme: string;
  readonly attack: string;
  readonly way: Way;
  readonly attacker: Party;
  readonly victim: Party;
  readonly outcome: 'held' | 'leaked' | 'residual';
  /** What came through, or what harm was done. */
  readonly what?: string;
}

/** A victim as it was before anything was tried. */
export interface Target {
  readonly party: Party;
  readonly tables: readonly string[];
  readonly sample: Sample;
  readonly victim: Victim;
}

/** Looks at the victims before the first attack. Values that several of them have are no sign of a leak. */
export async function prepareTargets(keys: MasterKeys, parties: readonly Party[]): Promise<Target[]> {
  const found: Target[] = [];
  for (const party of parties) {
    const tables = await tablesOf(keys, party);
    found.push({
      party,
      tables,
      sample: await sampleOf(keys, party, tables),
      victim: await watch(keys, party, tables),
    });
  }
  return found.map((target) => {
    const elsewhere = new Set(
      found.filter((other) => other !== target).flatMap(({ sample }) => sample.markers),
    );
    return {
      ...target,
      sample: { ...target.sample, markers: target.sample.markers.filter((marker) => !elsewhere.has(marker)) },
    };
  });
}

/** One attack on one table of one victim. */
export async function tryAttack(
  keys: MasterKeys,
  attacker: Party,
  target: Target,
  table: string,
  { title }: Theme,
  attack: Attack,
  way: Way,
): Promise<Finding | undefined> {
  const aim = aimAt(keys, attacker, target, table);
  if (attack.needs === 'stolen' && aim.stolen === undefined) return undefined;
  const statements = attack.sql(aim);
  if (statements.length === 0) return undefined;
  const { heard, harm } = await attempt(keys, attacker, attack, statements, way, () =>
    target.victim.harm(attack.from === 'session'),
  );
  const what = harm ?? betrayal(heard, statements, attack, aim, target);
  const known = attack.residual?.between(attacker.strategy, target.party.strategy);
  return {
    theme: title,
    attack: attack.name,
    way,
    attacker,
    victim: target.party,
    outcome: what === undefined ? 'held' : known ? 'residual' : 'leaked',
    ...(what !== undefined && { what }),
  };
}

/** What the attacker has heard that it could not know. */
function betrayal(
  heard: string,
  statements: readonly string[],
  { betrays }: Attack,
  aim: Aim,
  { party, sample }: Target,
): string | undefined {
  const said = statements.join('\n');
  const marker = sample.markers.find((marker) => heard.includes(marker) && !said.includes(marker));
  if (marker !== undefined) return `it saw a value of ${party.name}: ${marker.slice(0, 40)}`;
  const sign = betrays && heard.match(betrays(aim));
  return sign ? `it learned of ${party.name}: ${sign[0].slice(0, 60)}` : undefined;
}

function aimAt(keys: MasterKeys, attacker: Party, { party, sample }: Target, table: string): Aim {
  const context = contextOf(keys, attacker);
  const { schema, login, tenant, database } = party;
  const row = sample.rows.get(table) ?? JSON.stringify({ tenant_id: tenant });
  return {
    own: {
      schema: attacker.schema,
      login: attacker.login,
      tenant: attacker.tenant,
      relation: relationOf(attacker.schema, table),
    },
    victim: {
      schema,
      login,
      tenant,
      database,
      relation: relationOf(schema, table),
      table: identifier(table),
      row: quoted(row),
    },
    context,
    forgeries: forgeries(context, party),
    misfits: misfits(keys, attacker),
    ...(attacker.login !== login && { stolen: contextOf(keys, party) }),
  };
}

/** An attack that names no table is the same on all of them. */
function tablesFor({ keys, tables }: Trial, attacker: Party, target: Target, attack: Attack): string[] {
  const [first, ...others] = target.tables.filter((table) => tables?.includes(table) ?? true);
  if (first === undefined) return [];
  const aim = aimAt(keys, attacker, target, first);
  if (attack.needs === 'stolen' && aim.stolen === undefined) return [];
  const namesIt = attack.sql(aim).some((statement) => statement.includes(identifier(first)));
  return namesIt ? [first, ...others] : [first];
}

export interface Trial {
  readonly keys: MasterKeys;
  readonly attackers: readonly Party[];
  readonly victims: readonly Party[];
  readonly themes: readonly Theme[];
  readonly ways?: readonly Way[];
  /** Only these tables are attacked; all are watched. */
  readonly tables?: readonly string[];
  /** Attacks that last, and only a throw-away system survives. */
  readonly lasting?: boolean;
  /** After each. */
  readonly onFinding?: (finding: Finding) => void;
}

/** Every attacker against every table of every other tenant. */
export async function prove(trial: Trial): Promise<Finding[]> {
  const findings: Finding[] = [];
  const targets = await prepareTargets(trial.keys, trial.victims);
  for (const attacker of trial.attackers)
    for (const target of targets.filter(({ party }) => party.tenant !== attacker.tenant))
      for (const theme of trial.themes)
        for (const attack of theme.attacks.filter(({ residual }) => trial.lasting || !residual))
          for (const table of tablesFor(trial, attacker, target, attack))
            for (const way of trial.ways ?? ways) {
              const finding = await tryAttack(trial.keys, attacker, target, table, theme, attack, way);
              if (finding) {
                findings.push(finding);
                trial.onFinding?.(finding);
              }
            }
  await Promise.all(targets.map(({ victim }) => victim.close()));
  return findings;
}
