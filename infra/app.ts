import { App } from 'aws-cdk-lib';
import { tools } from '../functions/mcp/tools/index.ts';
import { readSettings } from './settings.ts';
import { EndpointStack } from './stacks/endpoint.ts';

const app = new App();
const settings = readSettings(app.node.tryGetContext('tenantry'));

new EndpointStack(app, 'TenantryEndpoint', {
  description: 'An MCP endpoint over PostgreSQL, every tenant kept apart',
  settings,
  tools,
});
