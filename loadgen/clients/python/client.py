"""OpenAI's library for Python against the router. ROUTER and BACKSTAGE are URLs; the library is on PYTHONPATH.

Prints "ok NAME" for each check. Groups run at once, the checks of a group one after the other: a group has its models for
itself. What each check holds stands in the same order in the script for Node.
"""

import asyncio
import json
import os
import re
import sys
import threading
import traceback
import urllib.parse
import urllib.request

import openai
from openai import AsyncOpenAI, OpenAI

ROUTER, BACKSTAGE = os.environ["ROUTER"], os.environ["BACKSTAGE"]
where = dict(base_url=f"{ROUTER}/v1", api_key="sk-tenant-secret")
client = OpenAI(**where, max_retries=0)
eager = client.with_options(max_retries=2)


def model(name):
    return f"clients/{name}-7b"


chat = model("chat")
hello = [{"role": "user", "content": "Say hello to the fleet."}]
weather = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
uuid7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def backstage(path, name):
    """Asks what the engines saw, or waits until a request has arrived or everything is free."""
    with urllib.request.urlopen(f"{BACKSTAGE}{path}?model={urllib.parse.quote(name, safe='')}") as answer:
        text = answer.read()
    return json.loads(text) if path == "/seen" else None


def retries(name):
    return [one["retry"] for one in backstage("/seen", name) or []]


def equal(got, want, what=""):
    assert got == want, f"{what} is {got!r}, not {want!r}"


def fails(kind, run, **facts):
    """Runs what must end in an error of exactly this class, and returns that."""
    try:
        got = run()
    except openai.OpenAIError as error:
        equal(type(error), kind, str(error))
        for name, want in facts.items():
            equal(getattr(error, name), want, f"{kind.__name__}.{name}")
        return error
    raise AssertionError(f"no {kind.__name__}, but {got!r}")


def texts(chunks):
    pieces = []
    for chunk in chunks:
        for choice in chunk.choices:
            pieces.append((choice.delta.content if hasattr(choice, "delta") else choice.text) or "")
    return pieces


def ask(to=client, **changes):
    return to.chat.completions.create(**{"model": chat, "messages": hello, **changes})


groups = {}


def check(group, name):
    def add(run):
        groups.setdefault(group, []).append((name, run))
        return run

    return add


# Plain service.


@check("chat", "chat")
def _():
    whole = ask(max_completion_tokens=12)
    equal((whole.object, whole.model, len(whole.choices)), ("chat.completion", chat, 1))
    equal((whole.choices[0].finish_reason, whole.choices[0].message.role), ("length", "assistant"))
    equal(whole.usage.completion_tokens, 12)
    equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 12)
    [one] = backstage("/seen", chat)
    equal((one["path"], one["secret"]), ("/v1/chat/completions", ""), "what reached the engine")
    equal(json.loads(one["body"]), {"model": chat, "messages": hello, "max_completion_tokens": 12})


@check("chat", "chat in a stream")
def _():
    whole = ask(max_completion_tokens=12)
    plain = list(ask(max_completion_tokens=12, stream=True))
    equal(len(plain), 13, "the number of chunks: one for the role and one a token, none for usage")
    assert all(len(c.choices) == 1 and c.usage is None and c.id == plain[0].id for c in plain)
    equal("".join(texts(plain)), whole.choices[0].message.content)
    equal(plain[-1].choices[0].finish_reason, "length")
    counted = list(ask(max_completion_tokens=12, stream=True, stream_options={"include_usage": True}))
    equal(len(counted), 14)
    equal(texts(counted), texts(plain))
    equal(counted[-1].choices, [])
    used = counted[-1].usage
    equal(
        (used.prompt_tokens, used.completion_tokens, used.total_tokens),
        (whole.usage.prompt_tokens, 12, whole.usage.total_tokens),
    )


@check("chat", "completions")
def _():
    whole = client.completions.create(model=chat, prompt="Once upon a time", max_tokens=7, n=2)
    equal(whole.object, "text_completion")
    equal([(c.index, c.finish_reason) for c in whole.choices], [(0, "length"), (1, "length")])
    equal(whole.usage.completion_tokens, 14)
    ids = client.completions.create(model=chat, prompt=[[11, 12, 13], [14, 15]], max_tokens=1)
    equal((ids.usage.prompt_tokens, len(ids.choices)), (5, 2))


@check("chat", "completions in a stream")
def _():
    body = dict(model=chat, prompt="Once upon a time", max_tokens=7)
    whole = client.completions.create(**body)
    plain = list(client.completions.create(**body, stream=True))
    equal(len(plain), 7)
    equal("".join(texts(plain)), whole.choices[0].text)
    counted = list(client.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    equal(len(counted), 8)
    equal((counted[7].usage.completion_tokens, counted[7].usage.prompt_tokens), (7, whole.usage.prompt_tokens))


@check("chat", "the assembling helper")
def _():
    whole = ask()
    with client.beta.chat.completions.stream(model=chat, messages=hello) as stream:
        final = stream.get_final_completion()
    equal(final.choices[0].message.content, whole.choices[0].message.content)
    equal(final.choices[0].finish_reason, "stop")


@check("chat", "parameters pass untouched")
def _():
    backstage("/seen", chat)
    body = dict(
        model=chat,
        messages=[{"role": "user", "content": [{"type": "text", "text": 'caf\u00e9 \U0001f600 "quoted" \\ </script>'}]}],
        temperature=0.25, top_p=1, seed=2**53 - 1, stop=["\n\n", "END"], logit_bias={"50256": -100}, max_tokens=3,
        response_format={"type": "json_object"}, tools=[weather], tool_choice="auto", metadata={"b": "1", "a": "2"}, user="someone",
    )  # fmt: skip
    counted = dict(stream=True, stream_options={"include_usage": True})
    client.chat.completions.create(**body, extra_body={"cache_salt": "of mine", "top_k": 5})
    list(client.chat.completions.create(**body, **counted))
    list(client.chat.completions.create(**body, stream=True))
    whole, asked, unasked = [json.loads(one["body"]) for one in backstage("/seen", chat)]
    equal(whole, {**body, "cache_salt": "of mine", "top_k": 5})
    equal(asked, {**body, **counted})
    equal(unasked, asked)


@check("chat", "a stream left early")
def _():
    got = 0
    with ask(max_completion_tokens=4000, stream=True) as stream:
        for _ in stream:
            got += 1
            if got == 3:
                break
    backstage("/free", chat)


@check("chat", "20 streams at once")
def _():
    def tale(i):
        return dict(model=chat, messages=[{"role": "user", "content": f"Tell me tale number {i}."}], max_completion_tokens=60)

    async def one(to, i):
        return "".join(texts([chunk async for chunk in await to.chat.completions.create(**tale(i), stream=True)]))

    async def all_of_them():
        async with AsyncOpenAI(**where, max_retries=0) as to:
            return await asyncio.gather(*[one(to, i) for i in range(20)])

    streams = asyncio.run(all_of_them())
    equal(len(set(streams)), 20)
    for i, text in enumerate(streams):
        equal(text, client.chat.completions.create(**tale(i)).choices[0].message.content, f"tale {i}")


@check("chat", "request ids")
def _():
    made = ask(max_tokens=1)
    assert uuid7.fullmatch(made._request_id), made._request_id
    equal(made.id, f"chatcmpl-{made._request_id}", "the engine's id")
    raw = client.chat.completions.with_raw_response.create(model=chat, messages=hello, max_tokens=1, stream=True)
    assert uuid7.fullmatch(raw.request_id), raw.request_id
    assert raw.headers["x-warmpath-engine"].startswith("127.0.0.1:"), raw.headers
    list(raw.parse())
    equal(ask(max_tokens=1, extra_headers={"X-Request-Id": "my-own.1"})._request_id, "my-own.1")


@check("chat", "embeddings")
def _():
    for changes in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model=chat, input="hello", **changes)
        want = "AACAPwAAAL8AAIA+" if changes.get("encoding_format") == "base64" else [1, -0.5, 0.25]
        equal(answer.data[0].embedding, want, str(changes))


@check("chat", "responses")
def _():
    equal(client.responses.create(model=chat, input="hello").output_text, "hello there")
    events = list(client.responses.create(model=chat, input="hello", stream=True))
    delta = "response.output_text.delta"
    equal([e.type for e in events], [delta, delta, "response.completed"])
    equal(events[0].delta + events[1].delta, "hello there")


# What the router itself says.


@check("errors", "models")
def _():
    listed = [m.id for m in client.models.list()]
    equal(listed, [model(n) for n in ("busy", "chat", "down", "gone", "lost", "refuse", "slow", "tools")])
    one = client.models.retrieve(chat)
    equal((one.id, one.object), (chat, "model"))
    unknown = dict(status_code=404, code="model_not_found", param="model")
    fails(openai.NotFoundError, lambda: client.models.retrieve("clients/none"), **unknown)


@check("errors", "bad requests")
def _():
    def bad(param, run):
        invalid = dict(status_code=400, type="invalid_request_error", code=None, param=param)
        return fails(openai.BadRequestError, run, **invalid)

    error = bad("messages", lambda: ask(messages=[]))
    assert uuid7.fullmatch(error.request_id), error.request_id
    equal(error.body["message"], "messages must not be empty")
    bad("messages", lambda: ask(messages="hi"))
    bad("max_tokens", lambda: ask(max_tokens=-1))
    bad("stream_options", lambda: ask(stream=True, stream_options=7))
    bad("prompt", lambda: client.completions.create(model=chat, prompt=None))
    bad("model", lambda: ask(model=""))
    unknown = fails(
        openai.NotFoundError, lambda: ask(model="clients/none"),
        status_code=404, code="model_not_found", param="model", type="invalid_request_error",
    )  # fmt: skip
    assert uuid7.fullmatch(unknown.request_id), unknown.request_id


@check("errors", "a prompt too long")
def _():
    error = fails(openai.BadRequestError, lambda: ask(messages=[{"role": "user", "content": "word " * 5000}]), status_code=400)
    said = (error.body["code"], error.param)  # by the router where it knows the tokens in time, else by the engine
    assert said in (("context_length_exceeded", "messages"), (400, "max_tokens")), said


@check("errors", "a body too large")
def _():
    messages = [{"role": "user", "content": "x" * (24 << 20)}]
    for stream in (False, True, False, True):
        fails(openai.APIStatusError, lambda: ask(eager, messages=messages, stream=stream), status_code=413)


@check("errors", "an unknown path")
def _():
    unknown = dict(status_code=404, code="not_found")
    fails(openai.NotFoundError, lambda: client.get("/nothing/here", cast_to=object), **unknown)
    fails(openai.NotFoundError, lambda: client.files.list(), **unknown)
    fails(openai.NotFoundError, lambda: client.models.delete(chat), **unknown)


@check("errors", "keys")
def _():
    denied = dict(status_code=401, code="invalid_api_key", type="authentication_error")
    for key in ("sk-none", "sk-old"):
        stranger = eager.with_options(api_key=key)
        fails(openai.AuthenticationError, lambda: ask(stranger), **denied)
        fails(openai.AuthenticationError, lambda: ask(stranger, stream=True), **denied)
        fails(openai.AuthenticationError, lambda: stranger.models.list(), **denied)


@check("errors", "a spent budget")
def _():
    few, served = client.with_options(api_key="sk-few"), []

    def spend():
        for _ in range(5):  # two a minute; another minute may begin meanwhile
            served.append(ask(few, model=model("tools")))

    spent = dict(status_code=429, code="rate_limit_exceeded", type="rate_limit_error")
    error = fails(openai.RateLimitError, spend, **spent)
    assert 2 <= len(served) <= 4, f"{len(served)} requests were served"
    assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
    equal(error.response.headers["x-ratelimit-remaining-requests"], "0")


# Engines that fail.


@check("busy", "busy, then served")
def _():
    equal(ask(eager, model=model("busy"), max_completion_tokens=2).usage.completion_tokens, 2)
    attempts = backstage("/seen", model("busy"))
    equal([a["retry"] for a in attempts], ["0", "1", "2"])
    assert all(a["after_ms"] >= 990 for a in attempts[1:]), "Retry-After: 1 was not waited for"
    equal(len({a["body"] for a in attempts}), 1)


@check("busy", "busy for good")
def _():
    error = fails(openai.RateLimitError, lambda: ask(model=model("busy")), status_code=429)
    equal(error.response.headers["retry-after"], "1")
    equal(retries(model("busy")), ["0"])


@check("down", "down, then served")
def _():
    equal(len(list(ask(eager, model=model("down"), max_completion_tokens=2, stream=True))), 3)
    equal(retries(model("down")), ["0", "1", "2"])


@check("gone", "gone")
def _():
    once = client.with_options(max_retries=1)
    fails(
        openai.InternalServerError, lambda: ask(once, model=model("gone")),
        status_code=502, code="engine_unreachable", type="server_error",
    )  # fmt: skip
    attempts = backstage("/seen", model("gone"))
    equal([a["retry"] for a in attempts], ["0", "1"])
    assert attempts[1]["after_ms"] >= 990, "Retry-After: 1 was not waited for"


@check("lost", "lost in a stream")
def _():
    got = []

    def read():
        for chunk in ask(eager, model=model("lost"), stream=True):
            got.extend(texts([chunk]))
        return got

    error = fails(openai.APIError, read, code="engine_lost", type="server_error")
    assert "the engine failed in the middle of the answer" in error.message, error.message
    equal(got, ["one ", "two "])
    equal(retries(model("lost")), ["0"], "what is tried again after the first byte")


@check("lost", "lost in an answer")
def _():
    fails(openai.APIConnectionError, lambda: ask(model=model("lost")))
    equal(retries(model("lost")), ["0"])
    backstage("/free", model("lost"))


@check("slow", "a timeout")
def _():
    hasty = client.with_options(timeout=2, max_retries=1)
    fails(openai.APITimeoutError, lambda: ask(hasty, model=model("slow")))
    equal(retries(model("slow")), ["0", "1"])
    backstage("/free", model("slow"))


@check("slow", "a call aborted")
def _():
    async def leave():
        async with AsyncOpenAI(**where, max_retries=0) as to:
            call = asyncio.create_task(to.chat.completions.create(model=model("slow"), messages=hello))
            await asyncio.to_thread(backstage, "/arrived", model("slow"))
            call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                return
            raise AssertionError("the call went on")

    asyncio.run(leave())
    backstage("/free", model("slow"))


@check("slow", "a stream aborted")
def _():
    with ask(model=model("slow"), stream=True) as stream:
        equal(texts([next(stream)]), ["one "])
        backstage("/arrived", model("slow"))
    backstage("/free", model("slow"))


@check("refuse", "statuses")
def _():
    kinds = {
        400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError,
        404: openai.NotFoundError, 409: openai.ConflictError, 413: openai.APIStatusError,
        422: openai.UnprocessableEntityError, 429: openai.RateLimitError, 500: openai.InternalServerError,
    }  # fmt: skip
    for status, kind in kinds.items():
        error = fails(
            kind, lambda: ask(model=model("refuse"), messages=[{"role": "user", "content": str(status)}]),
            status_code=status, param="temperature",
        )  # fmt: skip
        equal((error.body["message"], error.body["code"]), (f"refused with {status}", status))
        assert uuid7.fullmatch(error.request_id), error.request_id


@check("tools", "tool calls")
def _():
    def call(of):
        return of.id, of.type, of.function.name, of.function.arguments

    want = ("call_1", "function", "weather", '{"city":"Oslo"}')
    asked = dict(model=model("tools"), tools=[weather])
    equal([call(c) for c in ask(**asked).choices[0].message.tool_calls], [want])
    deltas = [chunk.choices[0].delta for chunk in ask(**asked, stream=True)]
    equal([d.tool_calls[0].function.arguments for d in deltas if d.tool_calls], ['{"city":', '"Oslo"}'])
    with client.beta.chat.completions.stream(**asked, messages=hello) as stream:
        final = stream.get_final_completion()
    equal([call(c) for c in final.choices[0].message.tool_calls], [want])


failed = []


def say(line):
    sys.stdout.write(line + "\n")  # whole, whatever other threads say
    sys.stdout.flush()


def run_group(checks):
    for name, run in checks:
        try:
            run()
            say(f"ok {name}")
        except BaseException:  # noqa: BLE001 - whatever it is, it is the check's result
            failed.append(name)
            say(f"failed {name}: {traceback.format_exc()}")


threads = [threading.Thread(target=run_group, args=(checks,)) for checks in groups.values()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(bool(failed))
