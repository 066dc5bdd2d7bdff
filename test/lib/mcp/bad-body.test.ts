import { describe, expect, test } from 'vitest';
import { bounds } from '../../../functions/lib/mcp/bounds.ts';
import { answerTo, call, legacyPost, post } from './support.ts';

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);
const withArguments = (text: string) =>
  `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"whoami","arguments":${text}}}`;

describe('a body is refused, typed, before anything runs', () => {
  const cases: [name: string, body: string | Uint8Array, status: number, rpc: number, code: string][] = [
    ['nothing', '', 400, -32700, 'invalid_json'],
    ['half a JSON', '{"jsonrpc":', 400, -32700, 'invalid_json'],
    ['bytes that are not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 400, -32700, 'invalid_json'],
    ['a raw NUL', '{"a":"\0"}', 400, -32700, 'invalid_json'],
    ['a batch', JSON.stringify([call('whoami'), call('whoami')]), 400, -32600, 'batch_refused'],
    ['an empty batch after spaces', ' \n\t[]', 400, -32600, 'batch_refused'],
    ['a number', '7', 400, -32600, 'invalid_message'],
    ['no version', '{"id":1,"method":"ping"}', 400, -32600, 'invalid_message'],
    ['an id that is an object', '{"jsonrpc":"2.0","id":{},"method":"ping"}', 400, -32600, 'invalid_message'],
    ['an id that is null', '{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600, 'invalid_message'],
    [
      'positional params',
      '{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}',
      400,
      -32600,
      'invalid_message',
    ],
    ['10 MB', withArguments(JSON.stringify({ text: 'x'.repeat(10_000_000) })), 413, -32600, 'body_too_large'],
    ['deep arrays', withArguments(`{"text":${nested(bounds.depth)}}`), 400, -32600, 'too_deep'],
    ['a million levels', `{"a":${'['.repeat(1_000_000)}`, 400, -32600, 'too_deep'],
    ['many values', withArguments(`[${'0,'.repeat(bounds.elements)}0]`), 400, -32600, 'too_many_elements'],
    ['__proto__', withArguments('{"text":"a","__proto__":{"admin":true}}'), 400, -32600, 'forbidden_key'],
    ['__proto__ in disguise', withArguments('{"\\u005f_proto__":1}'), 400, -32600, 'forbidden_key'],
    ['constructor', withArguments('{"a":{"constructor":1}}'), 400, -32600, 'forbidden_key'],
    ['an escaped NUL', withArguments('{"text":"a\\u0000b"}'), 400, -32600, 'malformed_text'],
    ['a NUL in a key', withArguments('{"a\\u0000":1}'), 400, -32600, 'malformed_text'],
    ['half a surrogate pair', withArguments('{"text":["\\ud83d"]}'), 400, -32600, 'malformed_text'],
  ];

  test.each(cases)('%s', async (_, body, status, rpc, code) => {
    for (const headers of [
      { 'mcp-protocol-version': '2025-11-25' },
      { 'mcp-protocol-version': '2026-07-28' },
    ]) {
      const answer = await answerTo(
        post(body, { accept: 'application/json, text/event-stream', ...headers }),
      );
      expect(answer.status).toBe(status);
      expect(answer.body).toEqual({
        jsonrpc: '2.0',
        id: null,
        error: { code: rpc, message: expect.any(String), data: { code } },
      });
      expect(answer.lines).toHaveLength(1);
      expect(answer.lines[0]!.fields).toMatchObject({ outcome: code, tool: null, rows: 0 });
    }
  });

  test('a body that hides its length is cut off all the same', async () => {
    const chunk = new Uint8Array(64 * 1024).fill(0x20);
    let pulled = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled++;
        controller.enqueue(chunk);
      },
    });
    const init = {
      method: 'POST',
      body,
      duplex: 'half',
      headers: { 'content-type': 'application/json' },
    } as RequestInit;
    const answer = await answerTo(new Request('http://127.0.0.1/mcp', init));
    expect(answer.status).toBe(413);
    expect(pulled * chunk.length).toBeLessThan(2 * bounds.bytes);
  });

  test('what is just within the bounds is served', async () => {
    const text = 'é😀"\\'.repeat(10);
    expect((await answerTo(legacyPost(call('whoami', { text })))).body.result.structuredContent.text).toBe(
      text,
    );
  });
});
