import { identifier, literal } from '../../../functions/lib/database/connect.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { type Aim, type Attack, type Theme, type Way, ways } from './attack.ts';
import { attempt } from './attempt.ts';
import { contextOf, forgeries, misfits, type Party } from './party.ts';
import { relationOf, type Sample, sampleOf, spellingsOf, tablesOf } from './tables.ts';
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

/** One attack on one table of one victim, which looks at all of its tables, or at some. */
export async function tryAttack(
  keys: MasterKeys,
  attacker: Party,
  target: Target,
  table: string,
  { title }: Theme,
  attack: Attack,
  way: Way,
  lookedAt: readonly string[] = target.tables,
): Promise<Finding | undefined> {
  const aim = aimAt(keys, attacker, target, table);
  const statements = attack.sql(aim);
  if (statements.length === 0) return undefined;
  const { from = 'call' } = attack;
  const { victim } = target;
  const look = {
    blocked: () => victim.blocked(lookedAt),
    harm: () => victim.harm(lookedAt, from === 'session'),
  };
  const { heard, harm } = await attempt(keys, attacker, from, statements, way, look);
  const what = harm ?? betrayal(heard, statements, attack, aim, target, table);
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
  table: string,
): string | undefined {
  // A row that the attacker sends comes back in errors, in whatever form.
  const row: object = statements.some((text) => text.includes(aim.victim.row))
    ? JSON.parse(sample.rows.get(table) ?? '{}')
    : {};
  const sent = Object.values(row).flatMap((value) =>
    spellingsOf(typeof value === 'string' ? value : JSON.stringify(value)),
  );
  const said = [...statements, ...sent].join('\n');
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
      columns: sample.columns.get(table) ?? ['tenant_id'],
      hasRows: sample.rows.has(table),
      row: literal(row),
    },
    context,
    forgeries: forgeries(context, party),
    misfits: misfits(keys, attacker),
    ...(attacker.login !== login && { stolen: contextOf(keys, party) }),
  };
}

/** Between strategies the wall is another login's: how the statement travels makes no difference to it. */
export const waysBetween = (attacker: Party, victim: Party): readonly Way[] =>
  attacker.strategy === victim.strategy ? ways : ['simple'];

/** The same statements are not tried twice, nor a wall that stands before all tables alike. */
function tablesFor({ keys }: Trial, attacker: Party, target: Target, theme: Theme, attack: Attack): string[] {
  const [first, ...others] = target.tables;
  if (first === undefined) return [];
  const aim = aimAt(keys, attacker, target, first);
  const namesIt = attack.sql(aim).some((statement) => statement.includes(identifier(first)));
  const isNear = theme.aboutTables || attacker.strategy === target.party.strategy;
  return namesIt && isNear ? [first, ...others] : [first];
}

export interface Trial {
  readonly keys: MasterKeys;
  readonly attackers: readonly Party[];
  readonly targets: readonly Target[];
  readonly themes: readonly Theme[];
  /** After each of them. */
  readonly onTried?: (tried: number, all: number) => void;
}

type Planned = readonly [
  attacker: Party,
  target: Target,
  table: string,
  theme: Theme,
  attack: Attack,
  way: Way,
  lookedAt: readonly string[],
];

/** Every attacker against every table of every other tenant. They do not get into each other's way. */
export async function prove(trial: Trial): Promise<Finding[]> {
  const plans = trial.attackers.map((attacker) => planOf(attacker, trial));
  const all = plans.flat().length;
  let tried = 0;
  const work = plans.map(async (plan) => {
    const findings: Finding[] = [];
    for (const planned of plan) {
      const finding = await tryAttack(trial.keys, ...planned);
      if (finding) findings.push(finding);
      tried += 1;
      trial.onTried?.(tried, all);
    }
    return findings;
  });
  return (await Promise.all(work)).flat();
}

function planOf(attacker: Party, trial: Trial): Planned[] {
  const plan: Planned[] = [];
  for (const target of trial.targets.filter(({ party }) => party.tenant !== attacker.tenant))
    for (const theme of trial.themes)
      for (const attack of theme.attacks.filter(({ residual }) => !residual)) {
        const tables = tablesFor(trial, attacker, target, theme, attack);
        for (const table of tables) {
          // At all tables once before and once after it was tried on each: every time, the time it takes grows with their square.
          const isEdge = table === tables[0] || table === tables.at(-1);
          const lookedAt = isEdge ? target.tables : [table];
          for (const way of waysBetween(attacker, target.party))
            plan.push([attacker, target, table, theme, attack, way, lookedAt]);
        }
      }
  return plan;
}

export const closeTargets = (targets: readonly Target[]) =>
  Promise.all(targets.map(({ victim }) => victim.close()));
