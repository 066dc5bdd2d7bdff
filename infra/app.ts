import { App } from 'aws-cdk-lib';
import { tools } from '../functions/mcp/tools/index.ts';
import { readSettings } from './settings.ts';
import { addSystem } from './system.ts';
import { checkTools } from './tools.ts';

checkTools(tools);
const app = new App();
addSystem(app, readSettings(app.node.tryGetContext('tenantry')), tools);
