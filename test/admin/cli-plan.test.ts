import { describe, expect, it } from 'vitest';
import { planText } from '../../functions/admin/cli/migrate.ts';
import type { PlanView } from '../../functions/lib/admin/migration-plan.ts';

describe('a plan', () => {
  const statement = (number: number) => ({
    statement: `create table t${number}`,
    lock: 'none',
    blocks: 'nobody',
  });
  const plan = (statements: object[]) =>
    planText({
      ...{ version: '0002', total: 1, files: [{ file: '0002.sql', statements }], rehearsals: [] },
      targets: [
        { tenant: 'acme', ring: 'canary', from: '0001', to: '0002', pinned: null, moving: null, ahead: null },
      ],
    } as unknown as PlanView);

  it('shows every statement, and of hundreds those that somebody waits for', () => {
    expect(plan([statement(1), statement(2)])).toMatch(/0002.sql[\s\S]*create table t2/);
    const waits = { statement: 'alter table items …', lock: 'ACCESS EXCLUSIVE', blocks: 'reads and writes' };
    const many = [...Array(300).keys()].map(statement);
    const text = plan([...many.slice(0, 200), waits, ...many.slice(200)]);
    expect(text).toMatch(/0002.sql │ alter table items …/);
    expect(text).not.toContain('create table');
    expect(text).toContain('Of 301 statements in 1 file 1 block somebody; --json has all.');
    const all = plan(Array(301).fill(waits));
    expect(all).toContain('301 block somebody, the first 50 of them above; --json has all.');
    expect(all.split('\n').length).toBeLessThan(70);
  });
});
