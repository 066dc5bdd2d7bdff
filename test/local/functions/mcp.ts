import type { Writable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import type { APIGatewayProxyEvent, Context } from 'aws-lambda';

let calls = 0;

/** Does what the request's body says. */
export const handler = awslambda.streamifyResponse(
  async (event: APIGatewayProxyEvent, stream: Writable, context: Context) => {
    calls++;
    const { does, ...rest } =
      event.httpMethod === 'POST' ? JSON.parse(event.body ?? '{}') : { does: 'method' };
    const from = (
      statusCode: number,
      headers: Record<string, string> = { 'content-type': 'application/json' },
    ) => awslambda.HttpResponseStream.from(stream, { statusCode, headers });
    const json = (value: unknown) => from(200).end(JSON.stringify(value));
    switch (does) {
      case 'show':
        return void json({
          event,
          environment: process.env,
          pid: process.pid,
          calls,
          left: context.getRemainingTimeInMillis(),
        });
      case 'method':
        return void from(405, { allow: 'POST' }).end('no');
      case 'challenge':
        return void from(401, { 'WWW-Authenticate': 'Bearer', 'Set-Cookie': 'a=b' }).end('x');
      case 'chunks': {
        const out = from(200, { 'content-type': 'text/event-stream' });
        out.write('one');
        // Until the client has acknowledged the first chunk, which it can only when it came alone.
        const acknowledged = await fetch(rest.acknowledge);
        out.end(await acknowledged.text());
        return;
      }
      case 'meet':
        await fetch(rest.at);
        return void json({ pid: process.pid });
      case 'nothing':
        return void from(202).end();
      case 'empty':
        from(202).write('');
        return void stream.end();
      case 'bad-head':
        return void from(200, { 'x-bad': 'line\nbreak' }).end('x');
      case 'wait':
        await setTimeout(rest.ms);
        return void json({ pid: process.pid });
      case 'throw':
        throw new RangeError('as asked');
      case 'throw-later':
        from(200).write('{"half":');
        await setTimeout(20);
        throw new Error('as asked');
      case 'exit':
        return process.exit(3);
    }
  },
);
