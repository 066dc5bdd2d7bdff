import { readFileSync } from 'node:fs';
import { Validations } from 'aws-cdk-lib';
import { Bucket } from 'aws-cdk-lib/aws-s3';
import { AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks } from 'cdk-nag';
import { expect, it } from 'vitest';
import { synthesize, variants } from './synthesize.ts';

const acknowledged = Validations.ACKNOWLEDGED_RULES_METADATA_KEY;

it.each(Object.entries(variants))('leaves no finding of the AwsSolutions pack open: %s', (_, changes) => {
  const { app } = synthesize(changes);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).not.toThrow();
});

it('notices a finding, so that the check above means something', () => {
  const { app, stacks } = synthesize();
  new Bucket(stacks.data, 'Unprotected');
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).toThrow('AwsSolutions-S10');
});

it('acknowledges a finding at one resource, with a reason, never for a stack', () => {
  const { app } = synthesize(variants['another region, with a domain and issuers']);
  const entries = app.node.findAll().flatMap(({ node }) =>
    node.metadata
      .filter(({ type }) => type === acknowledged)
      .flatMap(({ data }) => Object.entries(data as Record<string, string>))
      .filter(([id]) => id.includes('AwsSolutions'))
      .map(([, reason]) => ({ depth: node.scopes.length, reason })),
  );
  expect(entries.length).toBeGreaterThan(0);
  for (const { depth, reason } of entries) {
    // App, stack, resource or its construct.
    expect(depth).toBeGreaterThanOrEqual(3);
    expect(reason.length).toBeGreaterThan(30);
  }
});

it('has the findings of other packs that SECURITY.md explains, and no others', () => {
  const { app } = synthesize(variants['another region, with a domain and issuers']);
  Validations.of(app).addPlugins(
    new HIPAASecurityChecks(app),
    new NIST80053R5Checks(app),
    new PCIDSS321Checks(app),
  );
  let report = '';
  try {
    app.synth();
  } catch (error) {
    report = (error as Error).message;
  }
  const found = new Set([...report.matchAll(/Acknowledge with '[^']+-(\w+)'/g)].map(([, rule]) => rule));
  const text = readFileSync(new URL('../../SECURITY.md', import.meta.url), 'utf8');
  const [, table] = /## What other rule packs say\n([\s\S]*?)\n## /.exec(text)!;
  const explained = [...table!.matchAll(/^\| ([\w, ]+) \|/gm)].flatMap(([, rules]) => rules!.split(', '));
  expect([...found].sort()).toEqual(explained.filter((rule) => rule !== 'rule').sort());
});
