// @vitest-environment node
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ServerConnection } from '@jupyterlab/services';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Away, Client, Refusal } from '../src/client';
import type { IStreamEvent } from '../src/stream';
import { kernel, status } from './builders';

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void;

let server: Server;
let client: Client;
let handle: Handler;
let seen: { method: string; path: string; body: string; token: string }[];

beforeEach(async () => {
  seen = [];
  server = createServer((request, response) => {
    let body = '';
    request.on('data', piece => (body += piece));
    request.on('end', () => {
      const path = new URL(request.url ?? '', 'http://x').pathname;
      const token = request.headers.authorization ?? '';
      seen.push({ method: request.method ?? '', path, body, token });
      handle(request, response, body);
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  client = new Client(
    ServerConnection.makeSettings({
      baseUrl: `http://127.0.0.1:${port}/user/ann/`,
      token: 'secret'
    })
  );
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
});

const answer =
  (data: unknown, code = 200): Handler =>
  (_request, response) => {
    response.writeHead(code, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(data));
  };

describe('the client', () => {
  it('reads the status with the token, and hears the server’s clock', async () => {
    handle = answer(status());
    const { body, serverTime } = await client.status();
    expect(body.user).toBe('ann');
    expect(Math.abs((serverTime ?? 0) - Date.now())).toBeLessThan(5000);
    expect(seen[0]).toMatchObject({
      method: 'GET',
      path: '/user/ann/gpuhub/api/v1/status',
      token: 'token secret'
    });
  });

  it('asks for each thing at its address', async () => {
    handle = answer(kernel());
    await client.place('k/1', { placement: 'worker', left: 'refuse', pool: null });
    await client.cancelMove('k1');
    await client.dismiss('k1', 'n1');
    await client.save('k1');
    await client.restore('k1', { snapshot: 's1', names: ['x'] });
    await client.deleteSnapshot('s1');
    await client.request('h100');
    await client.keep();
    await client.release();
    await client.usage();
    expect(
      seen.map(one => `${one.method} ${one.path.split('/v1/')[1]} ${one.body}`.trim())
    ).toEqual([
      'PUT kernels/k%2F1/placement {"placement":"worker","left":"refuse","pool":null}',
      'DELETE kernels/k1/move',
      'DELETE kernels/k1/notices/n1',
      'POST kernels/k1/snapshots {"left":"accept"}',
      'POST kernels/k1/restore {"snapshot":"s1","names":["x"]}',
      'DELETE snapshots/s1',
      'POST lease {"pool":"h100","gpus":1}',
      'POST lease/keep',
      'DELETE lease',
      'GET usage'
    ]);
  });

  it('hands a refusal on with its sentence and hint', async () => {
    handle = answer(
      {
        code: 'limit-reached',
        message: 'You use 1 of 1 GPUs.',
        hint: 'Release one.',
        details: { used: 1 }
      },
      403
    );
    const error = (await client.keep().catch(one => one)) as Refusal;
    expect(error).toBeInstanceOf(Refusal);
    expect(error).toMatchObject({
      status: 403,
      code: 'limit-reached',
      message: 'You use 1 of 1 GPUs.',
      hint: 'Release one.',
      details: { used: 1 }
    });
  });

  it('survives a refusal that a proxy made', async () => {
    handle = (_request, response) => {
      response.writeHead(502, { 'Content-Type': 'text/html' });
      response.end('<h1>Bad gateway</h1>');
    };
    const error = (await client.keep().catch(one => one)) as Refusal;
    expect(error).toMatchObject({ name: 'Refusal', status: 502, code: 'internal' });
  });

  it('calls what was never answered away', async () => {
    handle = request => request.socket.destroy();
    await expect(client.keep()).rejects.toBeInstanceOf(Away);
  });

  it('calls an answer that was cut off away', async () => {
    handle = (_request, response) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '100' });
      response.write('{"kernels": [');
      setTimeout(() => response.destroy(), 20);
    };
    await expect(client.status()).rejects.toBeInstanceOf(Away);
  });

  it('takes an empty answer as it is', async () => {
    handle = (_request, response) => response.writeHead(204).end();
    await expect(client.deleteSnapshot('s1')).resolves.toBeUndefined();
  });
});

describe('the client’s stream', () => {
  const stream: Handler = (_request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('event: status\ndata: {"user":"ann"}\n\n: still here\n\nevent: kern');
    setTimeout(() => response.write('el\ndata: {"id":"k1"}\n\n'), 20);
  };

  it('gives events as they come, and ends quietly when told to', async () => {
    handle = stream;
    const events: IStreamEvent[] = [];
    const stop = new AbortController();
    const over = client.follow(
      {
        onEvent: event => {
          events.push(event);
          if (events.length === 2) {
            stop.abort();
          }
        }
      },
      stop.signal
    );
    await over;
    expect(events).toEqual([
      { kind: 'status', data: '{"user":"ann"}' },
      { kind: 'kernel', data: '{"id":"k1"}' }
    ]);
  });

  it('says when the line breaks', async () => {
    handle = (request, response) => {
      stream(request, response, '');
      setTimeout(() => response.destroy(), 60);
    };
    const follow = client.follow({ onEvent: () => undefined }, new AbortController().signal);
    await expect(follow).rejects.toBeInstanceOf(Away);
  });

  it('says when the server ends it', async () => {
    handle = (_request, response) => response.writeHead(200).end();
    const follow = client.follow({ onEvent: () => undefined }, new AbortController().signal);
    await expect(follow).rejects.toBeInstanceOf(Away);
  });

  it('hands a refusal on', async () => {
    handle = answer({ code: 'not-found', message: 'There is no such thing here.', hint: '' }, 404);
    const follow = client.follow({ onEvent: () => undefined }, new AbortController().signal);
    await expect(follow).rejects.toMatchObject({ name: 'Refusal', status: 404 });
  });
});
