import { readFileSync, rmSync } from 'node:fs';
import { App, type Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { readSettings, type Settings } from '../../infra/settings.ts';
import { EndpointStack } from '../../infra/stacks/endpoint.ts';

const { context } = JSON.parse(readFileSync('cdk.json', 'utf8')) as { context: Record<string, unknown> };

/** The example's settings as cdk.json gives them, before they are parsed. */
export const exampleSettings = context.tenantry as Record<string, unknown>;

export const tools = [
  { name: 'look', scopes: ['things:read'] },
  { name: 'change', scopes: ['things:read', 'things:write'] },
];

export interface Synthesized {
  readonly app: App;
  readonly stack: Stack;
  readonly settings: Settings;
  /** Synthesizes at first use; nothing can be added afterwards. */
  readonly template: Template;
}

/** As `npm run synth` does it, with the feature flags of cdk.json, but in this process. */
export function synthesize(changes: Record<string, unknown> = {}): Synthesized {
  // Validation by the library's own rules takes seconds and runs in `npm run synth`.
  const app = new App({ context: { ...context, '@aws-cdk/core:validateAgainstDefaultRules': false } });
  process.once('exit', () => rmSync(app.outdir, { recursive: true, force: true }));
  const settings = readSettings({ ...exampleSettings, ...changes });
  const stack = new EndpointStack(app, 'Endpoint', { settings, tools });
  return {
    app,
    stack,
    settings,
    get template() {
      return Template.fromStack(stack);
    },
  };
}
