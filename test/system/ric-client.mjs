/**
 * Loaded before AWS's runtime interface client: in place of its one native part, which has to be compiled, the three
 * calls that it makes over HTTP. All that decides how a handler is loaded and called is AWS's own.
 */
import { Agent, request } from 'node:http';
import Module from 'node:module';

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const path = '/2018-06-01/runtime/invocation/';
let last = Promise.resolve();

const call = (method, to, body, headers = {}) =>
  new Promise((resolve, reject) => {
    const sent = request({ host, port, agent, method, path: path + to, headers }, (answer) => {
      let text = '';
      answer
        .setEncoding('utf8')
        .on('data', (chunk) => {
          text += chunk;
        })
        .on('end', () => resolve({ bodyJson: text, headers: answer.headers }));
    });
    sent.on('error', reject).end(body);
  });

const native = {
  next: () => last.then(() => call('GET', 'next')),
  done: (id, body) => {
    last = call('POST', `${id}/response`, body);
  },
  error: (id, body, xray) => {
    last = call('POST', `${id}/error`, body, { 'lambda-runtime-function-xray-error-cause': xray });
  },
};

const load = Module._load;
Module._load = function (id, ...rest) {
  return id.endsWith('rapid-client.node') ? native : load.call(this, id, ...rest);
};
