import { createHmac, timingSafeEqual } from 'node:crypto';
import {
  type CallToolResult,
  type GetPromptResult,
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
  type ServerContext,
} from '@modelcontextprotocol/server';
import type { ModernExtension } from '../../functions/lib/mcp/modern.ts';
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

type Responses = Record<string, { action?: string; content?: Record<string, unknown> }>;
type Fixture = (context: ServerContext, responses: Responses) => object | Promise<object>;

const elicit = (message: string, field: string, type = 'string') => ({
  method: 'elicitation/create',
  params: {
    mode: 'form',
    message,
    requestedSchema: { type: 'object', properties: { [field]: { type } }, required: [field] },
  },
});
const sample = (question: string, maxTokens: number) => ({
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: text(question) }], maxTokens },
});
const listRoots = { method: 'roots/list', params: {} };

const needs = (inputRequests: object, requestState?: string) => ({
  resultType: 'input_required',
  inputRequests,
  ...(requestState && { requestState }),
});
const says = (value: string) => ({ content: [text(value)] });

/** State that the client carries: signed, because it comes back from whoever holds it. */
const sign = (state: string) => `${state}.${createHmac('sha256', 'fixture').update(state).digest('hex')}`;

function stateOf(context: ServerContext): string | undefined {
  const carried = context.mcpReq.requestState() as string | undefined;
  if (carried === undefined) return undefined;
  const state = carried.slice(0, carried.indexOf('.'));
  const expected = Buffer.from(sign(state));
  const given = Buffer.from(carried);
  if (expected.length !== given.length || !timingSafeEqual(expected, given)) {
    throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'The request state was changed.');
  }
  return state;
}

/** Asks once, signed state included, and goes on when the answer and the state are back. */
const askWithState =
  (key: string, answer: string): Fixture =>
  (context, responses) => {
    const state = stateOf(context);
    return state && responses[key]
      ? says(answer)
      : needs({ [key]: elicit('Please confirm', 'ok', 'boolean') }, sign('asked'));
  };

const fixtures: Record<string, Fixture> = {
  ...Object.fromEntries(Object.entries(plainTools).map(([name, result]) => [name, () => result])),
  async test_tool_with_progress({ mcpReq }) {
    const progressToken = mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await mcpReq.notify({
          method: 'notifications/progress',
          params: { progressToken, progress, total: 100 },
        });
      }
      await pause();
    }
    return says('Progressed.');
  },
  async test_logging_tool({ mcpReq }) {
    await mcpReq.log('info', 'A log message');
    return says('Logged, where the request asked for it.');
  },
  test_missing_capability({ mcpReq }) {
    if (!capabilitiesOf(mcpReq).sampling) {
      throw new MissingRequiredClientCapabilityError({ requiredCapabilities: { sampling: {} } });
    }
    return says('The client samples.');
  },
  test_streaming_elicitation: (_, responses) =>
    responses.user_name ? says('Thank you.') : needs({ user_name: elicit('What is your name?', 'name') }),

  test_input_required_result_elicitation(_, { user_name }) {
    if (user_name?.action !== 'accept' || typeof user_name.content?.name !== 'string') {
      return needs({ user_name: elicit('What is your name?', 'name') });
    }
    return says(`Hello, ${user_name.content.name}!`);
  },
  test_input_required_result_sampling: (_, { capital_question }) =>
    capital_question
      ? says(JSON.stringify(capital_question.content))
      : needs({ capital_question: sample('What is the capital of France?', 100) }),
  test_input_required_result_list_roots: (_, { client_roots }) =>
    client_roots ? says(JSON.stringify(client_roots)) : needs({ client_roots: listRoots }),
  test_input_required_result_request_state: askWithState('confirm', 'state-ok'),
  test_input_required_result_tampered_state: askWithState('confirm', 'state-ok'),
  test_input_required_result_multiple_inputs(context, { user_name, greeting, client_roots }) {
    if (stateOf(context) && user_name && greeting && client_roots) return says('All answered.');
    const questions = {
      user_name: elicit('What is your name?', 'name'),
      greeting: sample('Generate a greeting', 50),
      client_roots: listRoots,
    };
    return needs(questions, sign('asked'));
  },
  test_input_required_result_multi_round(context, { step1, step2 }) {
    const state = stateOf(context);
    if (state === 'two' && step2) return says('Both steps answered.');
    if (state === 'one' && step1) {
      return needs({ step2: elicit('Step 2: What is your favorite color?', 'color') }, sign('two'));
    }
    return needs({ step1: elicit('Step 1: What is your name?', 'name') }, sign('one'));
  },
  test_input_required_result_capabilities({ mcpReq }) {
    const { elicitation, sampling } = capabilitiesOf(mcpReq);
    return needs({
      ...(elicitation && { user_name: elicit('What is your name?', 'name') }),
      ...(sampling && { capital_question: sample('What is the capital of France?', 100) }),
    });
  },
};

const inputRequiredPrompt = {
  name: 'test_input_required_result_prompt',
  description: 'Asks for its context first',
};

function capabilitiesOf({ envelope }: ServerContext['mcpReq']): Record<string, object> {
  const sent = envelope as Record<string, unknown> | undefined;
  return (sent?.['io.modelcontextprotocol/clientCapabilities'] ?? {}) as Record<string, object>;
}

const responsesOf = ({ mcpReq }: ServerContext) => (mcpReq.inputResponses ?? {}) as Responses;

/** Fixtures for revision 2026-07-28. */
export const modernFixtures: ModernExtension = {
  capabilities: { logging: {}, prompts: {}, resources: {}, completions: {} },
  register(server, exchange) {
    const tools = [...exchange.tools, schemaTool, ...Object.keys(fixtures).map(describeTool)];
    server.setRequestHandler('tools/list', () => ({ tools }) as never);
    server.setRequestHandler('tools/call', async ({ params }, context) => {
      const fixture = fixtures[params.name];
      return (await (fixture
        ? fixture(context, responsesOf(context))
        : exchange.call(params))) as CallToolResult;
    });

    server.setRequestHandler('prompts/list', () => ({ prompts: [...prompts, inputRequiredPrompt] }));
    server.setRequestHandler('prompts/get', ({ params }, context) => {
      if (params.name === inputRequiredPrompt.name) {
        const { user_context } = responsesOf(context);
        if (!user_context) {
          return needs({ user_context: elicit('What context should the prompt use?', 'context') }) as never;
        }
        return { messages: [{ role: 'user', content: text(`Use ${JSON.stringify(user_context.content)}`) }] };
      }
      const prompt = getPrompt(params.name, params.arguments);
      if (!prompt) throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'No such prompt');
      return prompt as GetPromptResult;
    });
    server.setRequestHandler('resources/list', () => ({ resources }));
    server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates }));
    server.setRequestHandler('resources/read', ({ params }) => {
      const found = readResource(params.uri);
      if (!found)
        throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Resource not found', { uri: params.uri });
      return found;
    });
    server.setRequestHandler('completion/complete', () => completion);
  },
};
