import { identifier, literal } from '../../../functions/lib/database/connect.ts';
import type { MasterKeys } from '../../../functions/lib/isolation/context.ts';
import { type Aim, type Attack, type Theme, type Way, ways } from './attack.ts';
import { openSessions } from './attempt.ts';
import { contextOf, forgeries, misfits, type Party } from './party.ts';
import { type Relations, relationOf, relationsOf, type Sample, sampleOf, spellingsOf } from './tables.ts';
import { type Victim, watch } from './victim.ts';

export interface Finding {
  readonly theme: string;
  readonly attack: string;
  readonly way: Way;
  readonly attacker: Party;
  readonly victim: Party;
  readonly table: string;
  readonly outcome: 'held' | 'leaked' | 'residual';
  /** What came through, or what harm was done. */
  readonly what?: string;
}

/** A victim as it was before anything was tried. */
export interface Target extends Relations {
  readonly party: Party;
  readonly sample: Sample;
  readonly victim: Victim;
}

/** Looks at the victims before the first attack. Values that several of them have are no sign of a leak. */
export async function prepareTargets(keys: MasterKeys, parties: readonly Party[]): Promise<Target[]> {
  const found: Target[] = [];
  for (const party of parties) {
    const { tables, views } = await relationsOf(keys, party);
    found.push({
      party,
      tables,
      views,
      sample: await sampleOf(keys, party, [...tables, ...views]),
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

/** One attack on one table of one victim, which then looks at all of its tables. */
export async function tryAttack(
  keys: MasterKeys,
  attacker: Party,
  target: Target,
  table: string,
  theme: Theme,
  attack: Attack,
  way: Way,
): Promise<Finding | undefined> {
  const [finding] = await tryAttackOn(keys, { attacker, target, theme, attack, way, tables: [table] });
  return finding;
}

/** One attack in one way, on tables of one victim, or views. */
interface Planned {
  readonly attacker: Party;
  readonly target: Target;
  readonly theme: Theme;
  readonly attack: Attack;
  readonly way: Way;
  readonly tables: readonly string[];
}

/**
 * After each attack the victim tries to write to the attacked table. After the last one it tries all tables, and looks whether
 * their rows are as they were: to look at all after each would take the square of their number.
 */
async function tryAttackOn(
  keys: MasterKeys,
  planned: Planned,
  onTried: () => void = () => {},
): Promise<Finding[]> {
  const { attacker, target, theme, attack, way, tables } = planned;
  const { from = 'call' } = attack;
  const { victim, party } = target;
  const known = attack.residual?.between(attacker.strategy, party.strategy);
  const findings: Finding[] = [];
  const tries = tables
    .map((table) => ({ table, aim: aimAt(keys, attacker, target, table) }))
    .map((tried) => ({ ...tried, statements: attack.sql(tried.aim) }))
    .filter(({ statements }) => statements.length > 0);
  const sessions = openSessions(keys, attacker);
  try {
    for (const [index, { table, aim, statements }] of tries.entries()) {
      const isLast = index === tries.length - 1;
      const look = {
        blocked: () =>
          victim.blocked(isLast ? target.tables : target.tables.filter((name) => name === table)),
        harm: async () => (isLast ? victim.harm(target.tables, from === 'session') : undefined),
      };
      const { heard, harm } = await sessions.attempt(from, statements, way, look);
      const what = harm ?? betrayal(heard, statements, attack, aim, target, table);
      findings.push({
        theme: theme.title,
        attack: attack.name,
        way,
        attacker,
        victim: party,
        table,
        outcome: what === undefined ? 'held' : known ? 'residual' : 'leaked',
        ...(what !== undefined && { what }),
      });
      onTried();
    }
  } finally {
    await sessions.close();
  }
  return findings;
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
      keys: sample.keys.get(table) ?? [],
      row: literal(row),
    },
    context,
    forgeries: forgeries(context, party),
    misfits: misfits(keys, attacker),
    ...(attacker.login !== login && { stolen: contextOf(keys, party) }),
  };
}

export const isAmong = (only: readonly string[] | undefined) => (name: string) =>
  only?.includes(name) ?? true;

/** Between strategies the wall is another login's: how the statement travels makes no difference to it. */
export const waysBetween = (attacker: Party, victim: Party): readonly Way[] =>
  attacker.strategy === victim.strategy ? ways : ['simple'];

/**
 * The same statements are not tried twice, nor a wall that stands before all tables alike. No statement leaves its database: what
 * lives in another one is attacked table for table by a neighbour of its own kind alone, as the one who knows its names best.
 */
function tablesFor(
  { keys, only }: Trial,
  attacker: Party,
  target: Target,
  theme: Theme,
  attack: Attack,
): string[] {
  const { tables, views } = target;
  const [first, ...others] = (theme.onlyReads ? [...tables, ...views] : tables).filter(isAmong(only));
  if (first === undefined) return [];
  const aim = aimAt(keys, attacker, target, first);
  const namesIt = attack.sql(aim).some((statement) => statement.includes(identifier(first)));
  const isSameKind = attacker.strategy === target.party.strategy;
  const isSameDatabase = attacker.databaseId === target.party.databaseId;
  const isEach = isSameDatabase ? theme.aboutTables || isSameKind : theme.aboutTables && isSameKind;
  return namesIt && isEach ? [first, ...others] : [first];
}

export interface Trial {
  readonly keys: MasterKeys;
  readonly attackers: readonly Party[];
  readonly targets: readonly Target[];
  readonly themes: readonly Theme[];
  /** The tables and views to attack; all without it. */
  readonly only?: readonly string[] | undefined;
  /** After each of them. */
  readonly onTried?: (tried: number, all: number) => void;
}

/** Every attacker against every table of every other tenant. They work at the same time, but for what has to be tried alone. */
export async function prove(trial: Trial): Promise<Finding[]> {
  const plans = trial.attackers.map((attacker) => planOf(attacker, trial));
  const all = plans.flat().reduce((sum, { tables }) => sum + tables.length, 0);
  let tried = 0;
  const carryOut = async (plan: readonly Planned[]): Promise<Finding[]> => {
    const findings: Finding[] = [];
    for (const planned of plan)
      findings.push(...(await tryAttackOn(trial.keys, planned, () => trial.onTried?.(++tried, all))));
    return findings;
  };
  const beside = await Promise.all(plans.map((plan) => carryOut(plan.filter(({ attack }) => !attack.alone))));
  const alone = await carryOut(plans.flat().filter(({ attack }) => attack.alone));
  return [...beside.flat(), ...alone];
}

const planOf = (attacker: Party, trial: Trial): Planned[] =>
  trial.targets
    .filter(({ party }) => party.tenant !== attacker.tenant)
    .flatMap((target) =>
      trial.themes.flatMap((theme) =>
        theme.attacks
          .filter(({ residual }) => !residual)
          .flatMap((attack) => {
            const tables = tablesFor(trial, attacker, target, theme, attack);
            // Nor does it make one to which of several tables: every way is tried on one, every table in the way that can do most.
            return waysBetween(attacker, target.party).map((way) => {
              const tried = way === 'simple' ? tables : tables.slice(0, 1);
              return { attacker, target, theme, attack, way, tables: tried };
            });
          }),
      ),
    );

export const closeTargets = (targets: readonly Target[]) =>
  Promise.all(targets.map(({ victim }) => victim.close()));
