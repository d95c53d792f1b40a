// OpenAI's library for Node against the router. ROUTER and BACKSTAGE are URLs, NODE_MODULES is where the library lies.
// Prints "ok NAME" for each check. Groups run at once, the checks of a group one after the other: a group has its models
// for itself.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const library = createRequire(`${process.env.NODE_MODULES}/`)('openai');
const { OpenAI, APIError } = library;
const { ROUTER, BACKSTAGE } = process.env;
const client = new OpenAI({ baseURL: `${ROUTER}/v1`, apiKey: 'sk-tenant-secret', maxRetries: 0 });
const eager = client.withOptions({ maxRetries: 2 });

const model = (name) => `clients/${name}-7b`;
const chat = model('chat');
const hello = [{ role: 'user', content: 'Say hello to the fleet.' }];
const uuid7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

// backstage asks what the engines saw, or waits until a request has arrived or everything is free.
async function backstage(path, name) {
  const answer = await fetch(`${BACKSTAGE}${path}?model=${encodeURIComponent(name)}`);
  assert.equal(answer.status, 200, `${path} ${name}: ${answer.status} ${answer.status === 409 ? await answer.text() : ''}`);
  return path === '/seen' ? answer.json() : answer.text();
}

// fails awaits an error of exactly this class and returns it.
async function fails(promise, kind, facts = {}) {
  const error = await promise.then(
    () => assert.fail(`no ${kind}`),
    (e) => e,
  );
  assert.equal(error.constructor.name, kind, String(error));
  assert.ok(error instanceof library[kind] && error instanceof library.OpenAIError);
  for (const [name, want] of Object.entries(facts)) assert.deepEqual(error[name], want, `${kind}.${name}`);
  return error;
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const texts = (chunks) => chunks.map((c) => c.choices[0]?.delta?.content ?? c.choices[0]?.text ?? '');

const groups = {};
const check = (group, name, run) => (groups[group] ??= []).push({ name, run });

// Plain service.

check('chat', 'chat', async () => {
  const whole = await client.chat.completions.create({ model: chat, messages: hello, max_completion_tokens: 12 });
  assert.equal(whole.object, 'chat.completion');
  assert.equal(whole.model, chat);
  assert.equal(whole.choices.length, 1);
  assert.equal(whole.choices[0].finish_reason, 'length');
  assert.equal(whole.choices[0].message.role, 'assistant');
  assert.equal(whole.usage.completion_tokens, 12);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 12);
  const [one] = await backstage('/seen', chat);
  assert.equal(one.path, '/v1/chat/completions');
  assert.equal(one.secret, '', 'the API key reached the engine');
  assert.equal(one.body, JSON.stringify({ model: chat, messages: hello, max_completion_tokens: 12 }));
});

check('chat', 'chat in a stream', async () => {
  const body = { model: chat, messages: hello, max_completion_tokens: 12 };
  const whole = await client.chat.completions.create(body);
  const plain = await collect(await client.chat.completions.create({ ...body, stream: true }));
  assert.equal(plain.length, 13, 'a chunk for the role and one a token, none for the usage that was not asked for');
  assert.ok(plain.every((c) => c.choices.length === 1 && c.usage == null && c.id === plain[0].id));
  assert.equal(texts(plain).join(''), whole.choices[0].message.content);
  assert.equal(plain.at(-1).choices[0].finish_reason, 'length');
  const counted = await collect(await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } }));
  assert.equal(counted.length, 14);
  assert.deepEqual(texts(counted.slice(0, -1)), texts(plain));
  assert.deepEqual(counted.at(-1).choices, []);
  const { prompt_tokens, completion_tokens, total_tokens } = counted.at(-1).usage;
  assert.deepEqual([prompt_tokens, completion_tokens, total_tokens], [whole.usage.prompt_tokens, 12, whole.usage.total_tokens]);
});

check('chat', 'completions', async () => {
  const whole = await client.completions.create({ model: chat, prompt: 'Once upon a time', max_tokens: 7, n: 2 });
  assert.equal(whole.object, 'text_completion');
  assert.deepEqual(whole.choices.map((c) => [c.index, c.finish_reason]), [[0, 'length'], [1, 'length']]);
  assert.equal(whole.usage.completion_tokens, 14);
  const ids = await client.completions.create({ model: chat, prompt: [[11, 12, 13], [14, 15]], max_tokens: 1 });
  assert.equal(ids.usage.prompt_tokens, 5);
  assert.equal(ids.choices.length, 2);
});

check('chat', 'completions in a stream', async () => {
  const body = { model: chat, prompt: 'Once upon a time', max_tokens: 7 };
  const whole = await client.completions.create(body);
  const plain = await collect(await client.completions.create({ ...body, stream: true }));
  assert.equal(plain.length, 7);
  assert.equal(texts(plain).join(''), whole.choices[0].text);
  const counted = await collect(await client.completions.create({ ...body, stream: true, stream_options: { include_usage: true } }));
  assert.equal(counted.length, 8);
  assert.equal(counted[7].usage.completion_tokens, 7);
  assert.equal(counted[7].usage.prompt_tokens, whole.usage.prompt_tokens);
});

check('chat', 'the assembling helper', async () => {
  const body = { model: chat, messages: hello };
  const whole = await client.chat.completions.create(body);
  const final = await client.chat.completions.stream(body).finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(final.choices[0].finish_reason, 'stop');
});

check('chat', 'parameters pass untouched', async () => {
  await backstage('/seen', chat);
  const body = {
    model: chat, messages: [{ role: 'user', content: [{ type: 'text', text: 'caf\u00e9 \u{1f600} "quoted" \\ </script>' }] }],
    temperature: 0.25, top_p: 1, seed: 9007199254740991, stop: ['\n\n', 'END'], logit_bias: { 50256: -100 }, max_tokens: 3,
    response_format: { type: 'json_schema', json_schema: { name: 's', schema: { type: 'object', properties: { a: { type: 'number' } } } } },
    tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }],
    tool_choice: 'auto', metadata: { b: '1', a: '2' }, user: 'someone',
  };
  await client.chat.completions.create(body);
  await collect(await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } }));
  await collect(await client.chat.completions.create({ ...body, stream: true }));
  const [whole, asked, unasked] = (await backstage('/seen', chat)).map((s) => s.body);
  assert.equal(whole, JSON.stringify(body));
  assert.equal(asked, JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }));
  assert.equal(unasked, asked);
});

check('chat', 'a stream left early', async () => {
  const stream = await client.chat.completions.create({ model: chat, messages: hello, max_completion_tokens: 4000, stream: true });
  let got = 0;
  for await (const chunk of stream) if (chunk && ++got === 3) break;
  assert.equal(got, 3);
  await backstage('/free', chat);
});

check('chat', '20 streams at once', async () => {
  const ask = (i, stream) => client.chat.completions.create({
    model: chat, messages: [{ role: 'user', content: `Tell me tale number ${i}.` }], max_completion_tokens: 60, stream,
  });
  const numbers = [...Array(20).keys()];
  const streams = await Promise.all(numbers.map(async (i) => texts(await collect(await ask(i, true))).join('')));
  assert.equal(new Set(streams).size, 20);
  for (const i of numbers) assert.equal(streams[i], (await ask(i, false)).choices[0].message.content, `tale ${i}`);
});

check('chat', 'request ids', async () => {
  const body = { model: chat, messages: hello, max_completion_tokens: 1 };
  const made = await client.chat.completions.create(body);
  assert.match(made._request_id, uuid7);
  assert.equal(made.id, `chatcmpl-${made._request_id}`, 'the engine has the same id');
  const { data, response, request_id } = await client.chat.completions.create({ ...body, stream: true }).withResponse();
  assert.match(request_id, uuid7);
  assert.ok(response.headers.get('x-warmpath-engine').startsWith('127.0.0.1:'));
  await collect(data);
  const kept = await client.chat.completions.create(body, { headers: { 'X-Request-Id': 'my-own.1' } });
  assert.equal(kept._request_id, 'my-own.1');
});

check('chat', 'embeddings', async () => {
  const answer = await client.embeddings.create({ model: chat, input: 'hello' });
  assert.deepEqual(answer.data[0].embedding, [1, -0.5, 0.25]);
  const floats = await client.embeddings.create({ model: chat, input: ['hello'], encoding_format: 'float' });
  assert.deepEqual(floats.data[0].embedding, [1, -0.5, 0.25]);
});

check('chat', 'responses', async () => {
  const whole = await client.responses.create({ model: chat, input: 'hello' });
  assert.equal(whole.output_text, 'hello there');
  const events = await collect(await client.responses.create({ model: chat, input: 'hello', stream: true }));
  assert.deepEqual(events.map((e) => e.type), ['response.output_text.delta', 'response.output_text.delta', 'response.completed']);
  assert.equal(events[0].delta + events[1].delta, 'hello there');
});

// What the router itself says.

check('errors', 'models', async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.deepEqual(ids, ['busy', 'chat', 'down', 'gone', 'lost', 'refuse', 'slow', 'tools'].map(model));
  const one = await client.models.retrieve(chat);
  assert.deepEqual([one.id, one.object], [chat, 'model']);
  await fails(client.models.retrieve('clients/none'), 'NotFoundError', { status: 404, code: 'model_not_found', param: 'model' });
});

check('errors', 'bad requests', async () => {
  const of = (body) => client.chat.completions.create({ model: chat, messages: hello, ...body });
  const invalid = { status: 400, type: 'invalid_request_error', code: null };
  const error = await fails(of({ messages: [] }), 'BadRequestError', { ...invalid, param: 'messages' });
  assert.match(error.requestID, uuid7);
  assert.equal(error.message, '400 messages must not be empty');
  await fails(of({ messages: 'hi' }), 'BadRequestError', { ...invalid, param: 'messages' });
  await fails(of({ max_tokens: -1 }), 'BadRequestError', { ...invalid, param: 'max_tokens' });
  await fails(of({ stream: true, stream_options: 7 }), 'BadRequestError', { ...invalid, param: 'stream_options' });
  await fails(client.completions.create({ model: chat }), 'BadRequestError', { ...invalid, param: 'prompt' });
  await fails(of({ model: '' }), 'BadRequestError', { ...invalid, param: 'model' });
  const unknown = await fails(of({ model: 'clients/none' }), 'NotFoundError', {
    status: 404, code: 'model_not_found', param: 'model', type: 'invalid_request_error',
  });
  assert.match(unknown.requestID, uuid7);
});

check('errors', 'a prompt too long', async () => {
  const content = 'word '.repeat(5000);
  const call = client.chat.completions.create({ model: chat, messages: [{ role: 'user', content }] });
  const error = await fails(call, 'BadRequestError', { status: 400 });
  const said = [error.code, error.param].join(); // by the router where it knows the tokens in time, else by the engine
  assert.ok(['context_length_exceeded,messages', '400,max_tokens'].includes(said), said);
});

check('errors', 'a body too large', async () => {
  const content = 'x'.repeat(24 << 20);
  const ask = (stream) => eager.chat.completions.create({ model: chat, messages: [{ role: 'user', content }], stream });
  for (const stream of [false, true, false, true]) await fails(ask(stream), 'APIError', { status: 413 });
});

check('errors', 'an unknown path', async () => {
  await fails(client.get('/nothing/here'), 'NotFoundError', { status: 404, code: 'not_found' });
  await fails(client.files.list(), 'NotFoundError', { status: 404, code: 'not_found' });
  await fails(client.models.delete(chat), 'NotFoundError', { status: 404, code: 'not_found' });
});

check('errors', 'keys', async () => {
  for (const apiKey of ['sk-none', 'sk-old']) {
    const stranger = eager.withOptions({ apiKey });
    const denied = { status: 401, code: 'invalid_api_key', type: 'authentication_error' };
    await fails(stranger.chat.completions.create({ model: chat, messages: hello }), 'AuthenticationError', denied);
    await fails(stranger.chat.completions.create({ model: chat, messages: hello, stream: true }), 'AuthenticationError', denied);
    await fails(stranger.models.list(), 'AuthenticationError', denied);
  }
});

check('errors', 'a spent budget', async () => {
  const few = client.withOptions({ apiKey: 'sk-few' });
  const ask = () => few.chat.completions.create({ model: model('tools'), messages: hello });
  let served = 0;
  const error = await fails((async () => {
    for (; served < 5; served++) await ask(); // two a minute; another minute may begin meanwhile
  })(), 'RateLimitError', { status: 429, code: 'rate_limit_exceeded', type: 'rate_limit_error' });
  assert.ok(served >= 2 && served <= 4, `${served} requests were served`);
  const wait = Number(error.headers.get('retry-after'));
  assert.ok(wait >= 1 && wait <= 60, `Retry-After: ${wait}`);
  assert.equal(error.headers.get('x-ratelimit-remaining-requests'), '0');
});

// Engines that fail.

check('busy', 'busy, then served', async () => {
  const whole = await eager.chat.completions.create({ model: model('busy'), messages: hello, max_completion_tokens: 2 });
  assert.equal(whole.usage.completion_tokens, 2);
  const attempts = await backstage('/seen', model('busy'));
  assert.deepEqual(attempts.map((a) => a.retry), ['0', '1', '2']);
  assert.ok(attempts.slice(1).every((a) => a.after_ms >= 990), 'Retry-After: 1 was not waited for');
  assert.equal(new Set(attempts.map((a) => a.body)).size, 1);
});

check('busy', 'busy for good', async () => {
  const error = await fails(client.chat.completions.create({ model: model('busy'), messages: hello }), 'RateLimitError', { status: 429 });
  assert.equal(error.headers.get('retry-after'), '1');
  assert.equal((await backstage('/seen', model('busy'))).length, 1);
});

check('down', 'down, then served', async () => {
  const stream = await eager.chat.completions.create({ model: model('down'), messages: hello, max_completion_tokens: 2, stream: true });
  assert.equal((await collect(stream)).length, 3);
  assert.deepEqual((await backstage('/seen', model('down'))).map((a) => a.retry), ['0', '1', '2']);
});

check('gone', 'gone', async () => {
  const once = client.withOptions({ maxRetries: 1 });
  await fails(once.chat.completions.create({ model: model('gone'), messages: hello }), 'InternalServerError', {
    status: 502, code: 'engine_unreachable', type: 'server_error',
  });
  const attempts = await backstage('/seen', model('gone'));
  assert.deepEqual(attempts.map((a) => a.retry), ['0', '1']);
  assert.ok(attempts[1].after_ms >= 990, 'Retry-After: 1 was not waited for');
});

check('lost', 'lost in a stream', async () => {
  const stream = await eager.chat.completions.create({ model: model('lost'), messages: hello, stream: true });
  const got = [];
  const reading = (async () => {
    for await (const chunk of stream) got.push(...texts([chunk]));
  })();
  const error = await fails(reading, 'APIError', { code: 'engine_lost', type: 'server_error' });
  assert.match(error.message, /the engine failed in the middle of the answer/);
  assert.deepEqual(got, ['one ', 'two ']);
  assert.deepEqual((await backstage('/seen', model('lost'))).map((a) => a.retry), ['0'], 'nothing is tried again after the first byte');
});

check('lost', 'lost in an answer', async () => {
  const error = await client.chat.completions.create({ model: model('lost'), messages: hello }).then(
    (whole) => assert.fail(`half an answer was taken for whole: ${JSON.stringify(whole)}`),
    (e) => e,
  );
  assert.ok(!(error instanceof assert.AssertionError), String(error));
  assert.equal((await backstage('/seen', model('lost'))).length, 1);
  await backstage('/free', model('lost'));
});

check('slow', 'a timeout', async () => {
  const hasty = client.withOptions({ timeout: 2000, maxRetries: 1 });
  await fails(hasty.chat.completions.create({ model: model('slow'), messages: hello }), 'APIConnectionTimeoutError');
  assert.deepEqual((await backstage('/seen', model('slow'))).map((a) => a.retry), ['0', '1']);
  await backstage('/free', model('slow'));
});

check('slow', 'a call aborted', async () => {
  const leaving = new AbortController();
  const call = client.chat.completions.create({ model: model('slow'), messages: hello }, { signal: leaving.signal });
  const failing = fails(call, 'APIUserAbortError');
  await backstage('/arrived', model('slow'));
  leaving.abort();
  await failing;
  await backstage('/free', model('slow'));
});

check('slow', 'a stream aborted', async () => {
  const stream = await client.chat.completions.create({ model: model('slow'), messages: hello, stream: true });
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    await backstage('/arrived', model('slow'));
    stream.controller.abort();
  }
  assert.deepEqual(texts(chunks), ['one ']);
  await backstage('/free', model('slow'));
});

check('refuse', 'statuses', async () => {
  const kinds = {
    400: 'BadRequestError', 401: 'AuthenticationError', 403: 'PermissionDeniedError', 404: 'NotFoundError', 409: 'ConflictError',
    413: 'APIError', 422: 'UnprocessableEntityError', 429: 'RateLimitError', 500: 'InternalServerError',
  };
  for (const [status, kind] of Object.entries(kinds)) {
    const call = client.chat.completions.create({ model: model('refuse'), messages: [{ role: 'user', content: status }] });
    const error = await fails(call, kind, { status: Number(status), param: 'temperature', code: Number(status) });
    assert.equal(error.message, `${status} refused with ${status}`);
    assert.match(error.requestID, uuid7);
  }
});

check('tools', 'tool calls', async () => {
  const ask = (stream) => ({
    model: model('tools'), messages: hello, stream,
    tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }],
  });
  const call = { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Oslo"}' } };
  const whole = await client.chat.completions.create(ask(false));
  assert.deepEqual(whole.choices[0].message.tool_calls, [call]);
  const parts = (await collect(await client.chat.completions.create(ask(true)))).map((c) => c.choices[0].delta.tool_calls?.[0].function.arguments);
  assert.deepEqual(parts, ['{"city":', '"Oslo"}', undefined]);
  const final = await client.chat.completions.stream({ ...ask(true), stream: undefined }).finalChatCompletion();
  const { id, type, function: fn } = final.choices[0].message.tool_calls[0];
  assert.deepEqual({ id, type, function: { name: fn.name, arguments: fn.arguments } }, call);
});

assert.ok(APIError, 'this is not the library');
let failed = 0;
await Promise.all(Object.values(groups).map(async (group) => {
  for (const { name, run } of group) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (e) {
      failed++;
      console.log(`failed ${name}: ${e.stack}`);
    }
  }
}));
process.exit(failed ? 1 : 0);
