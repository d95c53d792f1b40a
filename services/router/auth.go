package router

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/tenants"
)

// What a trusted client may say of a request. From all others these headers are not read, and none reaches an engine.
const (
	priorityHeader    = "X-Warmpath-Priority"
	fairnessHeader    = "X-Llm-D-Inference-Fairness-Id"
	oldFairnessHeader = "X-Gateway-Inference-Fairness-Id"
	longestFairness   = 128
)

// caller is who asks: a tenant by its key, or nobody where no key is needed.
type caller struct {
	key  *fleet.APIKey // nil is nobody
	flow string        // whose turn in the queue it takes
	band int
}

func (c *caller) trusted() bool { return c.key != nil && c.key.Trusted }

func (c *caller) tenant() string {
	if c.key == nil {
		return ""
	}
	return c.key.Tenant
}

func (c *caller) tier() string {
	if c.key == nil {
		return ""
	}
	return c.key.Tier
}

// authenticate finds who asks. A proxy that is trusted may say for whom and with what priority; nobody else may.
func (rt *router) authenticate(h http.Header, now time.Time) (c caller, e *openai.Error) {
	key, err := rt.keys.Find(h.Get("Authorization"), now)
	if err != nil {
		if rt.cfg.NoAuth {
			return caller{}, nil
		}
		rt.metrics.denied.WithLabelValues(deniedBecause(err)).Inc()
		return caller{}, &openai.Error{
			Status: http.StatusUnauthorized, Code: "invalid_api_key",
			Message: err.Error() + "; send a valid one as Authorization: Bearer KEY",
		}
	}
	if key == nil {
		return caller{}, nil
	}
	c = caller{key: key, flow: key.Tenant, band: key.Priority}
	if !key.Trusted {
		return c, nil
	}
	for _, name := range []string{fairnessHeader, oldFairnessHeader} {
		if id := h.Get(name); id != "" && len(id) <= longestFairness {
			c.flow = key.Tenant + "/" + id
			break
		}
	}
	if n, err := strconv.Atoi(h.Get(priorityHeader)); err == nil {
		c.band = max(-fleet.MostPriority, min(n, fleet.MostPriority))
	}
	return c, nil
}

func deniedBecause(err error) string {
	switch {
	case errors.Is(err, tenants.ErrNoKey):
		return "no key"
	case errors.Is(err, tenants.ErrExpiredKey):
		return "expired"
	}
	return "unknown"
}

// confided lets only those through who may see what is told of all tenants: who is trusted, and anybody where no key is
// needed.
func (rt *router) confided(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, e := rt.authenticate(r.Header, time.Now())
		if e == nil && c.key != nil && !c.trusted() {
			e = &openai.Error{Status: http.StatusForbidden, Code: "not_trusted", Message: "this needs a key that is marked trusted"}
		}
		if e != nil {
			rt.refuse(w, e)
			return
		}
		next(w, r)
	}
}

// known lets only those through who may ask.
func (rt *router) known(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, e := rt.authenticate(r.Header, time.Now()); e != nil {
			rt.refuse(w, e)
			return
		}
		next(w, r)
	}
}
