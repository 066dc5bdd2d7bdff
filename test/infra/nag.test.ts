import { Validations } from 'aws-cdk-lib';
import { Bucket } from 'aws-cdk-lib/aws-s3';
import { AwsSolutionsChecks } from 'cdk-nag';
import { expect, it, vi } from 'vitest';
import { synthesize } from './synthesize.ts';

const acknowledged = Validations.ACKNOWLEDGED_RULES_METADATA_KEY;

const domain = {
  name: 'mcp.example.com',
  certificateArn: 'arn:aws:acm:eu-west-1:111122223333:certificate/abc',
};

// The first synthesis loads the packs' rules and bundles both functions: seconds, more on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

it.each([
  ['as cdk.json stands', {}],
  ['with a region and a domain', { region: 'eu-west-1', domain }],
])('leaves no finding of the AwsSolutions pack open %s', (_, changes) => {
  const { app } = synthesize(changes);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).not.toThrow();
});

it('notices a finding, so that the check above means something', () => {
  const { app, stack } = synthesize();
  new Bucket(stack, 'Unprotected');
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  expect(() => app.synth()).toThrow('AwsSolutions-S10');
});

it('acknowledges a finding at one resource, with a reason, never for a stack', () => {
  const { app } = synthesize();
  const entries = app.node
    .findAll()
    .flatMap(({ node }) =>
      node.metadata
        .filter(({ type }) => type === acknowledged)
        .map(({ data }) => ({ depth: node.scopes.length, data })),
    );
  expect(entries.length).toBeGreaterThan(0);
  for (const { depth, data } of entries) {
    // App, stack, construct, resource.
    expect(depth).toBeGreaterThanOrEqual(4);
    for (const reason of Object.values(data as Record<string, string>))
      expect(reason.length).toBeGreaterThan(30);
  }
});
