package router

import (
	"context"
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/internal/door"
	"github.com/warmpath/warmpath/services/router/internal/headers"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/internal/scorers"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const maxPath = 256

// statusClientGone is what access logs customarily say of a client that left before its answer.
const statusClientGone = 499

func (rt *router) handler() http.Handler {
	mux := http.NewServeMux()
	post := func(path string, kind scorerv1.Kind) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { rt.serve(w, r, kind) })
	}
	post("/v1/completions", scorerv1.Kind_KIND_COMPLETIONS)
	post("/v1/chat/completions", scorerv1.Kind_KIND_CHAT)
	for _, path := range []string{"/tokenize", "/detokenize", "/inference/v1/generate"} {
		post(path, scorerv1.Kind_KIND_UNSPECIFIED)
	}
	mux.HandleFunc("POST /v1/{path...}", func(w http.ResponseWriter, r *http.Request) {
		if !proxied(r.URL.Path) {
			rt.noPath(w, r)
			return
		}
		rt.serve(w, r, scorerv1.Kind_KIND_UNSPECIFIED)
	})
	mux.HandleFunc("GET /v1/models", rt.known(rt.models))
	mux.HandleFunc("GET /v1/models/{id...}", rt.known(rt.model))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	if gatherer, ok := rt.cfg.Metrics.(prometheus.Gatherer); ok {
		mux.HandleFunc("GET /metrics", rt.confided(promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP))
	}
	mux.HandleFunc("/", rt.noPath)
	return mux
}

// proxied says whether an engine may be asked for a path under /v1. Dot segments, which may be spelt with escapes,
// lead out of /v1, adapters are the operator's business, and a path stands in the request's record.
func proxied(decoded string) bool {
	switch decoded {
	case "/v1/load_lora_adapter", "/v1/unload_lora_adapter":
		return false
	}
	return path.Clean(decoded) == decoded && len(decoded) <= maxPath
}

func (rt *router) noPath(w http.ResponseWriter, r *http.Request) {
	rt.refuse(w, &openai.Error{Status: http.StatusNotFound, Code: "not_found", Message: "there is no " + r.Method + " " + r.URL.Path})
}

// refuse answers with an error of ours and counts it.
func (rt *router) refuse(w http.ResponseWriter, e *openai.Error) {
	rt.metrics.request(e.Status, "refused")
	if why := droppedBecause(e.Code); why != "" {
		w.Header().Set(reasonHeader, why)
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	e.Write(w)
}

// serve takes one request from its first byte to its record.
func (rt *router) serve(w http.ResponseWriter, r *http.Request, kind scorerv1.Kind) {
	q := &request{kind: kind, path: r.URL.EscapedPath(), query: r.URL.RawQuery, header: r.Header, arrived: time.Now(), id: headers.NameOf(r.Header)}
	w.Header().Set(headers.RequestID, q.id)
	if e := checkType(r.Header); e != nil {
		rt.refuseUnread(w, r, e)
		return
	}
	var e *openai.Error
	if q.caller, e = rt.authenticate(r.Header, q.arrived); e != nil {
		rt.refuseUnread(w, r, e)
		return
	}
	taken, err := rt.memory.Take(r.Context(), r.ContentLength)
	if err != nil {
		e = &openai.Error{Status: http.StatusServiceUnavailable, Code: codeNoMemory, RetryAfter: retryFull, Message: err.Error()}
	} else {
		defer func() { rt.memory.Give(taken) }()
		q.body, e = rt.readBody(w, r)
	}
	if e == nil {
		defer q.body.Release()
		taken = rt.memory.Keep(taken, int64(len(q.body.Raw)))
		defer func() { q.settle(rt.wall()) }()
		defer func() { q.visit.Leave(q.output) }()
		e = rt.admit(r.Context(), w.Header(), q)
	}
	if q.pool.ID != "" { // it has arrived, so it will have finished, however it ends
		defer rt.pool(q.pool.ID).count(func(t *totals) { t.finished++ })
	}
	if r.Context().Err() != nil && !late(e) {
		rt.metrics.request(statusClientGone, outcomeCancelled)
		return
	}
	if q.body == nil {
		rt.refuseUnread(w, r, e)
		return
	}
	if e != nil {
		rt.refuse(w, e)
		return
	}
	rt.exchange(w, r, q)
}

// late says that the client did not send its body in time; the server then takes it for gone, but it may be there.
func late(e *openai.Error) bool { return e != nil && e.Status == http.StatusRequestTimeout }

// readBody gives the client its time for the body, and none for what comes after.
func (rt *router) readBody(w http.ResponseWriter, r *http.Request) (*bodies.Body, *openai.Error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(rt.bodyTime)) // every connection of net/http has deadlines
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	return rt.bodies.Read(r)
}

// admit checks a request, finds its pool, charges its tenant and waits until the pool has room.
func (rt *router) admit(ctx context.Context, answer http.Header, q *request) *openai.Error {
	if e := q.read(); e != nil {
		return e
	}
	rt.metrics.took("read", time.Since(q.arrived))
	var known bool
	if q.pool, q.lora, known = rt.fleet.View().PoolOf(q.model); !known {
		return unknownModel(q.model)
	}
	p := rt.pool(q.pool.ID)
	p.count(func(t *totals) { t.arrivals++ })
	q.slo = rt.sloOf(q.header)
	q.visit = door.Visit{
		Tenant: q.caller.flow, Band: q.caller.band, Model: q.model, Bytes: len(q.body.Raw), Arrived: q.arrived,
		TTFT: q.slo.TTFT, Guess: p.cost(q),
	}
	if e := rt.spend(ctx, answer, q); e != nil {
		return e
	}
	return rt.notLetIn(p.door.Enter(ctx, &q.visit))
}

func unknownModel(model string) *openai.Error {
	if len(model) > 200 {
		model = model[:200]
	}
	return &openai.Error{
		Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
		Message: "the model `" + model + "` does not exist",
	}
}

// score asks for the request's matches. Without an answer the wish has the approximation only.
func (rt *router) score(ctx context.Context, q *request) (*ledger.Wish, time.Duration, *openai.Error) {
	scope := placements.Scope([]byte(q.pool.ID), []byte(q.lora), []byte(q.salt), q.scan.Value("tools"))
	chain := placements.Chain(nil, scope, q.text())
	if q.kind == scorerv1.Kind_KIND_UNSPECIFIED {
		return newWish(q, nil, nil), 0, nil
	}
	key := scope
	if len(chain) > 0 {
		key = chain[0]
	}
	view, began := rt.fleet.View(), time.Now()
	resp, err := rt.scorers.Ask(ctx, view, key, len(q.body.Raw), &scorerv1.ScoreRequest{
		Pool: q.pool.ID, Model: q.model, Lora: q.lora, Kind: q.kind, Spans: q.spans(), CacheSalt: q.salt,
	})
	took := time.Since(began)
	rt.metrics.took("score", took)
	if why := scorers.Unknown(resp, err); why != "" {
		rt.metrics.unknown.WithLabelValues(why).Inc()
		resp = nil
	}
	if resp = rt.trusted(q, resp); resp != nil {
		if most := maxLen(view, q); most > 0 && int(resp.PromptTokens) > most {
			return nil, took, &openai.Error{
				Status: http.StatusBadRequest, Code: "context_length_exceeded", Param: q.promptParam(),
				Message: tooLong(int(resp.PromptTokens), most),
			}
		}
	}
	return newWish(q, resp, chain), took, nil
}

// newWish is what the ledger must know of a request.
func newWish(q *request, score *scorerv1.ScoreResponse, chain []uint64) *ledger.Wish {
	text := q.text()
	if text == nil {
		text = q.body.Raw
	}
	return &ledger.Wish{Score: score, Chain: chain, Bytes: len(text), Streams: q.stream, Model: q.model}
}

// maxLen is the longest prompt that the engines take; 0 is not known.
func maxLen(v *fleet.View, q *request) (most int) {
	for _, e := range v.Engines {
		if e.Pool != q.pool.ID {
			continue
		}
		for _, m := range e.Models {
			if m.ID == q.model {
				most = max(most, m.MaxModelLen)
			}
		}
	}
	return most
}
