import {
  CallToolRequestSchema,
  type CallToolResult,
  CompleteRequestSchema,
  ErrorCode,
  GetPromptRequestSchema,
  type GetPromptResult,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  type ListToolsResult,
  McpError,
  ReadResourceRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import type { LegacyExtension } from '../../functions/lib/mcp/legacy.ts';
import {
  completion,
  describeTool,
  getPrompt,
  pause,
  plainTools,
  prompts,
  readResource,
  resources,
  resourceTemplates,
  schemaTool,
  text,
} from './fixtures.ts';

const streaming = ['test_tool_with_logging', 'test_tool_with_progress'];

/** Fixtures for revisions up to 2025-11-25. Those that wait for an answer of the client are left out: see expected-failures.yaml. */
export const legacyFixtures: LegacyExtension = {
  capabilities: { logging: {}, prompts: {}, resources: { subscribe: true }, completions: {} },
  register(server, exchange) {
    const tools = [
      ...exchange.tools,
      schemaTool,
      ...[...Object.keys(plainTools), ...streaming].map(describeTool),
    ];
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools }) as unknown as ListToolsResult);
    server.setRequestHandler(CallToolRequestSchema, async ({ params }, { sendNotification, _meta }) => {
      const plain = plainTools[params.name];
      if (plain) return plain as CallToolResult;
      if (params.name === 'test_tool_with_logging') {
        for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
          await sendNotification({ method: 'notifications/message', params: { level: 'info', data } });
          await pause();
        }
        return { content: [text('Logged.')] };
      }
      if (params.name === 'test_tool_with_progress') {
        const progressToken = _meta?.progressToken;
        for (const progress of [0, 50, 100]) {
          if (progressToken !== undefined) {
            const step = { progressToken, progress, total: 100 };
            await sendNotification({ method: 'notifications/progress', params: step });
          }
          await pause();
        }
        return { content: [text('Progressed.')] };
      }
      return (await exchange.call(params)) as CallToolResult;
    });

    server.setRequestHandler(ListPromptsRequestSchema, () => ({ prompts }));
    server.setRequestHandler(GetPromptRequestSchema, ({ params }) => {
      const prompt = getPrompt(params.name, params.arguments);
      if (!prompt) throw new McpError(ErrorCode.InvalidParams, 'No such prompt');
      return prompt as GetPromptResult;
    });
    server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources }));
    server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates }));
    server.setRequestHandler(ReadResourceRequestSchema, ({ params }) => {
      const found = readResource(params.uri);
      if (!found) throw new McpError(-32002, 'Resource not found', { uri: params.uri });
      return found;
    });
    server.setRequestHandler(SubscribeRequestSchema, () => ({}));
    server.setRequestHandler(UnsubscribeRequestSchema, () => ({}));
    server.setRequestHandler(CompleteRequestSchema, () => completion);
  },
};
